"""Paint photos in the style of one or more pictures by optimising their pixels: slow, highest
quality.

    python -m slow samples/photos/rocket.jpg samples/starry_night.jpg -o painted.png
    python -m slow photo.jpg style.jpg -o painted.tif --depth 16 --size 768 --strength 0.6
    python -m slow photos/ styles/ -o paintings --resume
    python -m slow --from painted.png -o larger.png --size 1024
    python -m slow --preset gatys --show-settings

Ctrl-C or SIGTERM ends the run and saves the best image so far; --resume continues it. A folder
stands for all pictures in it, except those that this program painted.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import inf
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import cli
from fast import load
from fast.catalogue import find_model
from media import check_format, claimed, read_image, sha256
from models.device import pick_device, pick_precision
from models.loss_settings import LossSettings
from slow.batch import plan_jobs
from slow.flags import parse_args
from slow.job import Job, check_existing, check_job, is_finished, make_recipe, paint
from slow.memory import Plan, measure_room
from slow.recipe import Recipe, read_recipe
from slow.settings import INITS, SlowSettings
from slow.shared_losses import SharedLosses


def print_settings(settings: SlowSettings, loss: LossSettings) -> None:
    """Print settings as command-line flags."""
    for name, value in {**asdict(settings), **asdict(loss)}.items():
        value = ",".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"--{name.replace('_', '-')}={value}")


def init_file(name: str) -> Path | None:
    """The image or trained model that --init names, if any; ValueError if there is no such file."""
    if name in INITS:
        return None
    if name.endswith(".pth"):
        return find_model(name)
    if not Path(name).is_file():
        raise ValueError(f"--init {name} is no file, nor one of {', '.join(INITS)}")
    return Path(name)


def make_init(
    path: Path | None, device: str | None, precision: str, max_memory: float | None
) -> Callable[[Tensor], Tensor | None]:
    """From a content image to the image to start from, or None."""
    if path is None:
        return lambda content: None
    if path.suffix == ".pth":
        return load(path, device=device, precision=precision, max_memory=max_memory)
    image = read_image(path).rgb
    return lambda content: image


def check_files(args: argparse.Namespace, jobs: list[Job], others: list[Path]) -> None:
    """ValueError unless all results can be written, and none replaces an input, or another file
    that is read.
    """
    for job in jobs:
        check_job(
            job,
            size=args.size,
            depth=args.depth,
            resume=args.resume,
            force=args.force,
            other_inputs=others,
        )
        blend = args.style_blend
        if blend and not (len(blend) == len(job.styles) and min(blend) >= 0 < sum(blend) < inf):
            raise ValueError(
                f"--style-blend {','.join(map(str, blend))} is not a weight of 0 or more for each "
                f"of the {len(job.styles)} style pictures"
            )
    if len(jobs) == 1 and jobs[0].output == args.output:
        cli.check_output(args.output, exists_ok=True)
    if args.preview:
        check_format(args.preview, long_side=args.size)
        used = {path.resolve() for job in jobs for path in (*job.inputs, job.output)}
        if args.preview.resolve() in used | {path.resolve() for path in others}:
            raise ValueError(f"--preview {args.preview} is an input or the result")
        cli.check_output(args.preview, exists_ok=args.force or args.resume, flag="--preview")


def warn_of_changes(recipe: Recipe, inputs: set[str]) -> None:
    """Say which inputs are no longer what they were when the recipe was made."""
    for name in inputs & recipe.files.keys():
        if sha256(Path(name)) != recipe.files[name]:
            warnings.warn(f"{name} has changed since the recipe was made", stacklevel=2)


def main() -> int:
    args = parse_args(__doc__)
    if args.recipe:
        print(read_recipe(args.recipe).to_json(indent=2))
        return cli.OK
    settings = cli.settings_from(args, SlowSettings)
    loss = cli.loss_from(args, args.loss_defaults)
    if args.show_settings:
        print_settings(settings, loss)
        return cli.OK

    jobs = plan_jobs(
        args.content,
        args.styles,
        args.output,
        content_masks=args.content_mask,
        style_masks=args.style_mask,
    )
    init = init_file(settings.init)
    others = [init] if init else []
    check_files(args, jobs, others)
    if args.recipe_used:
        files = [*others, *(path for job in jobs for path in job.inputs)]
        warn_of_changes(args.recipe_used, set(map(str, files)))
    device = pick_device(args.device)
    dtype = pick_precision(args.precision, device)
    make_image = make_init(init, args.device, args.precision, args.max_memory)
    losses = SharedLosses(loss, style_blend=args.style_blend, dtype=dtype, device=device)

    room = measure_room(device, args.max_memory)

    failures = 0
    for number, job in enumerate(jobs, start=1):
        try:
            recipe = make_recipe(
                job,
                settings,
                loss,
                style_blend=args.style_blend,
                dtype=dtype,
                other_inputs=others,
            )
            job.output.parent.mkdir(parents=True, exist_ok=True)
            cli.check_output(job.output, exists_ok=True)
            with claimed(job.output):
                if args.resume and is_finished(job.output):
                    say_skipped(job.output, recipe)
                    continue
                check_existing(job.output, resume=args.resume, force=args.force)
                paint(
                    job,
                    recipe,
                    losses,
                    device=device,
                    init=make_image,
                    room=room,
                    report=None if args.quiet else partial(say_plan, job),
                    announce=print_path,
                    depth=args.depth,
                    save_every=args.save_every,
                    resume=args.resume,
                    preview=args.preview,
                    quiet=args.quiet,
                    description=f"{number}/{len(jobs)} " if len(jobs) > 1 else "",
                )
        except (OSError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
            if len(jobs) == 1:
                raise
            tqdm.write(f"error: {cli.one_line(error)}", file=sys.stderr)
            failures += 1
    return cli.FAILED if failures else cli.OK


def print_path(path: Path) -> None:
    """Print the path of a result, above the progress bars."""
    tqdm.write(str(path))


def say_plan(job: Job, plan: Plan) -> None:
    """Print what a painting is made of and will need, above the progress bars."""
    styles = ", ".join(path.name for path in job.styles)
    line = f"{job.content.name} in the style of {styles}: {plan}"
    tqdm.write(cli.printable(line), file=sys.stderr)


def say_skipped(output: Path, recipe: Recipe) -> None:
    """Say that a finished painting is left alone, and what would be different now."""
    try:
        differences = recipe.differences(read_recipe(output))
    except ValueError:  # a format without room for a recipe
        differences = []
    made = f", but was made differently: {differences[0]}" if differences else ""
    cli.say(f"{output} is finished{made}; --force paints it again")


if __name__ == "__main__":
    cli.run(main)
