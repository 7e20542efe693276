"""How good a trained style is: its own objective on photos that it has not seen.

    python -m benchmarks.quality --model starry_night.pth --style samples/starry_night.jpg
    photo.jpg ...

For each photo the loss of the network's painting is compared with the losses that L-BFGS goes
through when it minimises the same objective from noise: "iterations" is how many of them it needs
to get as low. --write stores the figures in the checkpoint.
"""

import hashlib
import math
import statistics
from pathlib import Path

import torch

import cli
from fast.stylize import find_model, load
from fast.stylize import stylize as stylize_fast
from media import find_images, read_image, write_atomically
from models.checkpoint import read_checkpoint
from models.device import keep_pages
from models.losses import LossSettings, PerceptualLoss
from slow.stylize import Iterate
from slow.stylize import stylize as stylize_slow


class Reached(Exception):
    """L-BFGS is as good as the network."""


def iterations_to_reach(
    target: float, content: torch.Tensor, style: torch.Tensor, loss: LossSettings, limit: int
) -> float:
    """Evaluations of L-BFGS from noise until its loss is as low; infinite beyond the limit."""

    def watch(iterate: Iterate) -> None:
        if iterate.loss <= target:
            raise Reached(iterate.step)

    try:
        stylize_slow(content, [style], loss=loss, steps=limit, init="noise", callback=watch)
    except Reached as reached:
        return reached.args[0]
    return math.inf


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument("photos", type=Path, nargs="+", help="unseen photos, or folders")
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument("--style", type=Path, required=True, help="its style picture")
    parser.add_argument(
        "--size", type=int, default=512, metavar="PX", help="longer side (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=int, default=150, metavar="N", help="most iterations (default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="store the figures in the checkpoint")
    args = parser.parse_args()

    keep_pages()
    path = find_model(args.model)
    checkpoint = read_checkpoint(path)
    if hashlib.sha256(args.style.read_bytes()).hexdigest() != checkpoint.style["sha256"]:
        raise ValueError(f"--style {args.style} is not the picture that {path} was trained on")
    settings = LossSettings(**checkpoint.loss)
    style = read_image(args.style, long_side=checkpoint.training["style_size"]).rgb
    loss = PerceptualLoss(settings, [style])
    net = load(path, device="cpu", precision="float32")
    photos = [
        p for given in args.photos for p in (find_images(given) if given.is_dir() else [given])
    ]

    print(
        "| photo | content | style | total | L-BFGS iterations |\n| --- | --- | --- | --- | --- |"
    )
    rows = []
    for photo in photos:
        content = read_image(photo, long_side=args.size).rgb
        with torch.no_grad():
            terms = loss(stylize_fast(net, content), loss.content_targets(content))
        values = [terms.content.item(), terms.style.item(), terms.total.item()]
        steps = iterations_to_reach(values[2], content, style, settings, args.limit)
        rows.append((*values, steps))
        print(row(photo.name, rows[-1]), flush=True)
    *means, _ = (statistics.mean(column) for column in zip(*rows, strict=True))
    steps = [steps for *_, steps in rows]
    print(row("mean, median of iterations", (*means, statistics.median(steps))))
    if args.write:
        names = ("content", "style", "total", "lbfgs_iterations_from_noise")
        checkpoint.figures = dict(zip(names, (*means, statistics.median(steps)), strict=True))
        checkpoint.figures |= {"photos": len(photos), "size": args.size, "least": min(steps)}
        write_atomically(path, checkpoint.to_bytes())
    return cli.OK


def row(name: str, values: tuple[float, ...]) -> str:
    """A line of the table."""
    *losses, steps = values
    return f"| {name} | {' | '.join(f'{value:.4g}' for value in losses)} | {steps:g} |"


if __name__ == "__main__":
    cli.run(main)
