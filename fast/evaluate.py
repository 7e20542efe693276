"""How good trained styles are: their own objective, and their steadiness, on photos not trained on.

    python -m fast.evaluate --model starry_night --data samples/photos
    python -m fast.evaluate --model first.pth second.pth --data photos --json figures.json
    python -m fast.evaluate --model mosaic.model --style mosaic.jpg --data photos

The loss of each painting is compared with those that L-BFGS goes through when it minimises the same
objective over the pixels of one image, from noise and from the photo: how many iterations it needs
to get as low. Models of the same objective share these. Models of other projects, which do not say
what they were trained for, are measured by train.py's usual losses.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

import cli
from fast.catalogue import SAMPLES, find_model
from fast.stylize import load_net
from fast.training.figures import (
    Descent,
    Figures,
    descents,
    finite,
    iterations_to_reach,
    measure,
    summary,
)
from fast.training.objective import make_objective
from fast.training.photos import find_photos, read_photos
from fast.training.settings import TrainingSettings
from media import claimed, read_image, sha256, write_atomically
from models.checkpoint import Checkpoint, read_checkpoint
from models.device import pick_device
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.memory import keep_pages, peak_memory


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--model", nargs="+", action="extend", required=True, help="one or more checkpoints"
    )
    parser.add_argument("--data", required=True, help="unseen photos, as for train.py")
    parser.add_argument(
        "--data-limit", type=cli.positive_int, metavar="N", help="take the first N photos only"
    )
    parser.add_argument(
        "--style",
        type=Path,
        metavar="IMAGE",
        help="style picture that the models were trained on (default: it lies in samples/)",
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
        help="give L-BFGS up after N iterations, and print inf; 0 skips this slow comparison "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--device", metavar="NAME", default="cpu", help="cpu, cuda or mps (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--force", action="store_true", help="overwrite an existing --json file")
    parser.add_argument("--write", action="store_true", help="store the means in the checkpoints")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.json:
        cli.check_output(args.json, flag="--json", exists_ok=args.force)
    keep_pages()
    device = pick_device(args.device)
    # With links followed: the file that is meant is replaced.
    paths = {name: Path(os.path.realpath(find_model(name))) for name in args.model}
    if args.json and args.json.resolve() in paths.values():
        raise ValueError(f"--json {args.json} would replace a model")
    with ExitStack() as claims:
        if args.write:
            for path in set(paths.values()):  # no training may go on meanwhile
                claims.enter_context(claimed(path, flag="--model"))
        evaluate(args, paths, device)
    if peak := peak_memory():
        print(f"\npeak memory of this process: {peak / 1e6:.0f} MB")
    return cli.OK


def evaluate(args: argparse.Namespace, paths: Mapping[str, Path], device: torch.device) -> None:
    """Print the figures of models, and write them where the flags say.

    Args:
        args: the flags.
        paths: files of the models, by the names that they were given by.
        device: where to compute.
    """
    checkpoints = {name: read_checkpoint(path) for name, path in paths.items()}
    for name, checkpoint in checkpoints.items():
        if args.write and not checkpoint.loss:
            raise ValueError(f"--write: {name} is of another project")
    losses = {
        name: objective(paths[name], checkpoint, args.style, device)
        for name, checkpoint in checkpoints.items()
    }
    nets = {
        name: load_net(path, device=str(device), precision="float32")
        for name, path in paths.items()
    }
    photos = find_photos(args.data, limit=args.data_limit)
    reported: set[str] = set()
    next(read_photos(photos, args.size, reported=reported))  # if none can be read, before all else

    print(f"| model | photo | {' | '.join(Figures.__annotations__)} |")
    print(f"| --- | --- {'| --- ' * len(Figures.__annotations__)}|")
    rows: dict[str, dict[str, Figures]] = {name: {} for name in paths}
    for photo, image in read_photos(photos, args.size, reported=reported):
        image = image.to(device)
        starts = {}
        if args.max_iterations:
            starts = {loss: descents(loss, image) for loss in set(losses.values())}
        for name, loss in losses.items():
            figures = measure(nets[name], loss, image)
            figures = compare(figures, starts.get(loss, {}), args.max_iterations)
            rows[name][photo] = figures
            print(_row(name, photo, asdict(figures)), flush=True)
        if args.json:
            report = {name: _report(of_photos, args.size) for name, of_photos in rows.items()}
            content = json.dumps(report, indent=2, allow_nan=False)
            write_atomically(args.json, content.encode())

    for name, checkpoint in checkpoints.items():
        figures = _means(rows[name], args.size)
        print(_row(name, "mean; of iterations the median", figures))
        if args.write:
            checkpoint.figures = figures
            write_atomically(paths[name], checkpoint.to_bytes())


@cache
def _read_objective(
    style: Path, style_size: int, settings: LossSettings, device: torch.device
) -> PerceptualLoss:
    picture = read_image(style, long_side=style_size)
    try:
        return make_objective(picture, settings, device=device)
    except ValueError as error:
        raise ValueError(f"--style {style}: {error}") from error


def compare(figures: Figures, starts: dict[str, Descent], limit: int) -> Figures:
    """Add the iterations that reach the same loss from each start; infinite beyond the limit."""
    reached = {}
    for start, descent in starts.items():
        path = islice(descent, limit + 1)  # with the start itself
        bar = tqdm(path, total=limit, leave=False, unit="iteration", disable=None)
        reached[start] = iterations_to_reach(figures.total, bar)
    return replace(figures, **reached)


def objective(
    path: Path, checkpoint: Checkpoint, style: Path | None, device: torch.device
) -> PerceptualLoss:
    """What a network was trained for; for the same objective the same object.

    Raises:
        ValueError: the style picture, by default that in samples/, is another one, or the
            checkpoint is damaged.
    """
    trained = checkpoint.training if checkpoint.loss else asdict(TrainingSettings())
    try:
        settings, style_size = LossSettings(**checkpoint.loss), int(trained["style_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say how it was trained") from error
    if style is None:
        style = SAMPLES / str(checkpoint.style.get("file"))
        if not style.is_file():
            raise ValueError(f"{path}: its style picture is not in samples/; give it by --style")
    if checkpoint.loss and sha256(style) != checkpoint.style.get("sha256"):
        raise ValueError(f"--style {style} is not the picture that {path} was trained on")
    return _read_objective(style, style_size, settings, device)


def _means(rows: Mapping[str, Figures], size: int) -> dict[str, float]:
    return {**summary(list(rows.values())), "size": size}


def _report(rows: Mapping[str, Figures], size: int) -> dict:
    each = {photo: finite(asdict(figures)) for photo, figures in rows.items()}
    return {**finite(_means(rows, size)), "each": each}


def _row(model: str, photo: str, figures: Mapping[str, float]) -> str:
    values = [figures.get(column, math.nan) for column in Figures.__annotations__]
    return f"| {model} | {photo} | {' | '.join(f'{value:.4g}' for value in values)} |"


if __name__ == "__main__":
    cli.run(main)
