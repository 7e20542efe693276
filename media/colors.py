"""Colours of a painting and of its photo."""

import torch
from torch import Tensor

# Luma and colour differences of ITU-R BT.601, as in JPEG and in the usual colour-keeping tools.
_LUMA = (0.299, 0.587, 0.114)


def luma(image: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of an RGB image (B, 3, H, W), in its range."""
    weights = torch.tensor(_LUMA, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def keep_colors(painting: Tensor, photo: Tensor) -> Tensor:
    """The painting's brightness with the photo's colours.

    Args:
        painting: (B, 3, H, W) RGB around [0, 1], best not clamped yet.
        photo: (B, 3, H, W) RGB in [0, 1].

    Returns:
        (B, 3, H, W) RGB around [0, 1], not clamped.
    """
    return photo + (luma(painting) - luma(photo))
