"""Memory and time of a step with the Gram losses as a whole and in tiles, beside the estimate.

    python -m benchmarks.memory
    python -m benchmarks.memory --size 2048 --sides 512

Each row is a process of its own, in which the loss and its gradient are evaluated some times. Where
the estimate is far off, TILE_BYTES of slow/memory.py has to be changed.
"""

import argparse
import math
import threading
import time

import torch

import cli
from benchmarks.turns import print_machine, run_alone
from models.device import dtype_of_maps, pick_device, pick_precision
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.memory import keep_pages, taken_memory
from models.tiles import split
from slow.memory import FIXED_BYTES, GB, TILE_BYTES, pixels_per_step, seconds_per_pixel
from slow.objective import tiled_objective

REPEATS = 3


def measure(size: int, side: int, device: torch.device) -> tuple[float, float, float]:
    """Bytes that some evaluations took at most, beside what was there before, the seconds of the
    fastest, and those for a pixel from which a plan is made.
    """
    keep_pages(large=False)
    torch.manual_seed(0)
    image = torch.rand(1, 3, size, size, device=device)
    dtype = pick_precision("auto", device)
    loss = PerceptualLoss(LossSettings(), [image[..., :256, :256]], dtype=dtype)
    per_pixel = seconds_per_pixel(loss, image)
    evaluate = tiled_objective(loss, image, side)
    before = peak = taken_memory(device)
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, taken_memory(device))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        evaluate(image.requires_grad_(True)).total.item()
        seconds = min(seconds, time.perf_counter() - start)
    done.set()
    watcher.join()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    return peak - before, seconds, per_pixel


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=1024,
        metavar="PX",
        help="side of the image (default: %(default)s)",
    )
    parser.add_argument(
        "--sides",
        type=cli.list_of(int),
        default=(1024, 512, 256),
        metavar="PX[,PX]",
        help="longest sides of the tiles (default: 1024,512,256)",
    )
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument("--only", type=cli.positive_int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = pick_device(args.device)
    if args.only:
        print(*measure(args.size, args.only, device))
        return cli.OK

    print_machine(device)
    print("| tiles of | number | memory | estimate | time | estimate |")
    print("| --- | --- | --- | --- | --- | --- |")
    layers = LossSettings().content_layers + LossSettings().style_layers
    tile_bytes = TILE_BYTES[dtype_of_maps(pick_precision("auto", device)).itemsize]
    size = args.size, args.size
    for side in args.sides:
        arguments = ["--only", str(side), "--size", str(args.size), "--device", str(device)]
        printed = run_alone("benchmarks.memory", arguments, large_pages=True)
        memory, seconds, per_pixel = map(float, printed.split())
        tiles = split(size, side, layers)
        pixels = max(math.prod(end - start for start, end in tile.outer) for tile in tiles)
        bytes_needed = FIXED_BYTES + tile_bytes * pixels
        seconds_needed = per_pixel * pixels_per_step(size, side, layers)
        cells = (
            f"{side} px",
            len(tiles),
            f"{memory / GB:.2f} GB",
            f"{bytes_needed / GB:.2f} GB",
            f"{seconds:.1f} s",
            f"{seconds_needed:.1f} s",
        )
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
