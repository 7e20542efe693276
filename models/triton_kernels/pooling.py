"""Max pooling of a ReLU's output on a GPU, and the gradient of both, in one pass each way."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.tiles import WARPS, new_map, tiles_of_rows


def max_pool(x: Tensor) -> Tensor:
    """The largest of 2x2 positions of the output of a ReLU, whose gradient is computed, too.

    Args:
        x: (B, C, H, W), channels-last or copied, of two or more rows and columns.

    Returns:
        (B, C, H // 2, W // 2) of x's type, channels-last.
    """
    with torch.cuda.device_of(x):
        return _MaxPool.apply(x)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x)
        batch, channels, height, width = x.shape
        y = new_map(x, batch, channels, height // 2, width // 2)
        grid, tile = tiles_of_rows(y)
        _pooled[grid](x, y, height, width, channels, *tile, num_warps=WARPS)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        is_whole = all(size % 2 == 0 for size in x.shape[2:])
        out = torch.empty_like(x) if is_whole else torch.zeros_like(x)
        grid, tile = tiles_of_rows(grad)
        _gradient[grid](grad, x, out, *x.shape[2:], x.shape[1], *tile, num_warps=WARPS)
        return out


@triton.jit
def _places(height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Where a part of a row of the pooled image lies in it and, the first of four, in the image."""
    rows, columns = height // 2, width // 2
    row, image = tl.program_id(0) % rows, (tl.program_id(0) // rows).to(tl.int64)
    pixel = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    pooled = ((image * rows + row) * columns + pixel) * channels + column
    first = ((image * height + 2 * row) * width + 2 * pixel) * channels + column
    return pooled, first, (pixel < columns) & (column < channels)


@triton.jit
def _four(x, first, inside, width, channels):
    upper, lower = x + first, x + first + width * channels
    return (
        tl.load(upper, inside),
        tl.load(upper + channels, inside),
        tl.load(lower, inside),
        tl.load(lower + channels, inside),
    )


@triton.jit
def _larger(a, b):
    return tl.where((a >= b) | (a != a), a, b)  # a NaN stays one


@triton.jit(do_not_specialize=["height", "width"])
def _pooled(x, y, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    pooled, first, inside = _places(height, width, channels, ROWS, COLUMNS)
    a, b, c, d = _four(x, first, inside, width, channels)
    tl.store(y + pooled, _larger(_larger(a, b), _larger(c, d)), inside)


@triton.jit(do_not_specialize=["height", "width"])
def _gradient(grad, x, out, height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """For the first of the largest, if it is more than 0."""
    pooled, first, inside = _places(height, width, channels, ROWS, COLUMNS)
    a, b, c, d = _four(x, first, inside, width, channels)
    largest = _larger(_larger(a, b), _larger(c, d))
    gradient = tl.load(grad + pooled, inside)
    gradient = tl.where(largest > 0, gradient, tl.zeros_like(gradient))
    none = tl.zeros_like(gradient)
    is_a = a == largest
    is_b = (b == largest) & ~is_a
    is_c = (c == largest) & ~is_a & ~is_b
    upper, lower = out + first, out + first + width * channels
    tl.store(upper, tl.where(is_a, gradient, none), inside)
    tl.store(upper + channels, tl.where(is_b, gradient, none), inside)
    tl.store(lower, tl.where(is_c, gradient, none), inside)
    tl.store(lower + channels, tl.where(is_a | is_b | is_c, none, gradient), inside)
