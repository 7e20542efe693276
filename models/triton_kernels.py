"""Instance normalisation and padding on a GPU in as few passes as there can be, in Triton.

All tensors are channels-last: (B, C, H, W) lies in memory as (B, H * W, C). A tile is some pixels
with all of their channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # values
PROGRAMS = 1024  # of all images of a batch together


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, relu: bool) -> Tensor:
    """Affine instance normalisation with float32 statistics, and a ReLU after it or not.

    Args:
        x: (B, C, H, W), channels-last or copied.
        weight: (C,).
        bias: (C,).
        eps: added to the variances.
        relu: whether negative values become 0.

    Returns:
        (B, C, H, W) of x's type, channels-last.
    """
    with torch.cuda.device_of(x):  # Triton computes on the current one
        return _InstanceNorm.apply(x, weight, bias, eps, relu)


def mirrored_border(x: Tensor, padding: int, skipped: int) -> Tensor:
    """A border of the mirrored image all around.

    Args:
        x: (B, C, H, W), channels-last or copied.
        padding: px, less than H and W.
        skipped: 1 to mirror at the centre of the outermost pixels ("reflect"), 0 at their edge,
            which with a padding of 1 is "replicate".

    Returns:
        (B, C, H + 2 * padding, W + 2 * padding) of x's type, channels-last.
    """
    with torch.cuda.device_of(x):
        return _MirroredBorder.apply(x, padding, skipped)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        grid, steps, tile = _tiles_of_image(x)
        sums = x.new_empty(x.shape[0], grid[1], 2, x.shape[1], dtype=torch.float32)
        _sums[grid](x, sums, _pixels(x), steps, x.shape[1], *tile)
        ctx.settings, totals = (eps, relu), sums.sum(1)
        ctx.save_for_backward(x, totals, weight, bias)
        y = torch.empty_like(x)
        _normalised[grid](
            x, totals, weight, bias, y, _pixels(x), steps, eps, x.shape[1], relu, *tile
        )
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, totals, weight, bias = ctx.saved_tensors
        eps, relu = ctx.settings
        grad = grad.contiguous(memory_format=torch.channels_last)
        grid, steps, tile = _tiles_of_image(x)
        arguments = grad, x, totals, weight, bias
        sizes = _pixels(x), steps, eps, x.shape[1], relu, *tile
        sums = x.new_empty(x.shape[0], grid[1], 2, x.shape[1], dtype=torch.float32)
        _gradient_sums[grid](*arguments, sums, *sizes)
        grad_totals, grad_x = sums.sum(1), torch.empty_like(x)
        _gradient[grid](*arguments, grad_totals, grad_x, *sizes)
        of_bias, of_weight = grad_totals.sum(0).unbind()
        return grad_x, of_weight.to(weight.dtype), of_bias.to(bias.dtype), None, None


class _MirroredBorder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, padding: int, skipped: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        ctx.arguments = x.shape, padding, skipped
        shape = batch, channels, height + 2 * padding, width + 2 * padding
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        grid, tile = _tiles_of_rows(out)
        _mirrored[grid](x, out, height, width, padding, channels, skipped, *tile)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        shape, padding, skipped = ctx.arguments
        out = torch.empty(
            shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last
        )
        grid, tile = _tiles_of_rows(out)
        _folded_back[grid](grad, out, *shape[2:], padding, shape[1], skipped, *tile)
        return out, None, None


def _pixels(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]


def _tile(channels: int) -> tuple[int, int]:
    """Pixels and channels of a tile, powers of 2."""
    columns = triton.next_power_of_2(channels)
    return max(1, TILE // columns), columns


def _tiles_of_image(x: Tensor) -> tuple[tuple[int, int], int, tuple[int, int]]:
    """Programs (images, parts of an image), the tiles of each, and their size."""
    tile = _tile(x.shape[1])
    tiles = triton.cdiv(_pixels(x), tile[0])
    steps = triton.cdiv(tiles, max(1, PROGRAMS // x.shape[0]))
    return (x.shape[0], triton.cdiv(tiles, steps)), steps, tile


def _tiles_of_rows(x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Programs (rows of all images, tiles of a row), and the tiles' size."""
    pixels, columns = _tile(x.shape[1])
    return (x.shape[0] * x.shape[2], triton.cdiv(x.shape[3], pixels)), (pixels, columns)


# The functions below run on the GPU. They are compiled for each number of channels and each type,
# but not for sizes, which vary from photo to photo.


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


@triton.jit
def _normalisation(x, totals, weight, bias, pixels, eps, channels, COLUMNS: tl.constexpr):
    """Of an image's channels, from what _sums found: means, reciprocal deviations, and what a
    value's distance from the mean is multiplied by, and the summand after that.
    """
    totals += tl.program_id(0) * 2 * channels
    mean = _of_channels(totals, channels, COLUMNS) / pixels
    variance = _of_channels(totals + channels, channels, COLUMNS) / pixels - mean * mean
    shift = _of_channels(x, channels, COLUMNS)
    rstd = 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    factor = rstd * _of_channels(weight, channels, COLUMNS)
    return shift + mean, rstd, factor, _of_channels(bias, channels, COLUMNS)


@triton.jit(do_not_specialize=["pixels", "steps"])
def _sums(x, sums, pixels, steps, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of values and squares of a part of an image; less the image's first pixel, for the
    variance of values far from 0 would be lost in the squares.
    """
    x += tl.program_id(0).to(tl.int64) * pixels * channels
    shift = _of_channels(x, channels, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        value = tl.load(x + offsets, inside, 0.0).to(tl.float32)
        value = tl.where(inside, value - shift, 0.0)
        total += value
        squares += value * value
    _store_sums(sums, total, squares, channels, COLUMNS)


@triton.jit(do_not_specialize=["pixels", "steps"])
def _normalised(
    x,
    totals,
    weight,
    bias,
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
    mean, _, factor, summand = _normalisation(
        x, totals, weight, bias, pixels, eps, channels, COLUMNS
    )
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        value = tl.load(x + offsets, inside, 0.0).to(tl.float32)
        value = (value - mean) * factor + summand
        if RELU:
            value = tl.where(value < 0, 0.0, value)  # a NaN stays one
        tl.store(y + image + offsets, value.to(y.dtype.element_ty), inside)


@triton.jit
def _gradient_of_tile(grad, x, offsets, inside, mean, rstd, factor, summand, RELU: tl.constexpr):
    """The gradient of a tile before the ReLU, and the tile's normalised values."""
    difference = tl.load(x + offsets, inside, 0.0).to(tl.float32) - mean
    gradient = tl.load(grad + offsets, inside, 0.0).to(tl.float32)
    if RELU:
        gradient = tl.where(difference * factor + summand > 0, gradient, 0.0)
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
    mean, rstd, factor, summand = _normalisation(
        x + image, totals, weight, bias, pixels, eps, channels, COLUMNS
    )
    of_bias = tl.zeros((ROWS, COLUMNS), tl.float32)
    of_weight = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        gradient, normalised = _gradient_of_tile(
            grad + image, x + image, offsets, inside, mean, rstd, factor, summand, RELU
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
    mean, rstd, factor, summand = _normalisation(
        x + image, totals, weight, bias, pixels, eps, channels, COLUMNS
    )
    grad_totals += tl.program_id(0) * 2 * channels
    of_mean = _of_channels(grad_totals, channels, COLUMNS) / pixels
    of_deviation = _of_channels(grad_totals + channels, channels, COLUMNS) / pixels
    for step in range(tl.program_id(1) * steps, (tl.program_id(1) + 1) * steps):
        offsets, inside = _tile_of(step, pixels, channels, ROWS, COLUMNS)
        gradient, normalised = _gradient_of_tile(
            grad + image, x + image, offsets, inside, mean, rstd, factor, summand, RELU
        )
        value = factor * (gradient - of_mean - normalised * of_deviation)
        tl.store(grad_x + image + offsets, value.to(grad_x.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["height", "width", "padding"])
def _mirrored(
    x,
    out,
    height,
    width,
    padding,
    channels,
    SKIPPED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A part of a row of the padded image."""
    padded_row, padded_height, padded_width = (
        tl.program_id(0),
        height + 2 * padding,
        width + 2 * padding,
    )
    image = (padded_row // padded_height).to(tl.int64)
    row = _folded(padded_row % padded_height - padding, height, SKIPPED)
    pixel = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (pixel < padded_width) & (column < channels)
    source = (image * height + row) * width + _folded(pixel - padding, width, SKIPPED)
    value = tl.load(x + source * channels + column, inside)
    target = padded_row.to(tl.int64) * padded_width + pixel
    tl.store(out + target * channels + column, value, inside)


@triton.jit
def _folded(position, size, SKIPPED: tl.constexpr):
    """A position outside of 0...size - 1 mirrored into it."""
    position = tl.where(position < 0, SKIPPED - 1 - position, position)
    return tl.where(position >= size, 2 * size - 1 - SKIPPED - position, position)


@triton.jit(do_not_specialize=["height", "width", "padding"])
def _folded_back(
    grad,
    out,
    height,
    width,
    padding,
    channels,
    SKIPPED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A part of a row of the image's gradient: the sum of that of all places where it went."""
    row = tl.program_id(0)
    image = (row // height).to(tl.int64)
    pixel = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (pixel < width) & (column < channels)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for vertical in tl.static_range(3):
        padded_row, is_row = _place(row % height, vertical, height, padding, SKIPPED)
        for horizontal in tl.static_range(3):
            padded_pixel, is_pixel = _place(pixel, horizontal, width, padding, SKIPPED)
            source = (image * (height + 2 * padding) + padded_row) * (width + 2 * padding)
            offsets = (source + padded_pixel) * channels + column
            total += tl.load(grad + offsets, inside & is_row & is_pixel, 0.0).to(tl.float32)
    target = (row.to(tl.int64) * width + pixel) * channels + column
    tl.store(out + target, total.to(out.dtype.element_ty), inside)


@triton.jit
def _place(position, WHICH: tl.constexpr, size, padding, SKIPPED: tl.constexpr):
    """Where a pixel is in the padded image, in its middle or in the border before or after it, and
    whether it is there.
    """
    if WHICH == 0:
        place = position + padding
        first, end = padding, padding + size
    elif WHICH == 1:
        place = padding - 1 + SKIPPED - position
        first, end = 0, padding
    else:
        place = padding + 2 * size - 1 - SKIPPED - position
        first, end = padding + size, padding + size + padding
    return place, (place >= first) & (place < end)
