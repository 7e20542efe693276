"""The two kinds of images: float32 in [0, 1], and uint8."""

from torch import Tensor


def as_float(image: Tensor) -> Tensor:
    """An image of either kind as float32 in [0, 1]."""
    return image.float() if image.is_floating_point() else image.float().div_(255)


def as_bytes(image: Tensor) -> Tensor:
    """An image of either kind as uint8; values outside [0, 1] are clamped."""
    if not image.is_floating_point():
        return image
    return image.detach().float().clamp(0, 1).mul_(255).round_().byte()
