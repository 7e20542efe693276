"""The pixels of an up-sampled image on a GPU put in their places, in one pass each way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.tiles import WARPS, new_map, tiles_of_rows


def interleaved(x: Tensor) -> Tensor:
    """What models.regroup.interleaved says: (B, 4 * C, H + 1, W + 1), channels-last or copied, to
    (B, C, 2 * H, 2 * W) of x's type, channels-last.
    """
    with torch.cuda.device_of(x):
        return _Interleaved.apply(x)


class _Interleaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        out = new_map(x, batch, channels // 4, 2 * (height - 1), 2 * (width - 1))
        grid, tile = tiles_of_rows(out)
        _interleaved[grid](x, out, *out.shape[2:], out.shape[1], *tile, num_warps=WARPS)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = grad.shape
        out = new_map(grad, batch, 4 * channels, height // 2 + 1, width // 2 + 1)
        # An image for each phase: the last channels of a pixel are the next phase's.
        (rows, tiles), tile = tiles_of_rows(out[:, :channels])
        _apart[rows, tiles, 4](grad, out, height, width, channels, *tile, num_warps=WARPS)
        return out


@triton.jit(do_not_specialize=["height", "width"])
def _interleaved(x, out, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A part of a row of the large image, of height x width pixels."""
    row, image = tl.program_id(0) % height, (tl.program_id(0) // height).to(tl.int64)
    pixel = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (pixel < width) & (column < channels)
    phase = row % 2 * 2 + pixel % 2
    source = (image * (height // 2 + 1) + (row + 1) // 2) * (width // 2 + 1) + (pixel + 1) // 2
    value = tl.load(x + (source * 4 + phase) * channels + column, inside)
    target = (image * height + row) * width + pixel
    tl.store(out + target * channels + column, value, inside)


@triton.jit(do_not_specialize=["height", "width"])
def _apart(grad, out, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A part of a row of one phase's gradient; 0 where its pixel is not in the large image."""
    rows, columns = height // 2 + 1, width // 2 + 1
    row, image = tl.program_id(0) % rows, (tl.program_id(0) // rows).to(tl.int64)
    pixel = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    phase = tl.program_id(2)
    large_row, large_pixel = 2 * row - phase // 2, 2 * pixel - phase % 2
    is_row = (large_row >= 0) & (large_row < height)
    is_pixel = (large_pixel >= 0) & (large_pixel < width)
    source = (image * height + large_row) * width + large_pixel
    is_there = is_row & is_pixel & (column < channels)
    value = tl.load(grad + source * channels + column, is_there, 0.0)
    target = ((image * rows + row) * columns + pixel) * 4 + phase
    inside = (pixel < columns) & (column < channels)
    tl.store(out + target * channels + column, value, inside)
