"""Padding with a mirrored border on a GPU, in one pass each way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.tiles import WARPS, new_map, tiles_of_rows


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


class _MirroredBorder(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, padding: int, skipped: int) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        ctx.arguments = x.shape, padding, skipped
        out = new_map(x, batch, channels, height + 2 * padding, width + 2 * padding)
        grid, tile = tiles_of_rows(out)
        _mirrored[grid](x, out, height, width, padding, channels, skipped, *tile, num_warps=WARPS)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        shape, padding, skipped = ctx.arguments
        out = new_map(grad, *shape)
        grid, tile = tiles_of_rows(out)
        _folded_back[grid](
            grad, out, *shape[2:], padding, shape[1], skipped, *tile, num_warps=WARPS
        )
        return out, None, None


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
