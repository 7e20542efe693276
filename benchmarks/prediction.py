"""Speed of prediction beside the textbook implementation, in the same run.

    python -m benchmarks.prediction

Both compute the same function, one forward pass of the classic network; ours in the precision that
predict.py chooses here.
"""

import argparse
import os
import platform
import statistics
import time

import torch

import cli
from benchmarks.textbook import TextbookNet
from benchmarks.turns import WHO, in_turns
from fast.stylize import set_precision
from models.device import keep_pages, pick_device, pick_precision
from models.transformer_net import TransformerNet

REPEATS = 5  # after one that is not counted


@torch.inference_mode()
def images_per_second(ours: bool, size: int, device: torch.device) -> float:
    """Of forward passes of one image, in this process."""
    if ours:
        keep_pages()
    torch.manual_seed(0)
    image, net = torch.rand(1, 3, size, size, device=device), TransformerNet().eval().to(device)
    run = set_precision(net, pick_precision("auto", device)) if ours else TextbookNet(net)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run(image).cpu()  # waits until it is there
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds[1:])


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--size", type=int, default=1024, metavar="PX", help="side (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=int, default=3, metavar="N", help="turns (default: %(default)s)"
    )
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument("--only", choices=WHO, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        print(images_per_second(args.only == "ours", args.size, device))
        return cli.OK
    precision = str(pick_precision("auto", device)).removeprefix("torch.")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {device}, torch {torch.__version__}")
    arguments = ["--size", str(args.size), "--device", str(device)]
    textbook, ours, ratio = in_turns("benchmarks.prediction", arguments, args.turns)
    print(f"\n| {args.size} px | s an image |\n| --- | --- |")
    print(f"| textbook, float32 | {1 / textbook:.2f} |\n| ours, {precision} | {1 / ours:.2f} |")
    print(f"| ratio | {ratio:.1f}x |")
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
