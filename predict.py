"""Paint photos and videos in the style of a trained model.

    python predict.py --model starry_night.pth
    python predict.py --model starry_night.pth photo.jpg -o painted.jpg
    python predict.py --model starry_night.pth clip.mp4 -o painted.mp4

Inputs are files, folders, patterns such as 'holiday/**/*.jpg', or - for standard input; the default
is the bundled sample photos. The paths of the written files are printed.
"""

import launch

if __name__ == "__main__":
    launch.before_torch()

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import cli
import fast
from fast.catalogue import SAMPLE_PHOTOS, find_model, find_models, label, table
from fast.flags import check_flags, parse_args
from fast.grid import GRID_SIZE, paint_grid
from fast.jobs import Job, plan_jobs
from fast.model import as_mask
from fast.pipeline import Outcome, paint_photos
from fast.processes import Processes
from fast.video import check_video_settings, folder_for, has_parts, paint_videos
from media import Picture, sha256
from models.device import pick_device
from models.memory import keep_pages, peak_memory

GRID = "grid"  # in the place of a model's name in file names
PATIENCE = 2  # seconds without a bar for a single photo
PERCENT_BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def main() -> int:
    args = parse_args(__doc__)
    if args.list:
        return list_models(args.model + args.inputs)
    check_flags(args)
    paths = [find_model(model) for model in args.model] or find_models()
    processes = Processes(on_cpu=args.device == "cpu")
    args.device = device_for(args.device, processes)
    jobs, problems = [], []
    if processes.is_main:
        jobs, problems = plan_jobs(
            args.inputs or [str(SAMPLE_PHOTOS)],
            args.output,
            GRID if args.grid else "+".join(path.stem for path in paths),
            known_names=[GRID, *(path.stem for path in find_models())],
            other_inputs=[args.mask] if args.mask else [],
        )
    is_single = len(jobs) + len(problems) == 1
    if any(job.is_video for job in jobs):
        check_video_settings(steadiness=args.steadiness, crf=args.crf)
    jobs = processes.share(jobs)
    videos = [job for job in jobs if job.is_video]
    keep_pages()
    is_quiet = args.quiet or not processes.is_main
    # Nobody waits long for most photos, and a log needs no bar (None).
    bar = tqdm(
        total=1,
        delay=PATIENCE,
        bar_format=PERCENT_BAR,
        leave=False,
        disable=is_quiet or not is_single or bool(videos) or None,
    )
    paint, unusable = make_painter(args, paths, bar.update)
    if processes.is_main:  # which reports for all
        problems += unusable

    for problem in problems:
        cli.say(f"error: {problem}")
    painted, skipped, failed = 0, 0, len(problems)
    size = args.size or (GRID_SIZE if args.grid else None)
    frames_bar = FramesBar(disable=is_quiet or not videos)
    existing = {"force": args.force, "resume": args.resume}
    outcomes = chain(
        paint_photos([job for job in jobs if not job.is_video], paint, size=size, **existing),
        paint_videos(
            videos,
            lambda pixels: paint(Picture(pixels)).pixels,
            size=size,
            steadiness=args.steadiness,
            crf=args.crf,
            note=note_of(args, paths) if videos else "",
            progress=frames_bar.update,
            **existing,
        ),
    )
    is_quiet = is_quiet or is_single
    try:
        for outcome in tqdm(outcomes, total=len(jobs), unit="file", disable=is_quiet):
            bar.close()
            report(outcome)
            painted += outcome.is_painted
            skipped += outcome.is_skipped
            failed += outcome.error is not None
        painted, skipped, failed = processes.sum([painted, skipped, failed])
    finally:
        bar.close()
        frames_bar.close()
        for job in frames_bar.begun:
            if has_parts(job.target):
                cli.say(f"{folder_for(job.target)} keeps the painted frames for --resume")
        if not is_quiet:
            cli.say(f"{painted} painted, {skipped} skipped, {failed} failed")
    if args.max_memory and pick_device(args.device).type == "cpu":
        peak = peak_memory() or 0
        if peak > args.max_memory:
            cli.say(f"warning: --max-memory was exceeded: {peak / 1e9:.2f} GB were needed")
    return cli.FAILED if failed else cli.OK


def device_for(wanted: str | None, processes: Processes) -> str | None:
    """Where to compute; each of several processes has a device of its own."""
    own = processes.device
    if own and wanted and wanted != own.partition(":")[0] and processes.is_main:
        warnings.warn(f"--device {wanted} is not used: each process has its own", stacklevel=2)
    return own or wanted


def make_painter(
    args: argparse.Namespace, paths: list[Path], progress: Callable[[float], None]
) -> tuple[Callable[[Picture], Picture], list[str]]:
    """The function that makes of a photo one painting, or a sheet in all styles.

    Also a line for each model that cannot be used, if none was named and so all are meant.
    """
    load = partial(
        fast.load, device=args.device, precision=args.precision, max_memory=args.max_memory
    )
    models, problems = [], []
    if args.grid:
        for path in paths:
            try:
                models.append((label(path), load(path)))
            except (OSError, ValueError) as error:
                if args.model:
                    raise
                problems.append(cli.one_line(error))
        if not models:
            raise ValueError("there is no model to load")
    else:
        model = load(*paths, blend=args.blend)

    @lru_cache(maxsize=1)  # one for all frames of a video
    def mask_for(shape: torch.Size, original_size: tuple[int, int]) -> Tensor:
        photo = Picture(torch.empty(shape, dtype=torch.uint8), original_size=original_size)
        try:
            return as_mask(args.mask, photo, invert=args.invert_mask)
        except ValueError as error:
            raise ValueError(f"--mask {error}") from error

    def paint(photo: Picture) -> Picture:
        mask = args.mask and mask_for(photo.pixels.shape, photo.original_size)
        look = look_of(args) | {"progress": progress, "mask": mask}
        if args.grid:
            return paint_grid(photo, models, **look)
        return replace(photo, pixels=model.paint(photo.pixels, **look))

    return paint, problems


def look_of(args: argparse.Namespace) -> dict[str, Any]:
    """What StyleModel.paint gets of the flags, but for the mask."""
    return {name: getattr(args, name) for name in ("strength", "stroke", "preserve_color")}


def note_of(args: argparse.Namespace, paths: list[Path]) -> str:
    """What paintings depend on besides the photo and its size."""
    files = [sha256(path) for path in (*paths, *([args.mask] if args.mask else []))]
    return f"{files} {args.blend} {args.grid} {args.invert_mask} {look_of(args)}"


class FramesBar:
    """A bar for the frames of one video after the other."""

    def __init__(self, *, disable: bool) -> None:
        self.disable = disable or None  # a log needs no bar
        self.bar: tqdm | None = None
        self.begun: list[Job] = []

    def update(self, job: Job, done: int, total: int | None) -> None:
        """Show that so many frames of a video are done, of about so many."""
        if job not in self.begun:
            self.begun.append(job)
            self.close()
            self.bar = tqdm(
                total=total,
                initial=done,
                desc=cli.printable(job.source.name),
                unit="frame",
                delay=PATIENCE,
                leave=False,
                disable=self.disable,
            )
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()


def report(outcome: Outcome) -> None:
    """Print the path of a painting, or why there is none."""
    source, target, error = outcome.job.source, outcome.job.target, outcome.error
    if error:
        line, name = cli.one_line(error), cli.printable(str(source or "standard input"))
        named = name in line or (target and cli.printable(str(target)) in line)
        tqdm.write(f"error: {line if named else f'{name}: {line}'}", file=sys.stderr)
    elif target and outcome.is_painted:
        tqdm.write(str(target))
        if sys.stdout:  # None if the shell has closed it
            sys.stdout.flush()


def list_models(names: list[str]) -> int:
    """Print a table of the models, of all in checkpoints/ by default."""
    lines, errors = table([find_model(name) for name in names] or find_models())
    print("\n".join(map(cli.printable, lines)))
    for error in errors:
        cli.say(f"error: {cli.one_line(error)}")
    return cli.FAILED if errors else cli.OK


if __name__ == "__main__":
    cli.run(main)
