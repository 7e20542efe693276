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


def from_pil(image: Image.Image | np.ndarray, *, long_side: int | None = None) -> Picture:
    """An image in memory as read_image would read it from a file.

    Args:
        image: a PIL image, or an array: (H, W, 3) or (H, W, 4), uint8 RGB or RGBA, or (H, W), grey
            in uint8, or bool.
        long_side: scale the longer side to this many px; the image's own size by default.

    Raises:
        TypeError: this is no image.
        ValueError: an array of another kind, or an image without pixels.
    """
    if isinstance(image, np.ndarray):
        image = Image.fromarray(_uint8_image(image))
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"an image is a tensor, an array, a PIL image or a path, not {type(image).__name__}"
        )
    if 0 in image.size:
        raise ValueError("the image has no pixels")
    return to_picture(image, scaled_size(image.size, long_side), image.size)


def _uint8_image(image: np.ndarray) -> np.ndarray:
    """An array that is an image, in uint8; ValueError for another one."""
    is_grey, is_rgb = image.ndim == 2, image.ndim == 3 and image.shape[2] in (3, 4)
    if image.dtype == bool and is_grey and image.size:
        return 255 * image.astype(np.uint8)
    if image.dtype == np.uint8 and (is_grey or is_rgb) and image.size:
        return image
    raise ValueError(
        "an array must be (H, W, 3) or (H, W, 4) of uint8, or (H, W) of uint8 or bool, not "
        f"{image.shape} of {image.dtype}"
    )


def to_pil(rgb: Tensor, *, like: Picture | None = None) -> Image.Image:
    """An image (1, 3, H, W), float32 in [0, 1] or uint8, with the transparency of a picture."""
    pixels = as_bytes(rgb[0]).permute(1, 2, 0).contiguous()
    image = Image.fromarray(pixels.cpu().numpy())
    if like is not None and like.alpha is not None:
        image.putalpha(Image.fromarray(like.alpha))
    return image


def read_mask(mask: Image.Image | np.ndarray | Path | str, photo: Picture) -> Tensor:
    """A mask for a photo: its opacity if it has any transparency, else its brightness.

    It is scaled together with the photo, and its border is softened.

    Args:
        mask: an image file, a PIL image or an array, as for from_pil, of the photo's proportions.
        photo: what it belongs to.

    Returns:
        (1, 1, H, W) uint8.

    Raises:
        OSError: there is no such file.
        TypeError, ValueError: it is no image; or ValueError: of other proportions.
    """
    name = mask if isinstance(mask, (str, Path)) else "the mask"
    picture = read_image(mask) if isinstance(mask, (str, Path)) else from_pil(mask)
    check_mask_size(name, picture, photo)
    image = to_pil(picture.pixels, like=picture)
    height, width = photo.pixels.shape[-2:]
    gray = image.convert("L") if picture.is_opaque else image.getchannel("A")
    gray = gray.resize((width, height), Image.Resampling.BILINEAR)
    gray = gray.filter(ImageFilter.GaussianBlur(SOFTNESS * max(width, height)))
    return torch.from_numpy(np.array(gray))[None, None]


def check_mask_size(name: Path | str, mask: Picture, photo: Picture) -> None:
    """ValueError unless a mask has the proportions of its photo, to a pixel of the smaller one and
    to 2 %.
    """
    small, large = sorted((mask.original_size, photo.original_size), key=max)
    scale = max(small) / max(large)
    if any(abs(a - b * scale) > min(1, 0.02 * a) for a, b in zip(small, large, strict=True)):
        of_mask, of_photo = ("{}x{} px".format(*p.original_size) for p in (mask, photo))
        raise ValueError(f"{name} has {of_mask}, and not its picture's {of_photo}")
