"""How good trained styles are: their own objective, and their steadiness, on photos not trained on.

    python -m fast.evaluate --model starry_night --data samples/photos
    python -m fast.evaluate --model first.pth --model second.pth --data photos --json figures.json

The loss of each painting is compared with those that L-BFGS goes through when it minimises the same
objective over the pixels of one image, from noise and from the photo: how many iterations it needs
to get as low. --write stores the means in the checkpoint.
"""

import argparse
import hashlib
import json
import math
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

import cli
from fast.photos import Photo, find_photos
from fast.stability import change_when_moved
from fast.stylize import find_model, load, stylize
from media import decode_image, read_image, write_atomically
from models.checkpoint import Checkpoint, read_checkpoint
from models.device import keep_pages
from models.losses import LossSettings, PerceptualLoss
from models.transformer_net import TransformerNet

SAMPLES = Path(__file__).parents[1] / "samples"
MIN_SIDE = 16  # px, for the deepest layer of the losses


@dataclass(frozen=True)
class Figures:
    """What was measured on one photo, or the means over several.

    Args:
        content, style, total: loss terms of the painting; total is weighted.
        from_noise, from_content: iterations that L-BFGS needs to get as low; infinite if it does
            not within the limit, NaN if it was not tried.
        instability: mean change of the painting, in grey levels, when the photo moves by a pixel
            (and the painting is moved back) and gets noise of 2 grey levels.
        seconds: of one forward pass.
    """

    content: float
    style: float
    total: float
    from_noise: float
    from_content: float
    instability: float
    seconds: float


def evaluate(
    net: TransformerNet, loss: PerceptualLoss, image: Tensor, *, limit: int = 0
) -> Figures:
    """Measure a network on one photo.

    Args:
        net: network from `load`.
        loss: objective that it was trained for, on the network's device.
        image: (1, 3, H, W) RGB in [0, 1].
        limit: most iterations of L-BFGS; 0 leaves them out.
    """
    image = image.to(net.device)
    start = time.perf_counter()
    painting = stylize(net, image).clone()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        terms = loss(painting, loss.content_targets(image))
    content, style, total = (x.item() for x in (terms.content, terms.style, terms.total))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(image.shape, generator=generator).to(image.device)
    iterations = [
        iterations_to_reach(total, image, start, loss, limit) if limit else math.nan
        for start in (noise, image)
    ]
    return Figures(content, style, total, *iterations, instability(net, image), seconds)


def iterations_to_reach(
    target: float, content: Tensor, start: Tensor, loss: PerceptualLoss, limit: int
) -> float:
    """Iterations of L-BFGS over the pixels until its loss is as low; infinite beyond the limit.

    One evaluation each, a history of 20, the image free to leave [0, 1] while it is optimised and
    clamped before it is judged.
    """
    image = start.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    targets = loss.content_targets(content)
    search = torch.optim.LBFGS(
        [image], max_iter=1, history_size=20, tolerance_grad=-1, tolerance_change=-1
    )

    def evaluate() -> Tensor:
        image.grad = None
        total = loss(image, targets).total
        total.backward()
        return total.detach()

    for iteration in tqdm(range(1, limit + 1), leave=False, unit="iteration", disable=None):
        if search.step(evaluate).item() <= target:
            return iteration
    return math.inf


@torch.no_grad()
def instability(net: TransformerNet, image: Tensor) -> float:
    """Mean change in grey levels under a shift by a pixel both ways and noise of 2 grey levels."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    change = change_when_moved(net, image, net(image), (1, 1), noise.to(image.device))
    return 255 * change.abs().mean().item()


def mean(figures: Sequence[Figures]) -> Figures:
    """The means; of the iterations, the medians."""
    columns = zip(*(asdict(f).items() for f in figures), strict=True)
    means = {}
    for column in columns:
        name, values = column[0][0], [value for _, value in column]
        average = statistics.median if name.startswith("from") else statistics.mean
        means[name] = average(values)
    return Figures(**means)


def read_photos(
    photos: Iterable[Photo], size: int, *, count: int | None = None
) -> dict[str, Tensor]:
    """Photos (1, 3, H, W) by name, each scaled to a longer side of `size` px.

    The first `count` that can be read; one that cannot is left out with a warning. ValueError if
    none can.
    """
    images, failure = {}, None
    for photo in photos:
        if len(images) == count:
            break
        try:
            images[photo.name] = decode_image(BytesIO(photo.read()), photo.name, long_side=size).rgb
            height, width = images[photo.name].shape[-2:]
            if min(height, width) < MIN_SIDE:
                del images[photo.name]
                raise ValueError(f"{photo.name} is too thin: {width}x{height} px at {size} px")
        except (OSError, ValueError) as error:
            failure = error
            warnings.warn(f"photo left out: {error}", stacklevel=2)
    if not images:
        raise ValueError(f"none of the photos can be read: {failure}")
    return images


def make_loss(checkpoint: Checkpoint, style: Path) -> PerceptualLoss:
    """The objective of a trained network; ValueError if the style image is another one."""
    if hashlib.sha256(style.read_bytes()).hexdigest() != checkpoint.style.get("sha256"):
        raise ValueError(f"--style {style} is not the picture that the model was trained on")
    image = read_image(style, long_side=checkpoint.training["style_size"]).rgb
    return PerceptualLoss(LossSettings(**checkpoint.loss), [image])


def main() -> int:
    args = parse_args()
    if args.json:
        cli.check_output(
            args.json, flag="--json", exists_ok=args.force, remedy="replace it by --force"
        )
    keep_pages()
    photos = read_photos(find_photos(args.data, limit=args.data_limit), args.size)
    report = {}
    for name in args.model:
        path = find_model(name)
        checkpoint = read_checkpoint(path)
        loss = make_loss(checkpoint, args.style or SAMPLES / checkpoint.style.get("file", ""))
        net = load(path, device="cpu", precision="float32")
        print(f"\n{path.name}, {args.size} px\n")
        print(f"| photo | {' | '.join(Figures.__annotations__)} |")
        print(f"| --- {'| --- ' * len(Figures.__annotations__)}|")
        rows = {}
        for photo, image in photos.items():
            rows[photo] = evaluate(net, loss, image, limit=args.limit)
            print(_row(photo, rows[photo]), flush=True)
        means = mean(list(rows.values()))
        print(_row("mean; median of iterations", means))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory /= 2**20 if sys.platform == "darwin" else 2**10
        print(f"\npeak memory of this process: {memory:.0f} MB")
        least = min(row.from_noise for row in rows.values())
        figures = {**asdict(means), "least_from_noise": least, "size": args.size}
        report[str(path)] = {
            **_finite(figures),
            "photos": {name: _finite(asdict(row)) for name, row in rows.items()},
        }
        if args.write:
            checkpoint.figures = {**figures, "photos": len(rows)}
            write_atomically(path, checkpoint.to_bytes())
    if args.json:
        write_atomically(args.json, json.dumps(report, indent=2, allow_nan=False).encode())
    return cli.OK


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.prog = "python -m fast.evaluate"
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
        help="style picture (default: looked for in samples/)",
    )
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=512,
        metavar="PX",
        help="longer side of the photos (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=cli.not_negative,
        default=100,
        metavar="N",
        help="most iterations of L-BFGS, 0 for none (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--force", action="store_true", help="overwrite an existing --json file")
    parser.add_argument("--write", action="store_true", help="store the means in the checkpoint")
    return parser.parse_args()


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _row(name: str, figures: Figures) -> str:
    values = " | ".join(f"{value:.4g}" for value in asdict(figures).values())
    return f"| {name} | {values} |"


if __name__ == "__main__":
    cli.run(main)
