"""The two kinds of images, float32 in [0, 1] and uint8, and their size."""

import torch
import torch.nn.functional as F
from torch import Tensor


def as_float(image: Tensor) -> Tensor:
    """An image of either kind as float32 in [0, 1]."""
    return image.float() if image.is_floating_point() else image.float().div_(255)


def as_bytes(image: Tensor) -> Tensor:
    """An image of either kind as uint8; values outside [0, 1] are clamped."""
    if not image.is_floating_point():
        return image
    return image.detach().float().clamp(0, 1).mul_(255).round_().byte()


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image of either kind in another size, bicubic and without aliasing.

    Args:
        image: (B, C, H, W).
        size: height and width in px.

    Returns:
        (B, C, *size), of the image's kind; the image itself if it has this size.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if not image.is_floating_point():
        return F.interpolate(image, size, mode="bicubic", antialias=True)
    wide = image.to(torch.promote_types(image.dtype, torch.float32))  # CPUs cannot in less
    return F.interpolate(wide, size, mode="bicubic", antialias=True).clamp(0, 1).to(image.dtype)
