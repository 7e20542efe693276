"""Time to a loss of the slow path beside the textbook implementation, and the memory of both.

    python -m benchmarks.slow
    python -m benchmarks.slow --size 256 --iterations 100

The textbook's L-BFGS works at full size from the start. The loss that it has reached after so many
evaluations, from the content image and from noise, is the one that ours has to reach: with the
settings of python -m slow in either case, and from a trained style's painting at full size only.
Both minimise the same function, the Gram losses that the fast path is trained with; ours in the
precision that it chooses here (bfloat16 gives the same but for 0.0002). Our time includes
everything but importing libraries and reading the pictures; the textbook's does not include making
its loss network either.
The runs follow each other at once, each in a process of its own; where other programs run, --clock
cpu compares better.
"""

import argparse
import json
import math
import time
from dataclasses import replace
from itertools import islice

import torch

import cli
from benchmarks.turns import SIDES, print_machine, run_alone
from fast import load
from fast.catalogue import SAMPLE_PHOTOS, SAMPLES
from media import read_image
from models.device import pick_device, pick_precision
from models.loss_settings import LossSettings
from models.memory import peak_memory
from slow import PRESETS, Iterate, SlowSettings, stylize
from slow.start import start_image

MODEL = "starry_night"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
STARTS = ("content", "noise", MODEL)


class _ReachedError(Exception):
    """Our run has the loss that it was to reach."""


def run_textbook(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Evaluate the loss so many times."""
    # Here, for ours needs no torchvision, which takes 150 MB.
    from benchmarks.textbook import TextbookLoss, textbook_optimization

    content, style = pictures(args.size, device)
    first = start_image(content, [style], SlowSettings(init=args.start), None)
    loss = TextbookLoss(LossSettings(), style)
    start = CLOCKS[args.clock]()
    losses = textbook_optimization(loss, content, first)
    reached = min(islice(losses, args.iterations))
    return {"seconds": CLOCKS[args.clock]() - start, "loss": reached, "steps": args.iterations}


def run_ours(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Optimise until the loss at full size is as low as args.target; at most to the end."""
    content, style = pictures(args.size, device)
    settings, _ = PRESETS["best"]
    lowest: dict[str, float] = {}

    def watch(iterate: Iterate) -> None:
        if max(iterate.size) == args.size:
            lowest.update(loss=min(iterate.loss, lowest.get("loss", iterate.loss)))
            lowest.update(steps=iterate.step)
            if iterate.loss <= args.target:
                raise _ReachedError

    start = CLOCKS[args.clock]()
    init = load(MODEL, device=args.device)(content) if args.start == MODEL else None
    # From a painting on nothing is left to be found at small scales.
    min_size = settings.min_size if init is None else 0
    settings = replace(settings, size=args.size, min_size=min_size)
    try:
        dtype, loss = pick_precision("auto", device), LossSettings()
        stylize(content, [style], settings, loss, init=init, dtype=dtype, callback=watch)
    except _ReachedError:
        pass
    return {"seconds": CLOCKS[args.clock]() - start, **lowest}


def pictures(size: int, device: torch.device) -> list[torch.Tensor]:
    """A photo and a painting."""
    files = (SAMPLE_PHOTOS / "rocket.jpg", SAMPLES / "starry_night.jpg")
    return [read_image(file, long_side=size).rgb.to(device) for file in files]


def measure(side: str, start: str, args: argparse.Namespace, target: float = 0) -> dict[str, float]:
    """What a run in a process of its own reports, and its memory at most in MB."""
    arguments = ["--only", side, "--start", start, "--clock", args.clock, f"--target={target}"]
    arguments += [f"--size={args.size}", f"--iterations={args.iterations}"]
    arguments += ["--device", args.device] if args.device else []
    return json.loads(run_alone("benchmarks.slow", arguments, large_pages=side == "ours"))


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=512,
        metavar="PX",
        help="longer side of the image (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations",
        type=cli.positive_int,
        default=500,
        metavar="N",
        help="evaluations of the textbook's (default: %(default)s)",
    )
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument(
        "--starts",
        type=cli.list_of(str),
        default=STARTS,
        metavar="START[,START]",
        help=f"of {', '.join(STARTS)} (default: all)",
    )
    parser.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="time that passes, or that the processor works (default: %(default)s)",
    )
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--start", choices=STARTS, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not set(args.starts) <= set(STARTS):
        parser.error(f"--starts {','.join(args.starts)}: choose from {', '.join(STARTS)}")
    return args


def main() -> int:
    args = parse_args()
    device = pick_device(args.device)
    if args.only:
        report = (run_textbook if args.only == "textbook" else run_ours)(args, device)
        print(json.dumps({**report, "memory": (peak_memory() or math.nan) / 1e6}))
        return cli.OK
    print_machine(device)
    print("| start | loss | textbook | ours | ratio |\n| --- | --- | --- | --- | --- |")
    textbook, ours = {}, {}
    for start in args.starts:
        # A trained style is a start for ours alone: to the same loss as from the content image.
        theirs = "content" if start == MODEL else start
        if theirs not in textbook:
            textbook[theirs] = measure("textbook", theirs, args)
        ours[start] = measure("ours", start, args, textbook[theirs]["loss"])
        print(row(start, textbook[theirs], ours[start]), flush=True)
    peaks = [max(run["memory"] for run in side.values()) for side in (textbook, ours)]
    print(f"| memory | | {peaks[0]:.0f} MB | {peaks[1]:.0f} MB | {peaks[0] / peaks[1]:.1f}x |")
    return cli.OK


def row(start: str, textbook: dict[str, float], ours: dict[str, float]) -> str:
    """A line of the table; a loss that was not reached is said."""
    ratio = f"{textbook['seconds'] / ours['seconds']:.1f}x"
    if ours["loss"] > textbook["loss"]:
        ratio = f"not reached: {ours['loss']:.4g}"
    sides = (f"{side['seconds']:.0f} s ({side['steps']} steps)" for side in (textbook, ours))
    return f"| {start} | {textbook['loss']:.4g} | {' | '.join(sides)} | {ratio} |"


if __name__ == "__main__":
    cli.run(main)
