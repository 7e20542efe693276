"""Instance normalisation with its ReLU on a GPU, in as few passes as there can be."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.tiles import WARPS, num_pixels, tiles_of_image

PARTS, CHANNELS = 256, 32  # that are added up at a time


def instance_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    *,
    relu: bool = False,
    summand: Tensor | None = None,
) -> Tensor:
    """Affine instance normalisation with float32 statistics, and a ReLU or a sum after it or not.

    Args:
        x: (B, C, H, W), channels-last or copied.
        weight: (C,).
        bias: (C,).
        eps: added to the variances.
        relu: whether negative values become 0.
        summand: added to the result; (B, C, H, W) of x's type, channels-last or copied.

    Returns:
        (B, C, H, W) of x's type, channels-last.
    """
    with torch.cuda.device_of(x):  # Triton computes on the current one
        return _InstanceNorm.apply(x, weight, bias, summand, eps, relu)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        summand: Tensor | None,
        eps: float,
        relu: bool,
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        if summand is not None:
            summand = summand.contiguous(memory_format=torch.channels_last)
        grid, steps, tile = tiles_of_image(x)
        sums = x.new_empty(*grid, 2, x.shape[1], dtype=torch.float32)
        _sums[grid](x, sums, num_pixels(x), steps, x.shape[1], *tile, num_warps=WARPS)
        ctx.settings, totals = (eps, relu), _totals_of(sums)
        ctx.save_for_backward(x, totals, weight, bias)
        y = torch.empty_like(x)
        sizes = num_pixels(x), steps, eps, x.shape[1], relu, *tile
        _normalised[grid](x, totals, weight, bias, summand, y, *sizes, num_warps=WARPS)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, totals, weight, bias = ctx.saved_tensors
        eps, relu = ctx.settings
        grad = grad.contiguous(memory_format=torch.channels_last)
        grid, steps, tile = tiles_of_image(x)
        arguments = grad, x, totals, weight, bias
        sizes = num_pixels(x), steps, eps, x.shape[1], relu, *tile
        sums = x.new_empty(*grid, 2, x.shape[1], dtype=torch.float32)
        _gradient_sums[grid](*arguments, sums, *sizes, num_warps=WARPS)
        grad_totals, grad_x = _totals_of(sums), torch.empty_like(x)
        _gradient[grid](*arguments, grad_totals, grad_x, *sizes, num_warps=WARPS)
        of_bias, of_weight = grad_totals.sum(0).unbind()
        of_summand = grad if ctx.needs_input_grad[3] else None
        return grad_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), of_summand, None, None


def _totals_of(sums: Tensor) -> Tensor:
    """(B, parts, 2, C) -> (B, 2, C); PyTorch's own sum takes twice as long."""
    images, parts, kinds, channels = sums.shape
    totals = sums.new_empty(images, kinds, channels)
    columns = min(CHANNELS, triton.next_power_of_2(channels))
    grid = images, kinds, triton.cdiv(channels, columns)
    _totals[grid](sums, totals, parts, channels, PARTS, columns)
    return totals


@triton.jit
def _tile_of(step, pixels, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where the tile of a step lies in its image, and what of it is inside."""
    row = (step * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    return row * channels + column, (row < pixels) & (column < channels)


@triton.jit
def _of_channels(values, channels, COLUMNS: tl.constexpr):
    """A value of each channel, (1, COLUMNS) float32."""
    column = tl.arange(0, COLUMNS)[None, :]
    return tl.load(values + column, column < channels, 0.0).to(tl.float32)


@triton.jit
def _store_sums(sums, first, second, channels, COLUMNS: tl.constexpr):
    """The sums of this program's tiles over their pixels, in its place of (B, parts, 2, C)."""
    column = tl.arange(0, COLUMNS)
    sums += (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 2 * channels
    tl.store(sums + column, tl.sum(first, 0), column < channels)
    tl.store(sums + channels + column, tl.sum(second, 0), column < channels)


@triton.jit(do_not_specialize=["parts"])
def _totals(sums, totals, parts, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of some channels of an image, for one of the two kinds, the sums over all parts."""
    image, kind, kinds = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, parts, ROWS):
        part = first + tl.arange(0, ROWS)[:, None]
        offsets = ((image * parts + part) * kinds + kind) * channels + column[None, :]
        total += tl.load(sums + offsets, (part < parts) & (column[None, :] < channels), 0.0)
    target = totals + (image * kinds + kind) * channels + column
    tl.store(target, tl.sum(total, 0), column < channels)


@triton.jit
def _normalisation(x, totals, weight, bias, pixels, eps, channels, COLUMNS: tl.constexpr):
    """Of an image's channels, from what _sums found: means, reciprocal deviations, and what a
    value's distance from the mean is multiplied by, and the shift after that.
    """
    totals += tl.program_id(0) * 2 * channels
    mean = _of_channels(totals, channels, COLUMNS) / pixels
    variance = _of_channels(totals + channels, channels, COLUMNS) / pixels - mean * mean
    first = _of_channels(x, channels, COLUMNS)
    rstd = 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    factor = rstd * _of_channels(weight, channels, COLUMNS)
    return first + mean, rstd, factor, _of_channels(bias, channels, COLUMNS)


@triton.jit(do_not_specialize=["pixels", "steps"])
def _sums(x, sums, pixels, steps, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of values and squares of a part of an image; less the image's first pixel, for the
    variance of values far from 0 would be lost in the squares.
    """
    x += tl.program_id(0).to(tl.int64) * pixels * channels
    first = _of_channels(x, channels, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        value = tl.load(x + offsets, inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - first, 0.0)
        total += value
        squares += value * value
    _store_sums(sums, total, squares, channels, COLUMNS)


@triton.jit(do_not_specialize=["pixels", "steps"])
def _normalised(
    x,
    totals,
    weight,
    bias,
    summand,
    y,
    pixels,
    steps,
    eps,
    channels,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64) * pixels * channels
    x += image
    mean, _, factor, shift = _normalisation(x, totals, weight, bias, pixels, eps, channels, COLUMNS)
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        value = tl.load(x + offsets, inside, 0.0).to(tl.float32)
        value = (value - mean) * factor + shift
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # a NaN stays one
        if summand is not None:
            value += tl.load(summand + image + offsets, inside, 0.0).to(tl.float32)
        tl.store(y + image + offsets, value.to(y.dtype.element_ty), inside)


@triton.jit
def _gradient_of_tile(grad, x, offsets, inside, mean, rstd, factor, shift, RELU: tl.constexpr):
    """The gradient of a tile before the ReLU, and the tile's normalised values."""
    difference = tl.load(x + offsets, inside, 0.0).to(tl.float32) - mean
    gradient = tl.load(grad + offsets, inside, 0.0).to(tl.float32)
    if RELU:
        gradient = tl.where(difference * factor + shift > 0, gradient, 0.0)
    return gradient, difference * rstd


@triton.jit(do_not_specialize=["pixels", "steps"])
def _gradient_sums(
    grad,
    x,
    totals,
    weight,
    bias,
    sums,
    pixels,
    steps,
    eps,
    channels,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The bias's and the weight's gradients of a part of an image."""
    image = tl.program_id(0).to(tl.int64) * pixels * channels
    mean, rstd, factor, shift = _normalisation(
        x + image, totals, weight, bias, pixels, eps, channels, COLUMNS
    )
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        gradient, normalised = _gradient_of_tile(
            grad + image, x + image, offsets, inside, mean, rstd, factor, shift, RELU
        )
        of_bias += gradient
        of_weight += gradient * normalised
    _store_sums(sums, of_bias, of_weight, channels, COLUMNS)


@triton.jit(do_not_specialize=["pixels", "steps"])
def _gradient(
    grad,
    x,
    totals,
    weight,
    bias,
    grad_totals,
    grad_x,
    pixels,
    steps,
    eps,
    channels,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64) * pixels * channels
    mean, rstd, factor, shift = _normalisation(
        x + image, totals, weight, bias, pixels, eps, channels, COLUMNS
    )
    grad_totals += tl.program_id(0) * 2 * channels
    of_mean = _of_channels(grad_totals, channels, COLUMNS) / pixels
    of_deviation = _of_channels(grad_totals + channels, channels, COLUMNS) / pixels
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        gradient, normalised = _gradient_of_tile(
            grad + image, x + image, offsets, inside, mean, rstd, factor, shift, RELU
        )
        value = factor * (gradient - of_mean - normalised * of_deviation)
        tl.store(grad_x + image + offsets, value.to(grad_x.dtype.element_ty), inside)
