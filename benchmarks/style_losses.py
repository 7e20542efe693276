"""What each way of comparing styles costs: the time of the loss and its gradient, by size.

    python -m benchmarks.style_losses
    python -m benchmarks.style_losses --sizes 512,1024

On the CPU in float32, with the other settings of python -m slow; each figure is the fastest of six.
"""

from dataclasses import replace
from functools import partial

import torch

import cli
from benchmarks.slow import pictures
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.memory import keep_pages
from models.style import STYLE_LOSSES
from models.timing import best_seconds
from slow import PRESETS


def evaluation(settings: LossSettings, size: int) -> partial:
    """Computes the loss of a photo with so many px along its longer side, and the gradient."""
    content, style = pictures(size, torch.device("cpu"))
    loss = PerceptualLoss(settings, [style])
    return partial(evaluate, loss, content.requires_grad_(True), loss.content_targets(content))


def evaluate(
    loss: PerceptualLoss, image: torch.Tensor, targets: dict[str, torch.Tensor]
) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(loss(image, targets).total, image)
    return gradient


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--sizes",
        type=cli.list_of(cli.positive_int),
        default=(128, 512),
        metavar="PX[,PX]",
        help="longer side of the image (default: 128,512)",
    )
    args = parser.parse_args()
    keep_pages(large=False)
    _, settings = PRESETS["best"]
    print("| size | style loss | time | beside gram |\n| --- | --- | --- | --- |")
    for size in args.sizes:
        runs = [evaluation(replace(settings, style_loss=name), size) for name in STYLE_LOSSES]
        seconds = dict(zip(STYLE_LOSSES, best_seconds(*runs), strict=True))
        for name, time in seconds.items():
            more = time / seconds["gram"] - 1
            print(f"| {size} px | {name} | {1000 * time:.0f} ms | {more:+.0%} |", flush=True)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
