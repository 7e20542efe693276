"""How good a trained style is: its own objective on photos that it has not seen.

    python -m benchmarks.quality --model starry_night.pth --style samples/starry_night.jpg
    photo.jpg ...

For each photo the loss of the network's painting is compared with the losses that L-BFGS goes
through when it minimises the same objective from noise: "iterations" is how many of them it needs
to get as low. --write stores the figures in the checkpoint.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from fast.stylize import find_model, load
from fast.stylize import stylize as paint
from media import find_images, read_image, write_atomically
from models.checkpoint import read_checkpoint
from models.device import keep_pages
from models.losses import LossSettings, PerceptualLoss
from slow.stylize import Iterate
from slow.stylize import stylize as optimise


class Reached(Exception):
    """L-BFGS is as good as the network."""


def iterations_to_reach(
    target: float, content: torch.Tensor, style: torch.Tensor, loss: LossSettings, limit: int
) -> int:
    """Evaluations of L-BFGS from noise until its loss is as low; at most the limit."""
    steps = 0

    def watch(iterate: Iterate) -> None:
        nonlocal steps
        steps = iterate.step
        if iterate.loss <= target:
            raise Reached

    try:
        optimise(content, [style], loss=loss, steps=limit, init="noise", callback=watch)
    except Reached:
        pass
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "photos", type=Path, nargs="+", help="photos held out of training, or folders"
    )
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument(
        "--style", type=Path, required=True, help="the style picture that it was trained on"
    )
    parser.add_argument(
        "--size", type=int, default=512, help="longer side in px (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=int, default=150, help="most iterations (default: %(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="store the figures in the checkpoint")
    args = parser.parse_args()

    keep_pages()
    path = find_model(args.model)
    checkpoint = read_checkpoint(path)
    settings = LossSettings(**checkpoint.loss)
    style = read_image(args.style, long_side=checkpoint.training["style_size"]).rgb
    loss = PerceptualLoss(settings, [style])
    net = load(path, device="cpu", precision="float32")
    photos = [
        p for given in args.photos for p in (find_images(given) if given.is_dir() else [given])
    ]

    print(
        "| photo | content | style | total | L-BFGS iterations from noise |\n"
        "| --- | --- | --- | --- | --- |"
    )
    rows = []
    start = time.perf_counter()
    for photo in photos:
        content = read_image(photo, long_side=args.size).rgb
        with torch.no_grad():
            terms = loss(paint(net, content), loss.content_targets(content))
        total = terms.total.item()
        steps = iterations_to_reach(total, content, style, settings, args.limit)
        rows.append((terms.content.item(), terms.style.item(), total, steps))
        print(
            f"| {photo.name} | {rows[-1][0]:.4g} | {rows[-1][1]:.4g} | {total:.4g} | {steps} |",
            flush=True,
        )
    content, style_loss, total = (
        statistics.mean(column) for column in list(zip(*rows, strict=True))[:3]
    )
    steps = [row[3] for row in rows]
    print(
        f"| mean (median of iterations) | {content:.4g} | {style_loss:.4g} | {total:.4g} | "
        f"{statistics.median(steps):g} |\n\n{time.perf_counter() - start:.0f} s"
    )
    if args.write:
        checkpoint.figures = {
            "photos": len(photos),
            "size": args.size,
            "content": content,
            "style": style_loss,
            "total": total,
            "lbfgs_iterations_from_noise": float(statistics.median(steps)),
            "lbfgs_iterations_least": min(steps),
        }
        write_atomically(path, checkpoint.to_bytes())


if __name__ == "__main__":
    main()
