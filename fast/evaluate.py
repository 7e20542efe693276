"""How good trained styles are: their own objective, and their steadiness, on photos not trained on.

    python -m fast.evaluate --model starry_night --data samples/photos
    python -m fast.evaluate --model first.pth --model second.pth --data photos --json figures.json

The loss of each painting is compared with those that L-BFGS goes through when it minimises the same
objective over the pixels of one image, from noise and from the photo: how many iterations it needs
to get as low. --write stores the means in the checkpoint.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import cli
from fast.figures import Figures, finite, measure, summary
from fast.stylize import find_model, load_net
from fast.training.photos import find_photos, read_photos
from media import read_image, sha256, write_atomically
from models.checkpoint import Checkpoint, read_checkpoint
from models.device import keep_pages, peak_memory
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss

SAMPLES = Path(__file__).parents[1] / "samples"


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--model", action="append", required=True, help="checkpoint; may be given several times"
    )
    parser.add_argument("--data", required=True, help="unseen photos, as for train.py")
    parser.add_argument(
        "--data-limit", type=cli.positive_int, metavar="N", help="take the first N photos only"
    )
    parser.add_argument(
        "--style",
        type=Path,
        metavar="IMAGE",
        help="style picture (default: that in samples/)",
    )
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=512,
        metavar="PX",
        help="longer side of the photos (default: %(default)s)",
    )
    parser.add_argument(
        "--max-iterations",
        type=cli.not_negative,
        default=100,
        metavar="N",
        help="most iterations of L-BFGS, 0 for none; in the table inf means more "
        "(default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--force", action="store_true", help="overwrite an existing --json file")
    parser.add_argument("--write", action="store_true", help="store the means in the checkpoint")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.json:
        cli.check_output(args.json, flag="--json", exists_ok=args.force)
    keep_pages()
    models = {}
    for path in map(find_model, args.model):
        checkpoint = read_checkpoint(path)
        models[path] = checkpoint, make_loss(path, checkpoint, args.style)
    if args.json and args.json.resolve() in {path.resolve() for path in models}:
        raise ValueError(f"--json {args.json} would replace a model")
    photos = find_photos(args.data, limit=args.data_limit)
    told: set[str] = set()
    next(read_photos(photos, args.size, told=told))  # if none can be read, before all else

    report = {}
    for path, (checkpoint, loss) in models.items():
        net = load_net(path, device="cpu", precision="float32")
        print(f"\n{path.name}, {args.size} px\n")
        print(f"| photo | {' | '.join(Figures.__annotations__)} |")
        print(f"| --- {'| --- ' * len(Figures.__annotations__)}|")
        rows = {}
        for photo, image in read_photos(photos, args.size, told=told):
            rows[photo] = measure(net, loss, image, limit=args.max_iterations)
            print(_row(photo, asdict(rows[photo])), flush=True)
        figures = {**summary(list(rows.values())), "size": args.size}
        print(_row("mean; of iterations the median", figures))
        if args.write:
            checkpoint.figures = figures
            write_atomically(path, checkpoint.to_bytes())
        report[str(path)] = {
            **finite(figures),
            "each": {photo: finite(asdict(row)) for photo, row in rows.items()},
        }
        if args.json:
            write_atomically(args.json, json.dumps(report, indent=2, allow_nan=False).encode())
    if peak := peak_memory():
        print(f"\npeak memory of this process: {peak / 2**20:.0f} MB")
    return cli.OK


def make_loss(path: Path, checkpoint: Checkpoint, style: Path | None) -> PerceptualLoss:
    """The objective of a trained network; ValueError if the style image, by default that in
    samples/, is another one.
    """
    try:
        settings, style_size = LossSettings(**checkpoint.loss), checkpoint.training["style_size"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say how it was trained") from error
    if style is None:
        style = SAMPLES / str(checkpoint.style.get("file"))
        if not style.is_file():
            raise ValueError(f"{path}: its style picture is not in samples/; give it by --style")
    if sha256(style) != checkpoint.style.get("sha256"):
        raise ValueError(f"--style {style} is not the picture that {path} was trained on")
    return PerceptualLoss(settings, [read_image(style, long_side=style_size).rgb])


def _row(name: str, figures: Mapping[str, float]) -> str:
    values = [figures.get(column, math.nan) for column in Figures.__annotations__]
    return f"| {name} | {' | '.join(f'{value:.4g}' for value in values)} |"


if __name__ == "__main__":
    cli.run(main)
