"""Two implementations in turns, each in a process of its own.

The textbook's process has the C library's own handling of memory, as it would for its users; and
on a machine where other programs run, only what is measured in turns can be compared.
"""

import statistics
import subprocess
import sys

WHO = ("textbook", "ours")


def in_turns(module: str, arguments: list[str], turns: int) -> tuple[float, float, float]:
    """Run `python -m module --only WHO *arguments`, which prints a number, for each in turns.

    Returns:
        The medians of the textbook's numbers, of ours, and of the ratios ours / textbook.
    """
    pairs = []
    for _ in range(turns):
        pair = [
            subprocess.run(
                [sys.executable, "-m", module, "--only", who, *arguments],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for who in WHO
        ]
        pairs.append([float(value) for value in pair])
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return *medians, statistics.median(ours / textbook for textbook, ours in pairs)
