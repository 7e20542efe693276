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
def make_grain(levels: int) -> Tensor | None:
    """Grey levels to add, (3, PERIOD, PERIOD) int8 from -levels to levels; None for 0."""
    generator = torch.Generator().manual_seed(0)
    shape = 3, PERIOD, PERIOD
    grain = torch.randint(-levels, levels + 1, shape, generator=generator, dtype=torch.int8)
    return grain if levels else None


def grain_of(grain: Tensor, top: int, height: int, width: int) -> Tensor:
    """The part for so many rows from `top` on, (3, height, width) int8."""
    rows, columns = (
        torch.arange(first, first + size, device=grain.device) % PERIOD
        for first, size in ((top, height), (0, width))
    )
    return grain.index_select(1, rows).index_select(2, columns)


def add_grain(image: Tensor, grain: Tensor | None) -> Tensor:
    """An image with grain.

    Args:
        image: (B, 3, H, W) floating point RGB in [0, 1].
        grain: from make_grain, on the image's device.

    Returns:
        The same in shape, kind and range.
    """
    if grain is None:
        return image
    return (image + grain_of(grain, 0, *image.shape[-2:]) / 255).clamp(0, 1)
