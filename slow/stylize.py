"""Optimising one image directly (Gatys et al., arXiv 1508.06576)."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.losses import LossSettings, PerceptualLoss


@dataclass(frozen=True)
class Iterate:
    """The state of the optimisation after an evaluation of the loss.

    Args:
        step: evaluations so far, from 1.
        loss: weighted sum of the terms.
        content, style, tv: the terms before weighting.
        best: (1, 3, H, W) RGB, the image with the lowest loss so far, clamped to [0, 1].
    """

    step: int
    loss: float
    content: float
    style: float
    tv: float
    best: Tensor


def stylize(
    content: Tensor,
    style: Sequence[Tensor],
    *,
    loss: LossSettings | None = None,
    style_blend: Sequence[float] | None = None,
    steps: int = 300,
    optimizer: str = "lbfgs",
    learning_rate: float | None = None,
    init: str | Tensor = "content",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    callback: Callable[[Iterate], None] | None = None,
) -> Tensor:
    """Paint a content image in the style of others by minimising the perceptual loss over its
    pixels.

    Args:
        content: (1, 3, H, W) float32 RGB in [0, 1]; all is computed on its device.
        style: style images of the same kind, of any size each.
        loss: layers and weights; the defaults of LossSettings otherwise.
        style_blend: a weight for each style image; equal by default.
        steps: evaluations of the loss and its gradient.
        optimizer: "lbfgs" (better for the same number of steps) or "adam" (less memory).
        learning_rate: step size; 1 for L-BFGS and 0.02 for Adam by default.
        init: start from "content", from "noise", or from an image (1, 3, h, w), scaled to the
            content's size.
        seed: of the noise.
        dtype: precision of the convolutions.
        callback: called after every evaluation; an exception from it (Ctrl-C too) ends the run.

    Returns:
        (1, 3, H, W) float32 RGB in [0, 1]: the image with the lowest loss of all that were
        evaluated.

    Raises:
        ValueError: a setting is out of range, or an image is too small for the layers.
        FloatingPointError: the very first loss is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    perceptual_loss = PerceptualLoss(
        loss or LossSettings(), style, style_blend=style_blend, dtype=dtype
    )
    targets = perceptual_loss.content_targets(content)
    # L-BFGS works on flat vectors: plain layout here, channels-last inside the loss network.
    image = _start(content, init, seed).contiguous().requires_grad_(True)
    search = make_optimizer(image, optimizer, learning_rate)
    num_evaluations, lowest, best = 0, math.inf, None

    def evaluate() -> Tensor:
        nonlocal num_evaluations, lowest, best
        image.grad = None
        terms = perceptual_loss(image, targets)
        terms.total.backward()
        num_evaluations += 1
        values = [value.item() for value in (terms.total, terms.content, terms.style, terms.tv)]
        if not math.isfinite(values[0]):
            raise _Diverged
        if values[0] < lowest:
            lowest, best = values[0], image.detach().clamp(0, 1)
        if callback:
            callback(Iterate(num_evaluations, *values, best))
        return terms.total.detach()

    try:
        while num_evaluations < steps:
            search.step(evaluate)
    except _Diverged:
        if best is None:
            raise FloatingPointError("the loss of the first image is not finite") from None
        warnings.warn(
            f"the loss is not finite at step {num_evaluations}; the best image so far is kept",
            stacklevel=2,
        )
    return best


def make_optimizer(
    image: Tensor, name: str, learning_rate: float | None = None
) -> torch.optim.Optimizer:
    """L-BFGS that evaluates the loss once a step and never stops by itself, or Adam.

    Raises:
        ValueError: unknown name, or a learning rate that is not positive.
    """
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be above 0, not {learning_rate}")
    if name == "lbfgs":
        # A longer history gains little and costs two images an entry.
        return torch.optim.LBFGS(
            [image],
            lr=learning_rate or 1.0,
            max_iter=1,
            history_size=20,
            tolerance_grad=-1,
            tolerance_change=-1,
        )
    if name == "adam":
        return torch.optim.Adam([image], lr=learning_rate or 0.02, betas=(0.9, 0.99))
    raise ValueError(f"unknown optimizer '{name}'; choose lbfgs or adam")


def _start(content: Tensor, init: str | Tensor, seed: int) -> Tensor:
    if isinstance(init, Tensor):
        size = content.shape[-2:]
        scaled = F.interpolate(init.cpu(), size, mode="bicubic", antialias=True)
        return scaled.clamp(0, 1).to(content.device)
    if init == "content":
        return content.clone()
    if init == "noise":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(content.shape, generator=generator).to(content.device)
    raise ValueError(f"unknown init '{init}'; choose content, noise or an image")


class _Diverged(Exception):
    """The loss is no longer finite."""
