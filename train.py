"""Train a new style: a network that paints any photo in the style of one picture.

    python train.py --style painting.jpg -o checkpoints/glance.pth --quick
    python train.py --style samples/starry_night.jpg --data train2014 -o checkpoints/mine.pth
    accelerate launch train.py --style painting.jpg --data train2014 -o checkpoints/mine.pth

A checkpoint and, beside it, a preview picture are written every --save-every steps; an
interrupted training goes on with the same command and --resume.
"""

import launch

if __name__ == "__main__":
    launch.before_torch()

import argparse
import os
from contextlib import nullcontext, suppress
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

import cli
import interrupt
from fast.training.flags import check_existing, check_flags, parse_args
from fast.training.job import train
from fast.training.progress import TERMS, TrainingProgress
from fast.training.settings import (
    MIXED_PRECISIONS,
    TrainingSettings,
    accelerate_name,
    share_of_work,
)
from media import claimed
from models.checkpoint import read_checkpoint
from models.device import pick_device, pick_precision
from models.int8 import is_exact
from models.memory import keep_pages


def main() -> int:
    args = parse_args(__doc__)
    if args.output.is_symlink():  # the file that is meant is replaced, not the link
        args.output = Path(os.path.realpath(args.output))
    check_flags(args)
    device = pick_device("cpu" if args.cpu else None)
    is_main = PartialState(cpu=device.type == "cpu").is_main_process
    with claimed(args.output) if is_main else nullcontext():
        check_existing(args)
        train_style(args, device)
    if is_main:
        print(args.output)
    return cli.OK


def mixed_precision(args: argparse.Namespace, device: torch.device) -> str:
    """One of MIXED_PRECISIONS, the same in all processes; ValueError if it cannot be had here."""
    precision = args.mixed_precision
    if precision == "auto" and args.resume and args.output.exists():
        precision = read_checkpoint(args.output).training.get("mixed_precision", "auto")
        if precision not in ("auto", *MIXED_PRECISIONS.values()):
            raise ValueError(f"{args.output} is damaged: its mixed precision is {precision}")
    if precision == "auto":
        precision = MIXED_PRECISIONS[pick_precision("auto", device)]
    # Decided by a measurement, which may come out differently in another process.
    [precision] = broadcast_object_list([precision])
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("--mixed-precision fp16 needs a GPU; choose bf16 or no")
    if precision == "int8" and not is_exact(device):
        raise ValueError(
            "--mixed-precision int8, with which this training has begun if it is resumed, needs a "
            "CPU on which PyTorch convolves 8-bit integers correctly: one with VNNI, without AMX"
        )
    return precision


def train_style(args: argparse.Namespace, device: torch.device) -> None:
    """Train with a bar; a signal ends it between two steps."""
    settings = cli.settings_from(args, TrainingSettings)
    loss = cli.loss_from(args)
    keep_pages()
    precision = mixed_precision(args, device)
    accelerator = Accelerator(
        mixed_precision=accelerate_name(precision),
        cpu=device.type == "cpu",
        dynamo_backend="inductor" if args.compile else None,
        log_with="tensorboard" if args.tensorboard else None,
        project_dir=args.tensorboard,
    )
    terms = [term for term in TERMS if term != "instability" or settings.stability]
    has_begun, bar, ended_by = False, None, None

    def stop(error: KeyboardInterrupt) -> None:
        nonlocal ended_by
        if not has_begun:  # no step is done that could be saved
            raise error
        ended_by = error

    def show(progress: TrainingProgress) -> None:
        nonlocal bar
        if bar is None:  # now it is known where a resumed training goes on
            bar = tqdm(
                total=1.0,
                initial=share_of_work(settings, progress.step - 1),
                disable=args.quiet,
                bar_format="{percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
            )
        losses = " ".join(f"{term} {getattr(progress, term):.4g}" for term in terms)
        speed = f"{progress.images_per_second:.2f} images/s, loading {progress.loading:.0%}"
        step = f"step {progress.step}/{settings.steps}"
        bar.set_postfix_str(f"{step}, {losses}, {speed}", refresh=False)
        bar.update(share_of_work(settings, progress.step) - bar.n)

    def report(progress: TrainingProgress) -> None:
        nonlocal has_begun
        has_begun = True
        with suppress(OSError):  # a terminal that is gone is no reason to end
            show(progress)
        if ended_by:  # between two steps, so that a resumed training is the same as a whole one
            raise ended_by

    try:
        # A terminal, torchrun and a cluster's scheduler signal every process; the main one decides.
        with interrupt.deferred(stop if accelerator.is_main_process else None):
            train(
                args.style,
                args.data,
                args.output,
                settings=settings,
                loss=loss,
                accelerator=accelerator,
                int8=precision == "int8",
                data_limit=args.data_limit,
                streaming=args.streaming,
                init_from=args.init_from,
                resume=args.resume,
                save_every=args.save_every,
                keep=args.keep,
                num_workers=args.workers,
                credits={"title": args.title, "artist": args.artist, "licence": args.licence},
                callback=report,
            )
    except FileNotFoundError as error:
        if not has_begun:
            raise
        raise RuntimeError(cli.one_line(error)) from error  # an output folder that is gone
    finally:
        with suppress(OSError):
            if bar:
                bar.close()
    accelerator.end_training()


if __name__ == "__main__":
    cli.run(main)
