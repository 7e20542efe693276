"""Arithmetic on a feature map's values: statistics, normalisation, rounding."""

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.int8 import PART, cut_off


def fill(
    out: Tensor,
    top: int,
    parts: Iterable[tuple[int, Tensor]],
    factor: Tensor,
    summand: Tensor,
    *,
    relu: bool = False,
) -> None:
    """Fill rows from `top` on with a store's parts, times the factor plus the summand."""
    if out.is_floating_point():
        for first, values in parts:
            rows = out[first - top : first - top + len(values)]
            values = _scaled(values, factor, summand)
            torch.clamp(values, min=0, out=rows) if relu else rows.copy_(values)
        return

    summand = summand + 0.5  # cutting off the fraction rounds it
    at_a_time = max(1, PART // out[0].numel())
    for first, values in parts:
        rows = out[first - top : first - top + len(values)]
        for part, target in zip(values.split(at_a_time), rows.split(at_a_time), strict=True):
            numbers = torch.addcmul(summand, part, factor)
            if relu:
                numbers.clamp_(min=0)
            cut_off(numbers, out=target)


def add_scaled(out: Tensor, values: Tensor, factor: Tensor) -> None:
    """Add (rows, W, C) times a factor, (C,) float32, to values of the same type."""
    if _needs_copies(values):
        out.add_(_scaled(values, factor, torch.zeros_like(factor)))
    else:
        out.addcmul_(values, factor)


def _scaled(values: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """(rows, W, C) times a factor plus a summand, each (C,) float32, computed in float32."""
    if not _needs_copies(values):
        return torch.addcmul(summand, values, factor)
    # Batch normalisation with known statistics makes no copies. A variance and an eps of 0.5, which
    # some versions want to be positive, leave the values as they are.
    image = values.permute(2, 0, 1).unsqueeze(0)
    mean, variance = torch.zeros_like(factor), torch.full_like(factor, 0.5)
    image = F.batch_norm(image, mean, variance, factor, summand, eps=0.5)
    return image[0].permute(1, 2, 0)


def _needs_copies(values: Tensor) -> bool:
    """Whether addcmul with float32 factors would copy the values to float32, as on the CPU, or is
    impossible, as on CUDA.
    """
    return values.dtype != torch.float32 and values.device.type in ("cpu", "cuda")


def mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, C), channel by channel, float32."""
    if values.device.type != "cpu":
        variance, mean = torch.var_mean(values.float(), dim=0, correction=0)
        return mean, variance
    wide = _side_by_side(values)
    image = wide.view(1, len(wide), 1, -1).permute(0, 3, 1, 2)
    # Several times as fast there. Running statistics, which are not needed, in float32: then the
    # results are, too.
    running = torch.zeros(2, wide.shape[1])
    means, variances = torch.batch_norm_update_stats(image, *running, 0.0)
    means, variances = (t.view(-1, values.shape[1]) for t in (means, variances))
    return combine_moments(means, variances, 1 / len(means))


def combine_moments(
    means: Tensor, variances: Tensor, shares: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of several parts together, from theirs (parts, C) and shares."""
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0)


def extreme(function: Callable[..., Tensor], values: Tensor) -> Tensor:
    """The highest or lowest of (N, C), channel by channel: `function` is torch.amax or amin."""
    return function(function(_side_by_side(values), 0).view(-1, values.shape[1]), 0)


def _side_by_side(values: Tensor) -> Tensor:
    """(N, C) -> (N / n, n * C), because PyTorch is slow with few channels."""
    return values.reshape(len(values) // math.gcd(len(values), 16), -1)
