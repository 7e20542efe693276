"""Speed of prediction and of a training step beside the textbook implementation, in the same run.

    python -m benchmarks.speed

The textbook version runs in a process of its own with the C library's own memory handling, as it
would for its users; the two take turns, and the ratio is the median over the turns. Both compute
the same function.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

import torch

import cli
from benchmarks.textbook import TextbookLoss, TextbookNet
from fast.learner import make_optimizers
from fast.stylize import set_precision
from models.device import keep_pages, pick_precision
from models.losses import LossSettings, PerceptualLoss
from models.transformer_net import TransformerNet

REPEATS = 3  # of each job in a turn, after one that is not counted


@cache
def fastest() -> torch.dtype:
    """The precision that predict.py and train.py choose here by themselves."""
    return pick_precision("auto", torch.device("cpu"))


def prediction(ours: bool, size: int) -> Callable[[], object]:
    """One forward pass of the classic network."""
    image = torch.rand(1, 3, size, size)
    net = TransformerNet().eval()
    run = set_precision(net, fastest()) if ours else TextbookNet(net)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return run(image)

    return forward


def training_step(ours: bool, size: int) -> Callable[[], object]:
    """Forward, loss, backward and the optimiser's step for a batch of 4."""
    content, style = torch.rand(4, 3, size, size), torch.rand(1, 3, 384, 512)
    net = TransformerNet()
    optimizers = make_optimizers(net, 0.03) if ours else [torch.optim.Adam(net.parameters())]
    run = net if ours else TextbookNet(net)
    settings = LossSettings()
    if ours:
        loss = PerceptualLoss(settings, [style], dtype=fastest())
    else:
        loss = TextbookLoss(settings, style)

    def step() -> None:
        if ours:
            with torch.autocast("cpu", torch.bfloat16, enabled=fastest() == torch.bfloat16):
                stylized = run(content)
            loss(stylized, loss.content_targets(content)).total.backward()
        else:
            loss(run(content), content).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


JOBS = {"prediction": prediction, "training step": training_step}


def measure(job: str, ours: bool, size: int) -> float:
    """Median seconds of one run of a job, in this process."""
    if ours:
        keep_pages()
    torch.manual_seed(0)
    run = JOBS[job](ours, size)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--turns", type=int, default=3, help="turns (default: %(default)s)")
    parser.add_argument("--only", nargs=3, metavar=("JOB", "WHO", "PX"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        job, who, size = args.only
        print(measure(job, who == "ours", int(size)))
        return cli.OK

    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"the faster precision here: {str(fastest()).removeprefix('torch.')}\n")
    print("| job | size | textbook | ours | ratio |\n| --- | --- | --- | --- | --- |")
    for job, size in (("prediction", 1024), ("training step", 256)):
        pairs = []
        for _ in range(args.turns):
            pair = [
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.speed", "--only", job, who, str(size)],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                for who in ("textbook", "ours")
            ]
            pairs.append([float(value) for value in pair])
        textbook, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"| {job} | {size} px | {textbook:.2f} s | {ours:.2f} s | {ratio:.1f}x |", flush=True)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
