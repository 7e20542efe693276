"""Padding of feature maps by their own reflection or by their border, in their memory format."""

import torch
import torch.nn.functional as F
from torch import Tensor


def reflect(x: Tensor, padding: int) -> Tensor:
    """Reflection padding in px; an image smaller than the padding is reflected to and fro."""
    if padding < min(x.shape[-2:]):
        return (
            _MirroredBorder.apply(x, padding, 1)
            if x.is_cuda
            else F.pad(x, (padding,) * 4, "reflect")
        )
    rows, columns = (reflected_indices(n, padding, padding).to(x.device) for n in x.shape[-2:])
    return x[:, :, rows][:, :, :, columns]


def reflected_indices(size: int, before: int, after: int) -> Tensor:
    """Positions -before...size + after - 1, folded back into 0...size - 1."""
    period = max(1, 2 * size - 2)
    position = torch.arange(-before, size + after) % period
    return torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)


def repeat_border(x: Tensor) -> Tensor:
    """Padding by one px that repeats the border."""
    if torch.compiler.is_compiling():  # inductor fails at the gradient of F.pad's replication
        x = torch.cat((x[:, :, :1], x, x[:, :, -1:]), dim=2)
        return torch.cat((x[..., :1], x, x[..., -1:]), dim=3)
    if x.is_cuda:
        return _MirroredBorder.apply(x, 1, 0)
    return F.pad(x, (1, 1, 1, 1), mode="replicate")


class _MirroredBorder(torch.autograd.Function):
    """A border of the mirrored image all around, channels-last: on CUDA F.pad copies such a tensor
    into the other memory format, and the convolution after it copies it back.
    """

    @staticmethod
    def forward(ctx, x: Tensor, padding: int, skipped: int) -> Tensor:
        """Pad (B, C, H, W); `skipped` is 1 to mirror at the centre of the border's pixels, 0 at
        their edge.
        """
        ctx.padding, ctx.skipped = padding, skipped
        batch, channels, height, width = x.shape
        shape = batch, channels, height + 2 * padding, width + 2 * padding
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        middle = out[..., padding : padding + width]
        middle[:, :, padding : padding + height] = x
        for dim, part in ((2, middle), (3, out)):
            for border, source in _borders(part.shape[dim], padding, skipped):
                part.narrow(dim, border, padding).copy_(part.narrow(dim, source, padding).flip(dim))
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        padding = ctx.padding
        for dim in (3, 2):
            size = grad.shape[dim]
            inside = grad.narrow(dim, padding, size - 2 * padding)
            inside = inside.clone(memory_format=torch.channels_last)
            for border, source in _borders(size, padding, ctx.skipped):
                part = grad.narrow(dim, border, padding).flip(dim)
                inside.narrow(dim, source - padding, padding).add_(part)
            grad = inside
        return grad, None, None


def _borders(size: int, padding: int, skipped: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the two borders of a padded dimension begin, and what is mirrored there."""
    return (0, padding + skipped), (size - padding, size - 2 * padding - skipped)
