"""How good trained styles are: their own objective, and their steadiness, on photos not trained on.

    python -m fast.evaluate --model starry_night --data samples/photos
    python -m fast.evaluate --model first.pth --model second.pth --data photos --json figures.json

The loss of each painting is compared with those that L-BFGS goes through when it minimises the same
objective over the pixels of one image, from noise and from the photo: how many iterations it needs
to get as low. Models of the same objective share these. --write stores the means in the checkpoint.
"""

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import cli
from fast.figures import Descents, Figures, finite, measure, summary
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
    models = {path: read_checkpoint(path) for path in map(find_model, args.model)}
    if args.json and args.json.resolve() in {path.resolve() for path in models}:
        raise ValueError(f"--json {args.json} would replace a model")
    losses = {path: objective(path, model, args.style) for path, model in models.items()}
    nets = {path: load_net(path, device="cpu", precision="float32") for path in models}
    photos = find_photos(args.data, limit=args.data_limit)
    told: set[str] = set()
    next(read_photos(photos, args.size, told=told))  # if none can be read, before all else

    print(f"| model | photo | {' | '.join(Figures.__annotations__)} |")
    print(f"| --- | --- {'| --- ' * len(Figures.__annotations__)}|")
    rows: dict[Path, dict[str, Figures]] = {path: {} for path in models}
    for photo, image in read_photos(photos, args.size, told=told):
        compared = set(losses.values()) if args.max_iterations else ()
        descents = {loss: Descents(loss, image) for loss in compared}
        for path, loss in losses.items():
            figures = measure(nets[path], loss, image)
            if descents:
                figures = descents[loss].compare(figures, args.max_iterations)
            rows[path][photo] = figures
            print(_row(path, photo, asdict(figures)), flush=True)

    report = {}
    for path, checkpoint in models.items():
        means = {**summary(list(rows[path].values())), "size": args.size}
        print(_row(path, "mean; of iterations the median", means))
        if args.write:
            checkpoint.figures = means
            write_atomically(path, checkpoint.to_bytes())
        each = {photo: finite(asdict(figures)) for photo, figures in rows[path].items()}
        report[str(path)] = {**finite(means), "each": each}
    if args.json:
        write_atomically(args.json, json.dumps(report, indent=2, allow_nan=False).encode())
    if peak := peak_memory():
        print(f"\npeak memory of this process: {peak / 2**20:.0f} MB")
    return cli.OK


def objective(path: Path, checkpoint: Checkpoint, style: Path | None) -> PerceptualLoss:
    """What a network was trained for, the same object for the same objective; ValueError if the
    style image, by default that in samples/, is another one.
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
    return _perceptual_loss(settings, style, style_size)


@cache
def _perceptual_loss(settings: LossSettings, style: Path, style_size: int) -> PerceptualLoss:
    return PerceptualLoss(settings, [read_image(style, long_side=style_size).rgb])


def _row(path: Path, photo: str, figures: Mapping[str, float]) -> str:
    values = [figures.get(column, math.nan) for column in Figures.__annotations__]
    return f"| {path.stem} | {photo} | {' | '.join(f'{value:.4g}' for value in values)} |"


if __name__ == "__main__":
    cli.run(main)
