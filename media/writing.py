"""Tensors to image files: 8 or 16 bits, with transparency, metadata and an embedded text."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from media.files import write_atomically
from media.formats import FORMATS, check_format
from media.images import KEPT_BLOCKS, Picture
from media.pil import to_pil
from media.pixels import as_float
from media.sixteen_bit import TEXT_KEYWORD, encode_png16, encode_tiff16

_METADATA_FORMATS = {"JPEG", "PNG", "WEBP", "TIFF", "AVIF"}
_HISTORY = 0x9213  # EXIF ImageHistory: what has been done to the picture
MAX_JPEG_COMMENT = 65_533  # bytes


def write_image(
    path: Path | str, rgb: Tensor, *, like: Picture | None = None, depth: int = 8, text: str = ""
) -> None:
    """Write an image file, completely or not at all.

    Args:
        path: its suffix chooses the format; see FORMATS.
        rgb, like, depth, text: as for encode_image.

    Raises:
        ValueError: unknown format or depth, or the image is too large for it.
        OSError: the file cannot be written; what stood there before is untouched.
    """
    path = Path(path)
    write_atomically(path, encode_image(path, rgb, like=like, depth=depth, text=text))


def encode_image(
    path: Path, rgb: Tensor, *, like: Picture | None = None, depth: int = 8, text: str = ""
) -> bytes | memoryview:
    """The content of an image file.

    Args:
        path: its suffix chooses the format, and an error names it.
        rgb: (1, 3, H, W) RGB; values are clamped to [0, 1] and rounded to the depth, unless they
            are uint8 already.
        like: picture whose transparency and metadata are put back where the format allows.
            Transparent pixels become white in a format without transparency.
        depth: bits a channel; 16 in PNG and TIFF only.
        text: ASCII text to embed where the format has room for it; BMP has none. See read_text.

    Raises:
        ValueError: unknown format or depth, or the image is too large for it.
    """
    check_format(path, depth)
    name, keeps_alpha, options = FORMATS[path.suffix.lower()]
    height, width = rgb.shape[-2:]
    alpha = None
    if like is not None and like.alpha is not None:
        alpha = Image.fromarray(like.alpha, "L").resize((width, height), Image.Resampling.LANCZOS)
    exif, dpi = (like.exif, like.dpi) if like and name in _METADATA_FORMATS else (b"", None)
    try:
        if depth == 16:
            values = _sixteen_bits(rgb)
            if alpha is not None:  # 255 * 257 = 65535
                values = np.dstack([values, np.asarray(alpha, np.uint16) * 257])
            return _encode16(values, name, exif, dpi, text)
        image = to_pil(rgb)
        if alpha is not None:
            image.putalpha(alpha)
            if not keeps_alpha:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image).convert("RGB")
        options = options | ({"dpi": dpi} if dpi else {})
        return _encode8(image, name, options, exif, text)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: {width}x{height} px as {name}: {error}") from error


def holds_text(path: Path | str) -> bool:
    """Whether the format of a file's suffix has room for a text."""
    return Path(path).suffix.lower() != ".bmp"


def read_text(path: Path | str) -> str:
    """The text that write_image embedded in a file; empty if there is none.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is not an image.
    """
    try:
        with Path(path).open("rb") as file, Image.open(file) as image:
            text = image.info.get(TEXT_KEYWORD) or image.info.get("comment")
            text = text or image.getexif().get(_HISTORY, "")
    except Exception as error:  # parsers of foreign metadata raise all sorts of errors
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} is not an image, or damaged") from error
    return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)


def _sixteen_bits(rgb: Tensor) -> np.ndarray:
    """An image (1, 3, H, W) as (H, W, 3) uint16."""
    levels = as_float(rgb[0].detach().cpu()).clamp(0, 1).mul_(65535).round_()
    return levels.permute(1, 2, 0).numpy().astype(np.uint16)


def _encode16(
    pixels: np.ndarray, name: str, exif: bytes, dpi: tuple[float, float] | None, text: str
) -> bytes:
    """The content of a PNG or TIFF file; pixels (H, W, C) uint16."""
    if name == "PNG":
        return encode_png16(pixels, exif=exif, dpi=dpi, text=text)
    return encode_tiff16(pixels, exif=_exif_with(exif, text), dpi=dpi)


def _encode8(
    image: Image.Image, name: str, options: dict[str, Any], exif: bytes, text: str
) -> memoryview:
    """The content of the file; without EXIF if that is too long, for the pixels matter more."""
    options = dict(options)
    if name == "PNG" and text:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text(TEXT_KEYWORD, text)
    elif name in ("JPEG", "GIF") and 0 < len(text) <= MAX_JPEG_COMMENT:
        options["comment"] = text.encode("ascii")
    tags = _exif_with(exif, text if name in ("WEBP", "TIFF", "AVIF") else "")
    if name == "TIFF":  # Pillow writes no blocks into a compressed TIFF
        for block in KEPT_BLOCKS:
            tags.pop(block, None)
    encoded = io.BytesIO()
    try:
        image.save(encoded, name, **options, **({"exif": tags} if len(tags) else {}))
    except (ValueError, RuntimeError):
        if not exif:
            raise
        return _encode8(image, name, options, b"", text)
    return encoded.getbuffer()


def _exif_with(exif: bytes, text: str) -> Image.Exif:
    """An EXIF block and a text in it."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    if text:
        tags[_HISTORY] = text
    return tags
