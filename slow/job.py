"""One painting, from image files to an image file: nothing that was computed is lost."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

import interrupt
from media import Picture, check_format, holds_text, read_image, sha256, write_image
from models.device import PRECISIONS
from models.loss_settings import LossSettings
from slow.masks import opacity_mask, read_regions
from slow.memory import BoundedObjective, Plan, Room
from slow.progress import Progress
from slow.recipe import Recipe, read_recipe
from slow.regions import Region
from slow.settings import SlowSettings
from slow.shared_losses import SharedLosses
from slow.start import check_sizes, drop_thin_scales, resize_long_side
from slow.state import read_state, save_state, state_path
from slow.stylize import State, stylize

TINY = 8  # px; a photo whose shorter side is smaller is refused


@dataclass(frozen=True)
class Job:
    """The files of one painting: content image, style images to blend, result, and masks."""

    content: Path
    styles: tuple[Path, ...]
    output: Path
    content_masks: tuple[Path, ...] = ()
    style_masks: tuple[Path, ...] = ()

    @property
    def inputs(self) -> tuple[Path, ...]:
        """All files that are read."""
        return self.content, *self.styles, *self.content_masks, *self.style_masks


def check_job(
    job: Job,
    *,
    size: int,
    depth: int,
    resume: bool,
    force: bool,
    other_inputs: Sequence[Path] = (),
) -> None:
    """Before anything is computed: ValueError if the result cannot be written in this format and
    size, if it would replace an input, or if it exists and neither `resume` nor `force` is set.
    """
    check_format(job.output, depth, size)
    inputs = [*job.inputs, *other_inputs]
    if any(job.output.resolve() == path.resolve() for path in inputs):
        raise ValueError(f"-o {job.output} is one of the inputs")
    check_existing(job.output, resume=resume, force=force)


def check_existing(output: Path, *, resume: bool, force: bool) -> None:
    """ValueError if the result of an earlier run exists, interrupted or not, and neither `resume`
    nor `force` is set.
    """
    if resume or force:
        return
    state = state_path(output)
    if state.exists():
        raise ValueError(
            f"{state} is of an interrupted run: continue it with --resume, or start again with "
            "--force"
        )
    if os.path.lexists(output):
        raise ValueError(
            f"-o {output} exists; replace it with --force, or continue or skip it with --resume"
        )


def is_finished(output: Path) -> bool:
    """Whether the result exists and is not that of an interrupted run; ValueError if there is
    something else, or no state to continue from.
    """
    if not output.exists() or state_path(output).exists():
        return False
    if holds_text(output) and not read_recipe(output).complete:
        raise ValueError(f"{output} is of an interrupted run, whose state is gone; delete it first")
    return True


def make_recipe(
    job: Job,
    settings: SlowSettings,
    loss: LossSettings,
    *,
    style_blend: Sequence[float],
    dtype: torch.dtype,
    other_inputs: Sequence[Path] = (),
) -> Recipe:
    """What the painting will depend on; OSError if an input cannot be read."""
    return Recipe(
        content=str(job.content),
        styles=tuple(map(str, job.styles)),
        content_masks=tuple(map(str, job.content_masks)),
        style_masks=tuple(map(str, job.style_masks)),
        style_blend=tuple(style_blend),
        settings=settings,
        loss=loss,
        precision=next(name for name, kind in PRECISIONS.items() if kind == dtype),
        files={str(path): sha256(path) for path in (*job.inputs, *other_inputs)},
    )


@dataclass(frozen=True)
class Inputs:
    """What a painting is made from, as read from the files of a job.

    Args:
        content: in the size of the painting.
        styles: (1, 3, H, W) RGB in [0, 1], on the device.
        settings: those of the recipe, without the scales that are too small for these pictures.
        regions: from the masks and transparent styles; empty without either.
    """

    content: Picture
    styles: list[Tensor]
    settings: SlowSettings
    regions: list[Region]


def paint(
    job: Job,
    recipe: Recipe,
    losses: SharedLosses,
    *,
    device: torch.device,
    init: Callable[[Tensor], Tensor | None],
    room: Room,
    report: Callable[[Plan], None] | None = None,
    announce: Callable[[Path], None] = lambda path: None,
    depth: int = 8,
    save_every: int = 50,
    resume: bool = False,
    preview: Path | None = None,
    quiet: bool = False,
    description: str = "",
) -> None:
    """Make a painting and write it, with its recipe.

    When the run is interrupted or fails, the best image so far is written, and the state stays in
    its file beside the result.

    Args:
        job: which files.
        recipe: how.
        losses: for the recipe's settings and precision, on the device.
        device: where to compute.
        init: from the content image to an image to start from, or None as the settings say.
        room: what memory there is.
        report: as for BoundedObjective.
        announce: called with the path of the result once it is written, also if the run was
            interrupted.
        depth: bits per channel of the result.
        save_every: save the state after this many evaluations of the loss; 0 for never.
        resume: continue from the state, if there is one.
        preview: an image file to update during the run.
        quiet: show no bar.
        description: text before the bar.

    Raises:
        ValueError, OSError: an input or the state cannot be used, or the result not be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; after the first step all has been saved.
        RuntimeError: the run failed; the best image so far has been written.
    """
    path = state_path(job.output)
    state = read_state(path, recipe, device) if resume and path.exists() else None
    inputs = _read_inputs(job, recipe, device)
    save = partial(_save_state, path, recipe)
    write = partial(_write_result, job.output, recipe, like=inputs.content, depth=depth)
    progress = Progress(
        inputs.settings,
        save=save,
        save_every=save_every,
        preview=preview,
        quiet=quiet,
        description=description,
    )
    painting = None
    try:
        with interrupt.deferred(progress.stop):
            painting = stylize(
                inputs.content.rgb.to(device),
                inputs.styles,
                inputs.settings,
                recipe.loss,
                regions=inputs.regions,
                init=None if state else init(inputs.content.rgb),
                make_losses=losses.maker(
                    job.styles, colors=recipe.settings.colors, regions=inputs.regions
                ),
                objective=BoundedObjective(
                    inputs.settings,
                    inputs.content.pixels.shape[-2:],
                    room,
                    steps_done=state["step"] if state else 0,
                    report=report,
                ),
                resume=state,
                callback=progress,
            )
        # A run that is resumed after its last step makes no step of its own.
        terms = progress.latest.state.best_terms if progress.latest else state["best_terms"]
        write(painting, terms, complete=True)
    except BaseException as error:
        progress.finish()
        if progress.latest is None:
            raise
        # Between two steps the state is consistent; within one it may not be.
        if save_every and (progress.is_stopped or painting is not None):
            save(progress.latest.state)
        latest = progress.latest
        best = latest.picture(resize_long_side(latest.painting, inputs.settings.size))
        write(best, latest.state.best_terms, complete=False)
        if isinstance(error, KeyboardInterrupt):
            announce(job.output)
            raise
        reason = str(error) or type(error).__name__
        raise RuntimeError(f"{reason}; the best image so far is in {job.output}") from error
    path.unlink(missing_ok=True)
    progress.finish(painting)
    announce(job.output)
    if progress.interrupt:  # after the last step
        raise progress.interrupt


def _read_inputs(job: Job, recipe: Recipe, device: torch.device) -> Inputs:
    """Read the pictures and masks; ValueError if one of them cannot be used."""
    content = read_image(job.content, long_side=recipe.settings.size)
    if min(content.original_size) < TINY:
        width, height = content.original_size
        raise ValueError(f"{job.content} is too small to be painted: {width}x{height} px")
    pictures = [_read_style(style, recipe.settings) for style in job.styles]
    styles = [picture.rgb.to(device) for picture in pictures]
    images = (content.rgb, *styles)
    check_sizes(
        (job.content, *job.styles),
        images,
        recipe.settings,
        recipe.loss,
        remedy="choose a larger --size or, for a style picture, --style-scale",
    )
    opacities = [opacity_mask(picture) for picture in pictures]
    for path, opacity in zip(job.styles, opacities, strict=True):
        if opacity is not None and not opacity.any():
            raise ValueError(f"{path} is transparent all over")
    for path, picture in zip(job.styles, pictures, strict=True):
        _warn_if_small(path, max(picture.pixels.shape[-2:]), _largest_style_size(recipe.settings))
    regions = []
    if job.content_masks or job.style_masks or any(mask is not None for mask in opacities):
        regions = read_regions(
            job.content_masks, job.style_masks, content, pictures, recipe.style_blend
        )
    settings = drop_thin_scales(recipe.settings, recipe.loss, images)
    return Inputs(content, styles, settings, regions)


def _read_style(path: Path, settings: SlowSettings) -> Picture:
    """Read a style image, in bytes and no larger than it is used, to save memory."""
    largest = _largest_style_size(settings)
    picture = read_image(path)
    if max(picture.pixels.shape[-2:]) > largest:
        picture = read_image(path, long_side=largest)
    return picture


def _largest_style_size(settings: SlowSettings) -> int:
    """Longer side in px of a style picture at the largest scale, if it is large enough."""
    return max(1, round(settings.style_scale * settings.size))


@cache  # once for each style of a folder, not for each of its paintings
def _warn_if_small(path: Path, size: int, wanted: int) -> None:
    # A little finer strokes go unnoticed, also because the smaller scales are not affected.
    if 2 * size < wanted:
        warnings.warn(
            f"{path} has {size} px on its longer side, less than half of --style-scale x --size "
            f"({wanted} px): strokes get finer than that; a larger scan gives larger ones",
            stacklevel=2,
        )


def _save_state(path: Path, recipe: Recipe, state: State) -> None:
    """Save the state of a run, or warn that it cannot be saved, which is no reason to lose it."""
    try:
        save_state(path, state, recipe)
    except (OSError, RuntimeError) as error:
        # The reason alone, not a temporary file's name. If the disk is full, torch.save raises a
        # RuntimeError.
        reason = getattr(error, "strerror", None) or "torch cannot write it"
        warnings.warn(f"the state could not be saved: {reason}", stacklevel=2)


def _write_result(
    path: Path,
    recipe: Recipe,
    painting: Tensor,
    terms: dict[str, float],
    *,
    like: Picture,
    depth: int,
    complete: bool,
) -> None:
    """Write a painting, with a recipe that includes the terms of its loss."""
    made = dataclasses.replace(recipe, result=terms, complete=complete)
    write_image(path, painting, like=like, depth=depth, text=made.to_json())
