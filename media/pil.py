"""PIL images in memory to pictures and back, and masks."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from media.images import Picture, read_image, scaled_size, to_picture
from media.pixels import as_bytes

PilImage = Image.Image  # the type, for those who do not know Pillow

# Of a mask's border, as a share of the longer side: 5 px in a photo of 1000 px.
SOFTNESS = 0.005
# Sides of mask and photo may differ by as much, for a mask is often drawn on a smaller copy.
TOLERANCE = 0.02


def from_pil(image: Image.Image, *, long_side: int | None = None) -> Picture:
    """An image in memory as read_image would read it from a file.

    Raises:
        TypeError: this is no PIL image.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(f"a photo is a tensor, a PIL image or a path, not {type(image).__name__}")
    return to_picture(image, scaled_size(image.size, long_side))


def to_pil(rgb: Tensor, *, like: Picture | None = None) -> Image.Image:
    """An image (1, 3, H, W), float32 in [0, 1] or uint8, with the transparency of a picture."""
    pixels = as_bytes(rgb[0]).permute(1, 2, 0).contiguous()
    image = Image.fromarray(pixels.cpu().numpy())
    if like is not None and like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
    return image


def read_mask(mask: Image.Image | Path | str, width: int, height: int) -> Tensor:
    """A mask for a photo: its opacity if it has any transparency, else its brightness.

    It is scaled to the photo's size, and its border is softened.

    Args:
        mask: an image file, or a PIL image.
        width, height: of the photo in px.

    Returns:
        (1, 1, H, W) uint8.

    Raises:
        OSError: there is no such file.
        ValueError: it is no image, or of another shape than the photo.
    """
    name = mask if isinstance(mask, (str, Path)) else "the mask"
    picture = read_image(mask) if isinstance(mask, (str, Path)) else from_pil(mask)
    image = to_pil(picture.pixels, like=picture)
    if abs(image.width / image.height * height / width - 1) > TOLERANCE:
        raise ValueError(
            f"{name} has {image.width}x{image.height} px, another shape than the photo's "
            f"{width}x{height} px"
        )
    gray = image.getchannel("A") if image.mode == "RGBA" else image.convert("L")
    gray = gray.resize((width, height), Image.Resampling.BILINEAR)
    gray = gray.filter(ImageFilter.GaussianBlur(SOFTNESS * max(width, height)))
    return torch.from_numpy(np.array(gray))[None, None]
