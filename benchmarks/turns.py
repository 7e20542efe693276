"""Two implementations in turns, each in a process of its own.

The textbook's process has the C library's own handling of memory, as it would for its users; and
on a machine where other programs run, only what is measured in turns can be compared.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence

import torch

import cli
from launch import LARGE_PAGES
from models.device import pick_precision

SIDES = ("textbook", "ours")


def make_parser(description: str) -> argparse.ArgumentParser:
    """The flags of a comparison; --only SIDE prints that side's images per second."""
    parser = cli.make_parser(description)
    parser.add_argument(
        "--turns",
        type=cli.not_negative,
        default=3,
        metavar="N",
        help="runs of each side for the speed; 0 leaves it out (default: %(default)s)",
    )
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    return parser


def print_machine(device: torch.device) -> None:
    """What the figures that follow were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    precision = str(pick_precision("auto", device)).removeprefix("torch.")
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}; ours in {precision}\n")


def in_turns(module: str, arguments: list[str], turns: int) -> tuple[float, float, float]:
    """Run `python -m module --only SIDE *arguments`, which prints a number, for each in turns.

    Returns:
        The medians of the textbook's numbers, of ours, and of the ratios ours / textbook.

    Raises:
        RuntimeError: one of them failed.
    """
    pairs = []
    for _ in range(turns):
        pair = []
        for side in SIDES:
            printed = run_alone(module, ["--only", side, *arguments], large_pages=side == "ours")
            pair.append(float(printed))
        pairs.append(pair)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return *medians, statistics.median(ours / textbook for textbook, ours in pairs)


def run_alone(module: str, arguments: Sequence[str], *, large_pages: bool) -> str:
    """What `python -m module *arguments` prints, in a process of its own.

    Args:
        module: to run.
        arguments: its command line.
        large_pages: as the project's own command lines have them.

    Raises:
        RuntimeError: it failed; its message is on the standard error stream.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = os.environ | (LARGE_PAGES if large_pages else {})
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if result.returncode:
        raise RuntimeError(f"failed: python -m {module} {' '.join(arguments)}")
    return result.stdout
