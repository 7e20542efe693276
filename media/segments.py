"""Masks of several regions in one picture, each in a colour of its own."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from media.images import Picture, read_image
from media.pil import check_mask_size, read_mask

# Differences of a pixel's channels that make it a coloured one, and the share of such pixels and of
# a colour's pixels from which on they count; below it is noise, or the blend at a border.
COLORED, SHARE = 48, 0.002
BLACK = "#000000"


def is_colored(path: Path | str) -> bool:
    """Whether a mask is in colours instead of grey; raises as read_image does."""
    pixels = read_image(path).pixels.short()
    return bool(((pixels.amax(1) - pixels.amin(1)) > COLORED).float().mean() > SHARE)


def read_segments(
    path: Path | str, photo: Picture, *, colors: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """The regions of a colour-coded picture, without what is black.

    Args:
        path: an image file, best PNG. A pixel belongs to the nearest of the colours.
        photo: what it belongs to, and whose proportions it has.
        colors: those of the regions, as "#rrggbb"; by default all that make up a noticeable part
            of the picture, in the order in which they appear from the top left.

    Returns:
        Masks (1, 1, H, W) uint8 by colour, as read_mask gives them; those of colours that no pixel
        has are 0.

    Raises:
        OSError, ValueError: as read_mask does, or there are no areas of one colour.
    """
    picture = read_image(path)
    check_mask_size(path, picture, photo)
    pixels = picture.pixels[0].permute(1, 2, 0).numpy().astype(np.int32)  # (H, W, 3)
    areas = _areas(pixels) if colors is None else colors
    colors = [color for color in dict.fromkeys(areas) if color != BLACK]
    if not colors:
        raise ValueError(f"{path} has no areas of one colour; JPEG blurs them, PNG does not")
    nearest = np.zeros(pixels.shape[:2], np.uint8)
    smallest = np.square(pixels).sum(2)  # distance from black
    for number, color in enumerate(colors, start=1):
        rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
        distance = np.square(pixels - np.array(rgb, np.int32)).sum(2)
        nearest[distance < smallest] = number
        smallest = np.minimum(smallest, distance)
    return {
        color: read_mask(Image.fromarray((nearest == number) * np.uint8(255)), photo)
        if (nearest == number).any()
        else torch.zeros_like(photo.pixels[:, :1])
        for number, color in enumerate(colors, start=1)
    }


def _areas(pixels: np.ndarray) -> list[str]:
    codes = (pixels @ np.array([65536, 256, 1])).ravel()
    values, first, counts = np.unique(codes, return_index=True, return_counts=True)
    kept = counts >= SHARE * codes.size
    return [f"#{code:06x}" for code in values[kept][np.argsort(first[kept])]]
