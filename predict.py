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
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

import cli
import fast
from fast.catalogue import label, table
from fast.grid import GRID_SIZE, paint_grid
from fast.jobs import STREAM, Job, plan_jobs
from fast.model import StyleModel, as_mask, check_blend, check_look
from fast.pipeline import Outcome, paint_photos
from fast.processes import Processes
from fast.stroke import AUTO, MAX_STROKE, MIN_STROKE, USUAL_SIDE, Stroke
from fast.stylize import SAMPLE_PHOTOS, find_model, find_models
from fast.video import (
    MAX_STEADINESS,
    check_video_settings,
    folder_for,
    has_parts,
    paint_video,
    paint_videos,
)
from media import Picture, read_image, sha256
from models.device import pick_device
from models.memory import keep_pages, peak_memory

GRID = "grid"  # in the place of a model's name in file names
PATIENCE = 2  # seconds without a bar for a single photo
PERCENT_BAR = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def parse_args() -> argparse.Namespace:
    keywords = inspect.signature(StyleModel.__call__).parameters
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="photos, videos, folders of photos with their subfolders, patterns, or -; of "
        "animations the first frame, unless -o is a video (default: the bundled samples)",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="a .pth file, or the name of one in checkpoints/; several are blended",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="stylized",
        metavar="FILE|DIR|-",
        help="file for a single photo or video, - for standard output (as PNG), else a folder; 8 "
        "bits a channel (default: %(default)s)",
    )
    look = parser.add_argument_group("look")
    look.add_argument(
        "--size",
        type=cli.positive_int,
        metavar="PX",
        help=f"longer side of the results (default: the photo's own size; {GRID_SIZE} in a grid)",
    )
    look.add_argument(
        "--strength",
        type=cli.number,
        default=keywords["strength"].default,
        metavar="0...1.5",
        help="0 = photo, 1 = painting, up to 1.5 = painted again on top (default: %(default)s)",
    )
    look.add_argument(
        "--stroke",
        type=stroke_size,
        default=keywords["stroke"].default,
        metavar=f"{MIN_STROKE:g}...{MAX_STROKE:g}|{AUTO}",
        help="enlarge the brush strokes so many times, size and fine detail stay; auto gives "
        f"larger photos those of one of {USUAL_SIDE} px (default: %(default)s)",
    )
    look.add_argument(
        "--preserve-color", action="store_true", help="paint the brightness, keep the colours"
    )
    look.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="paint only where this image, of the photo's proportions, is white, or opaque if it "
        "has transparency",
    )
    look.add_argument("--invert-mask", action="store_true", help="paint only the rest")
    look.add_argument(
        "--blend",
        type=cli.list_of(float),
        metavar="X[,X]",
        help="how much of each model (default: equal parts)",
    )
    keywords = inspect.signature(paint_video).parameters
    videos = parser.add_argument_group(
        "videos (.mp4, .mov, .mkv: H.264; .webm: VP9; the sound is kept)"
    )
    videos.add_argument(
        "--steadiness",
        type=cli.number,
        default=keywords["steadiness"].default,
        metavar=f"0...{MAX_STEADINESS:g}",
        help="how long strokes stay where they are, or on what moves, before they are painted "
        "anew; 0 paints each frame by itself (default: %(default)s)",
    )
    videos.add_argument(
        "--crf",
        type=cli.not_negative,
        default=keywords["crf"].default,
        metavar="0...51",
        help="constant rate factor of the encoder: lower is better and larger (default: "
        "%(default)s)",
    )
    models = parser.add_argument_group("choosing a style")
    models.add_argument(
        "--grid",
        action="store_true",
        help="one sheet per photo, with all styles: the given ones, or all in checkpoints/",
    )
    models.add_argument(
        "--list",
        action="store_true",
        help="list the models, or those that are named: style, size, and how good they are (their "
        "loss, and how many iterations of L-BFGS over the pixels reach the same)",
    )
    running = cli.add_running_flags(parser)
    cli.add_max_memory(running, effect="large photos take longer", default="half of what is free")
    running.add_argument(
        "--resume",
        action="store_true",
        help="skip what is painted already; videos go on where they were stopped",
    )
    args = cli.parse_intermixed(parser, sys.argv[1:])
    args.model, args.inputs = split_models(args.model, args.inputs)
    if not (args.model or args.grid or args.list):
        parser.error("--model is needed: a .pth, or a name that --list shows")
    return args


def stroke_size(text: str) -> Stroke:
    """An argparse type: a size of strokes."""
    return text if text == AUTO else cli.number(text)


def split_models(groups: list[list[str]], inputs: list[str]) -> tuple[list[str], list[str]]:
    """Models and inputs: words that follow the first one of a --model may be either."""
    models, names = [], {path.stem for path in find_models()}
    for first, *others in groups:
        models.append(first)
        for word in others:
            is_model = Path(word).suffix in (".pth", ".model") or word in names
            (models if is_model else inputs).append(word)
    return models, inputs


def main() -> int:
    args = parse_args()
    if args.list:
        return list_models(args.model + args.inputs)
    check_flags(args)
    paths = [find_model(model) for model in args.model] or find_models()
    processes = Processes(on_cpu=args.device == "cpu")
    args.device = processes.device or args.device
    jobs, problems = [], []
    if processes.is_main:
        jobs, problems = plan_jobs(
            args.inputs or [str(SAMPLE_PHOTOS)],
            args.output,
            GRID if args.grid else "+".join(path.stem for path in paths),
            known_names=[GRID, *(path.stem for path in find_models())],
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


def check_flags(args: argparse.Namespace) -> None:
    """ValueError unless the flags go together."""
    check_look(args.strength, args.stroke)
    if args.force and args.resume:
        raise ValueError("--force replaces files and --resume keeps them; give one")
    if args.blend and args.grid:
        raise ValueError("--grid shows each model by itself; leave out --blend")
    if not args.grid:
        check_blend(len(args.model), args.blend)
    if args.mask:
        read_image(args.mask)
    elif args.invert_mask:
        raise ValueError("--invert-mask needs a --mask")
    if args.output == STREAM and (sys.stdout is None or sys.stdout.isatty()):
        raise ValueError("-o - needs a file or a pipe behind standard output")


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

    def paint(photo: Picture) -> Picture:
        mask = args.mask and mask_for(photo, args.mask, invert=args.invert_mask)
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


def mask_for(photo: Picture, path: Path, *, invert: bool) -> Tensor:
    """The mask of --mask; a ValueError names the flag."""
    try:
        return as_mask(path, photo, invert=invert)
    except ValueError as error:
        raise ValueError(f"--mask {error}") from error


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
    print("\n".join(lines))
    for error in errors:
        cli.say(f"error: {cli.one_line(error)}")
    return cli.FAILED if errors else cli.OK


if __name__ == "__main__":
    cli.run(main)
