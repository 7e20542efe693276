"""Feature maps whose channels hold several pixels, or shares of them, put in their places."""

import torch
from torch import Tensor

from models.gpu_kernels import triton_kernels


def from_blocks(x: Tensor, channels: int) -> Tensor:
    """(B, n * C, H, W / n) -> (B, C, H, W), from blocks of n pixels in a row."""
    x = x.permute(0, 2, 3, 1)
    return x.unflatten(3, (-1, channels)).flatten(2, 3).permute(0, 3, 1, 2)


def in_blocks(x: Tensor, pixels: int) -> Tensor:
    """(B, C, H, W) -> (B, pixels * C, H, W / pixels): each block of so many pixels in a row becomes
    one pixel; from_blocks undoes it. W must be a multiple of `pixels`.
    """
    x = x.permute(0, 2, 3, 1)
    return x.unflatten(2, (-1, pixels)).flatten(3).permute(0, 3, 1, 2)


def sum_of_shares(
    x: Tensor, shares: int, channels: int, *, rows: int = 1, pixels: int = 1
) -> Tensor:
    """Add up a convolution whose kernel was split into groups of rows.

    Each group was applied at every row; its result is shifted to where it belongs.

    Args:
        x: (B, pixels * shares * C and unused ones, H, W / pixels).
        shares: parts of the kernel.
        channels: C.
        rows: of a part.
        pixels: of a block in a row.

    Returns:
        (B, C, H - (shares - 1) * rows, W).
    """
    x = x.permute(0, 2, 3, 1).contiguous()
    batch, height, width, _ = x.shape
    image, row, column, _ = x.stride()
    x = _Regroup.apply(
        x,
        (batch, height - (shares - 1) * rows, width, pixels, channels, shares),
        (image, row, column, shares * channels, 1, rows * row + channels),
    )
    return x.sum(-1).flatten(2, 3).permute(0, 3, 1, 2)


def interleaved(x: Tensor) -> Tensor:
    """The four phases of an up-sampled image in their places.

    Args:
        x: (B, 4 * C, H + 1, W + 1): the pixels of even rows and even columns, of even rows and odd
            columns, and so on. Those of odd rows begin at the second row, those of odd columns at
            the second column.

    Returns:
        (B, C, 2 * H, 2 * W).
    """
    kernels = triton_kernels(x.device)
    if kernels:
        return kernels.interleaved(x)
    x = x.permute(0, 2, 3, 1).contiguous()
    batch, height, width, channels = x.shape
    height, width, channels = height - 1, width - 1, channels // 4
    image, row, column, _ = x.stride()
    x = _Regroup.apply(
        x,
        (batch, height, 2, width, 2, channels),
        (image, row, row + 2 * channels, column, column + channels, 1),
    )
    return x.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class _Regroup(torch.autograd.Function):
    """Tensor.as_strided of a contiguous tensor for a view that has no element twice; the backward
    pass is one copy, where the general one of PyTorch looks for overlaps.
    """

    @staticmethod
    def forward(ctx, x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        ctx.shape, ctx.view = x.shape, (size, stride)
        return x.as_strided(size, stride)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        grad_x = grad.new_zeros(ctx.shape)
        grad_x.as_strided(*ctx.view).copy_(grad)
        return grad_x, None, None
