"""Feature maps whose channels hold several pixels, or several rows' shares, put in their places."""

import torch
from torch import Tensor


def from_blocks(x: Tensor, channels: int) -> Tensor:
    """(B, n * C, H, W / n) -> (B, C, H, W), from blocks of n pixels in a row."""
    x = x.permute(0, 2, 3, 1)
    return x.unflatten(3, (-1, channels)).flatten(2, 3).permute(0, 3, 1, 2)


def sum_of_rows(x: Tensor, rows: int, channels: int, *, pixels: int = 1) -> Tensor:
    """Add up the shares of a convolution's rows, each of which is computed at every row.

    Args:
        x: (B, pixels * rows * C and unused ones, H, W / pixels).
        rows: of the convolution's kernel.
        channels: C.
        pixels: of a block in a row.

    Returns:
        (B, C, H - rows + 1, W).
    """
    x = x.permute(0, 2, 3, 1).contiguous()
    batch, height, width, _ = x.shape
    image, row, column, _ = x.stride()
    x = regroup(
        x,
        (batch, height - rows + 1, width, pixels, channels, rows),
        (image, row, column, rows * channels, 1, row + channels),
    )
    return x.sum(-1).flatten(2, 3).permute(0, 3, 1, 2)


def regroup(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Tensor.as_strided of a contiguous tensor for a view that has no element twice; the backward
    pass is one copy, where the general one of PyTorch looks for overlaps.
    """
    return _Regroup.apply(x, size, stride)


class _Regroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        ctx.shape, ctx.view = x.shape, (size, stride)
        return x.as_strided(size, stride)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        grad_x = grad.new_zeros(ctx.shape)
        grad_x.as_strided(*ctx.view).copy_(grad)
        return grad_x, None, None
