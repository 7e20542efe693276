"""Grain: a little noise that a network gets with its photo.

Where a photo is of one colour, so is every feature map, and the painting would be flat there or be
made of rounding errors. Grain of about the strength of a sensor's is enough for a network to paint
stars and strokes there, too. It lies still: the same in every run and every frame.
"""

from functools import cache

import torch
from torch import Tensor

GRAIN = 3  # grey levels at most, a deviation of 2
# Px after which it repeats itself; a prime, for the layers' grids of 4 and 8 px not to fit in.
PERIOD = 509


@cache
def make_noise(levels: int) -> Tensor | None:
    """Grey levels to add, (3, PERIOD, PERIOD) int8 from -levels to levels, one tensor for all who
    ask; None for 0.
    """
    if not levels:
        return None
    generator = torch.Generator().manual_seed(0)
    shape = 3, PERIOD, PERIOD
    return torch.randint(-levels, levels + 1, shape, generator=generator, dtype=torch.int8)


def repeated(noise: Tensor, dim: int, first: int, size: int) -> Tensor:
    """So many rows or columns of the repeated noise, from the first one on."""
    index = torch.arange(first, first + size, device=noise.device) % PERIOD
    return noise.index_select(dim, index)


def add_grain(image: Tensor, noise: Tensor | None) -> Tensor:
    """An image with grain.

    Args:
        image: (B, 3, H, W) floating point RGB in [0, 1].
        noise: from make_noise, on the image's device.

    Returns:
        The same in shape and range, float32 at least; without noise the image itself.
    """
    if noise is None:
        return image
    height, width = image.shape[-2:]
    noise = repeated(repeated(noise, 1, 0, height), 2, 0, width)
    return (image + noise / 255).clamp(0, 1)
