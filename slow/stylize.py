"""Optimising one image directly (Gatys et al., arXiv 1508.06576), from coarse to fine."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from media.colors import luma
from models.loss_settings import LossSettings
from models.losses import LossTerms, PerceptualLoss, loss_network
from models.memory import release_pages
from models.vgg import VGG19Features
from slow.colors import match_colors
from slow.memory import BoundedObjective, measure_room
from slow.objective import Objective
from slow.optimizers import LBFGS, Adam, make_optimizer
from slow.regions import Region, RegionalLoss, keep_content_outside
from slow.settings import DEFAULT_PRESET, PRESETS, SlowSettings, scales
from slow.start import drop_thin_scales, resize_long_side, start_image, style_size


@dataclass
class State:
    """Everything from which the optimisation can continue.

    Args:
        image: (1, 3, H, W) RGB around [0, 1], where the loss is evaluated next; with one channel if
            only the brightness is painted.
        search: the optimiser.
        scale: number of the scale, from 0 for the smallest.
        step: evaluations so far, over all scales.
        best: the image with the lowest loss so far at this scale, not clamped.
        lowest: its loss.
        best_terms: its step, its loss and the loss's terms before weighting.
        average: running average of the images at this scale, where there is one.
        average_weight: sum of the weights of the images in it.
    """

    image: Tensor
    search: LBFGS | Adam
    scale: int = 0
    step: int = 0
    best: Tensor | None = None
    lowest: float = math.inf
    best_terms: dict[str, float] = field(default_factory=dict)
    average: Tensor | None = None
    average_weight: float = 0.0

    def state_dict(self) -> dict:
        """Tensors and numbers, which a later step may change in place."""
        return {**vars(self), "search": self.search.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what state_dict returned, in a run with the same settings and pictures."""
        for name, value in state.items():
            if name != "search":
                setattr(self, name, value)
        self.search.load_state_dict(state["search"])


@dataclass(frozen=True)
class Iterate:
    """The optimisation after an evaluation of the loss and the step that follows it.

    Args:
        step: evaluations so far, over all scales, from 1.
        size: (height, width) of this scale in px.
        loss: weighted sum of the terms.
        content, style, tv: the terms before weighting.
        content_errors, style_errors: the error of each content and style layer.
        state: everything from which the optimisation can continue.
        painting: the image with the lowest loss so far at this scale, as it is optimised.
        picture: makes an RGB image in [0, 1] of it.
    """

    step: int
    size: tuple[int, int]
    loss: float
    content: float
    style: float
    tv: float
    content_errors: dict[str, float]
    style_errors: dict[str, float]
    state: State = field(repr=False)
    painting: Tensor = field(repr=False)
    picture: Callable[[Tensor], Tensor] = field(repr=False)

    @property
    def best(self) -> Tensor:
        """(1, 3, H, W) RGB in [0, 1], the image with the lowest loss so far at this scale."""
        return self.picture(self.painting)


def stylize(
    content: Tensor,
    style: Sequence[Tensor],
    settings: SlowSettings | None = None,
    loss: LossSettings | None = None,
    *,
    style_blend: Sequence[float] | None = None,
    regions: Sequence[Region] | None = None,
    init: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
    vgg: VGG19Features | None = None,
    objective: Callable[[PerceptualLoss, Tensor], Objective] | None = None,
    make_losses: Callable[[Sequence[Tensor]], PerceptualLoss] | None = None,
    resume: dict | None = None,
    callback: Callable[[Iterate], None] | None = None,
) -> Tensor:
    """Paint a content image in the style of others by minimising the perceptual loss over its
    pixels.

    Args:
        content: (1, 3, H, W) float32 RGB in [0, 1]; all is computed on its device.
        style: style images of the same kind, of any size each.
        settings: sizes, steps and optimiser; the preset "best" otherwise.
        loss: layers and weights; the preset "best" otherwise.
        style_blend: a weight for each style image; equal by default.
        regions: where each style goes and what is taken from it, instead of style_blend.
        init: an image (1, 3, h, w) to start from, instead of settings.init.
        dtype: precision of the convolutions.
        vgg: a loss network for these losses, to be shared, instead of dtype.
        objective: makes the function to minimise at a scale from its losses and its content image;
            BoundedObjective by default, which takes no more memory than there is.
        make_losses: makes the losses from the style images in the size of a scale, instead of
            style_blend, dtype and the losses of regions; one that caches them saves time if styles
            are used again.
        resume: a state_dict of the State of an interrupted run with the same arguments; the result
            is that of a run that was never interrupted.
        callback: called after every step; an exception from it (Ctrl-C too) ends the run.

    Returns:
        (1, 3, h, w) float32 RGB in [0, 1] with settings.size as the longer side: the image with the
        lowest loss of all that were evaluated there.

    Raises:
        ValueError: a setting is out of range, or an image is too small for the layers.
        FloatingPointError: the very first loss is not finite.
    """
    usual_settings, usual_loss = PRESETS[DEFAULT_PRESET]
    settings, loss = settings or usual_settings, loss or usual_loss
    settings = drop_thin_scales(settings, loss, (content, *style))
    photo = content
    content, style, picture = match_colors(content, style, settings.colors)
    if regions:
        picture = keep_content_outside(regions, photo, picture)
    if init is not None and settings.colors == "luminance":
        init = luma(init)
    if make_losses is None:
        vgg = vgg or loss_network(loss, dtype=dtype, device=content.device)
        make_losses = (
            partial(RegionalLoss, loss, regions=regions, vgg=vgg)
            if regions
            else partial(PerceptualLoss, loss, style_blend=style_blend, vgg=vgg)
        )
    if objective is None:
        objective = BoundedObjective(settings, content.shape[-2:], measure_room(content.device))
    rounds = scales(settings)
    state = State(image=torch.empty(0), search=make_optimizer(settings))
    if resume:
        state.load_state_dict(resume)

    def report(terms: LossTerms) -> None:
        if callback:
            callback(_iterate(state, terms, picture))

    ends = [sum(scale.steps for scale in rounds[: k + 1]) for k in range(len(rounds))]
    for number in range(state.scale, len(rounds)):
        size = rounds[number].size
        small = resize_long_side(content, size)
        if not state.image.numel():
            state.image = start_image(small, style, settings, init)
        elif number > state.scale:
            before = None
            if loss.content_weight:
                before = resize_long_side(content, rounds[number - 1].size)
            _enlarge(state, number, small, before)
        styles = [resize_long_side(image, style_size(image, settings, size)) for image in style]
        release_pages()  # of the smaller scale, and of the loss network's file
        evaluate = objective(make_losses(styles), small)
        _optimize(state, evaluate, ends[number], settings.averaging, report)
    return picture(state.best)


def _optimize(
    state: State,
    objective: Objective,
    last_step: int,
    averaging: float,
    report: Callable[[LossTerms], None],
) -> None:
    """Evaluate and step up to a number of evaluations; state.best is the result."""
    while state.step < last_step:
        # The last evaluation is the average's, which no step follows.
        finish = averaging > 0 and state.step == last_step - 1 and state.average is not None
        image = state.average / state.average_weight if finish else state.image
        image = image.detach().requires_grad_(True)
        terms = objective(image)
        total = terms.total.item()
        if not math.isfinite(total):
            if state.best is None and state.scale == 0:
                raise FloatingPointError("the loss of the first image is not finite")
            if state.best is None:
                state.best = image.detach()  # the result of the smaller scale, enlarged
            warnings.warn(
                f"the loss is not finite at step {state.step + 1}; the best image so far is kept",
                stacklevel=3,
            )
            state.step = last_step
            return
        state.step += 1
        if total < state.lowest:
            state.lowest, state.best = total, image.detach().clone()
            state.best_terms = {"step": state.step, **_terms(terms)}
        if not finish:
            state.search.step(state.image, image.grad)
            if averaging:
                _average(state, averaging)
        report(terms)


def _average(state: State, averaging: float) -> None:
    if state.average is None:
        state.average, state.average_weight = torch.zeros_like(state.image), 0.0
    state.average.lerp_(state.image, 1 - averaging)
    state.average_weight = averaging * state.average_weight + 1 - averaging


def _iterate(state: State, terms: LossTerms, picture: Callable[[Tensor], Tensor]) -> Iterate:
    return Iterate(
        step=state.step,
        size=tuple(state.best.shape[-2:]),
        **_terms(terms),
        content_errors={layer: error.item() for layer, error in terms.content_errors.items()},
        style_errors={layer: error.item() for layer, error in terms.style_errors.items()},
        state=state,
        painting=state.best,
        picture=picture,
    )


def _terms(terms: LossTerms) -> dict[str, float]:
    names = ("loss", "content", "style", "tv")
    values = torch.stack([terms.total, terms.content, terms.style, terms.tv]).tolist()
    return dict(zip(names, values, strict=True))


def _enlarge(state: State, scale: int, content: Tensor, before: Tensor | None) -> None:
    """Go on to a larger scale from the best image of this one. What the content image shows there,
    and did not `before`, is added, so that the loss falls sooner.
    """

    def resize(image: Tensor) -> Tensor:
        return F.interpolate(image, content.shape[-2:], mode="bicubic", align_corners=False)

    factor = content[0, 0].numel() / state.best[0, 0].numel()
    state.search = state.search.enlarged(resize, factor)
    state.image, state.scale = resize(state.best).contiguous(), scale
    if before is not None:
        state.image += content - resize(before)
    state.best, state.lowest, state.average = None, math.inf, None
