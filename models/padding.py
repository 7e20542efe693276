"""Padding of feature maps by their own reflection or by their border, in their memory format."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.gpu_kernels import triton_kernels


def reflect(x: Tensor, padding: int) -> Tensor:
    """Reflection padding in px; an image smaller than the padding is reflected to and fro."""
    if padding < min(x.shape[-2:]):
        return _mirrored(x, padding, "reflect")
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
    return _mirrored(x, 1, "replicate")


def _mirrored(x: Tensor, padding: int, mode: str) -> Tensor:
    """F.pad, which on CUDA copies a channels-last tensor into the other memory format."""
    kernels = triton_kernels(x.device)
    if kernels:
        return kernels.mirrored_border(x, padding, skipped=int(mode == "reflect"))
    return F.pad(x, (padding,) * 4, mode)
