"""Image files to tensors, with orientation, colour profile, transparency and metadata."""

import io
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from media.formats import HEIF_HINT, can_read_heif, is_heif
from media.pixels import as_float

# The EXIF tags that describe the photo and not the file: texts, camera, dates, rights; and the
# blocks of exposure and place.
KEPT_TAGS = {
    *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model),
    *(ExifTags.Base.Software, ExifTags.Base.DateTime, ExifTags.Base.Artist),
    *(ExifTags.Base.Copyright, ExifTags.Base.Rating),
}
ROWS_AT_A_TIME = 256  # of an image that is copied
MAX_PIXELS = 179_000_000  # of a file, by Pillow's own limit, and after scaling

KEPT_BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
QUARTER_TURNS = (5, 6, 7, 8)  # orientations whose width becomes the height


@dataclass(frozen=True)
class Window:
    """A square that is cut out of an image when it is scaled; of a smaller image, all of it.

    Args:
        side: in px of the scaled image.
        top, left: share of the room that is left, 0 to 1, above it and left of it.
    """

    side: int
    top: float
    left: float


@dataclass
class Picture:
    """An image as read from a file.

    Args:
        pixels: (1, 3, H, W) uint8 RGB, sRGB, upright.
        alpha: (H, W) uint8 opacity, or None for an opaque image.
        exif: EXIF block without the orientation, which has been applied; empty if there is none.
        dpi: resolution in pixels per inch, or None.
        original_size: width and height in px before it was scaled, upright; by default those of the
            pixels.
    """

    pixels: Tensor
    alpha: np.ndarray | None = None
    exif: bytes = field(default=b"", repr=False)
    dpi: tuple[float, float] | None = None
    original_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.original_size = self.original_size or (self.pixels.shape[-1], self.pixels.shape[-2])

    @property
    def is_opaque(self) -> bool:
        """Whether nothing is transparent: many opaque files have an alpha channel, too."""
        return self.alpha is None or bool(self.alpha.min() == 255)

    @property
    def rgb(self) -> Tensor:
        """(1, 3, H, W) float32 RGB in [0, 1], four times as large."""
        return as_float(self.pixels)


def read_image(
    path: Path | str, *, long_side: int | None = None, short_side: int | None = None
) -> Picture:
    """Read the first frame of an image file as upright sRGB.

    EXIF orientation is applied, an embedded colour profile converted to sRGB, and grey, palette,
    CMYK and 16-bit images brought to 8-bit RGB.

    Args:
        path: JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or anything else that Pillow reads; HEIC with
            the package pillow-heif.
        long_side: scale the longer side to this many px; the file's own size by default.
        short_side: the same for the shorter side.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is not an image, is damaged, or has more pixels than Pillow deems safe.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not an image")
    if path.is_fifo():
        raise ValueError(f"{path} is a pipe, not an image file")
    with path.open("rb") as file:
        return decode_image(file, str(path), long_side=long_side, short_side=short_side)


def decode_image(
    file: BinaryIO,
    name: str,
    *,
    long_side: int | None = None,
    short_side: int | None = None,
    enlarge: bool = True,
    window: Window | None = None,
) -> Picture:
    """The same for an open file, which may lie in an archive or in memory.

    Args:
        file: open for reading, seekable.
        name: what to call it in an error message.
        long_side, short_side: as for read_image.
        enlarge: also if that makes it larger than it is.
        window: the part to return, which alone is scaled.

    Raises:
        OSError, ValueError: as read_image does.
    """
    start = file.read(512)
    file.seek(0)
    if not start:
        raise ValueError(f"{name} is empty")
    lacks_heif = is_heif(start) and not can_read_heif()
    try:
        with warnings.catch_warnings():
            # Pillow warns from 90 megapixels and refuses from 180; only the refusal matters here.
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                size = scaled_size(image.size, long_side, short_side)
                if not enlarge and max(size) > max(image.size):
                    size = image.size
                if size[0] * size[1] > MAX_PIXELS:
                    raise Image.DecompressionBombError
                original_size = image.size
                image.draft(None, size)  # let the JPEG decoder skip resolution that is not needed
                image.load()
                return to_picture(image, size, original_size, window)
    except UnidentifiedImageError:
        if lacks_heif:
            raise ValueError(f"{name} needs: {HEIF_HINT}") from None
        raise ValueError(f"{name} is not an image: {_describe(start)}") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{name} has, or is to be scaled to, more pixels than are safe (179 million)"
        ) from None
    except Exception as error:  # decoders raise all sorts of errors on damaged files
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{name} cannot be decoded: {error or type(error).__name__}") from error


def to_picture(
    image: Image.Image,
    size: tuple[int, int],
    original_size: tuple[int, int],
    window: Window | None = None,
) -> Picture:
    """An image that Pillow has loaded as an upright sRGB picture.

    Args:
        image: of any mode.
        size: (width, height) in px to scale it to, before it is put upright.
        original_size: those that it had before it was loaded in less than its full resolution.
        window: the part to return.
    """
    exif, dpi = _read_metadata(image)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        image = ImageOps.exif_transpose(image)
    if orientation in QUARTER_TURNS:
        size, original_size = size[::-1], original_size[::-1]
    image = _to_8bit_srgb(image)
    if window and window.side <= min(size):
        image = _scaled_window(image, size, window)
    elif image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    alpha = np.asarray(image.getchannel("A")) if image.mode == "RGBA" else None
    pixels = _to_tensor(image).permute(2, 0, 1)[None]
    return Picture(pixels, alpha, exif, dpi, original_size)


def _scaled_window(image: Image.Image, size: tuple[int, int], window: Window) -> Image.Image:
    """The part of an image that would be scaled to this size."""
    box = []
    for share, whole, scaled in zip((window.left, window.top), image.size, size, strict=True):
        start = round(share * (scaled - window.side))
        box.append((start * whole / scaled, min(whole, (start + window.side) * whole / scaled)))
    (left, right), (top, bottom) = box
    side = window.side, window.side
    return image.resize(side, Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def _to_tensor(image: Image.Image) -> Tensor:
    """(H, W, 3) uint8, row by row: Pillow's own conversion makes several copies of the whole."""
    pixels = torch.empty(image.height, image.width, 3, dtype=torch.uint8)
    for top in range(0, image.height, ROWS_AT_A_TIME):
        band = image.crop((0, top, image.width, min(top + ROWS_AT_A_TIME, image.height)))
        pixels[top : top + band.height] = torch.from_numpy(np.array(band.convert("RGB")))
    return pixels


def scaled_size(
    size: tuple[int, int], long_side: int | None = None, short_side: int | None = None
) -> tuple[int, int]:
    """The sides, in the same order, with the longer or the shorter as asked for; 1 px at least."""
    scale = long_side / max(size) if long_side else short_side / min(size) if short_side else 1
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _read_metadata(image: Image.Image) -> tuple[bytes, tuple[float, float] | None]:
    """EXIF block and resolution; left out if unreadable, because the pixels matter more."""
    try:
        tags = image.getexif()
        kept = Image.Exif()
        kept.update({tag: value for tag, value in tags.items() if tag in KEPT_TAGS})
        blocks = {block: tags.get_ifd(block) for block in KEPT_BLOCKS}
        kept.update({block: values for block, values in blocks.items() if values})
        exif = kept.tobytes() if kept else b""
        dpi = tuple(float(value) for value in image.info["dpi"]) if "dpi" in image.info else None
    except Exception:  # parsers of foreign metadata raise all sorts of errors
        return b"", None
    return exif, dpi if dpi and all(1 <= value <= 65535 for value in dpi) else None


def _to_8bit_srgb(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where the image has transparency; 8 bits a channel, sRGB."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8bit_gray(image)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    profile = image.info.get("icc_profile")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    image = _convert_profile(image, profile) if profile else image
    image = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image


def _to_8bit_gray(image: Image.Image) -> Image.Image:
    """Integers have 16 bits or as many more as they need; floats reach up to 1, 255 or 65535,
    whichever holds them all.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    white = 65535.0
    if image.mode == "F":  # a few values beyond do not count
        brightest = np.percentile(values, 99)
        white = next((limit for limit in (1.0, 255.0) if brightest <= limit), white)
    elif values.max() > white:
        white = 2.0 ** np.ceil(np.log2(values.max()))
    gray = Image.fromarray(np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8))
    gray.info = dict(image.info)
    if isinstance(gray.info.get("transparency"), int):
        gray.info["transparency"] >>= 8
    return gray


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours as sRGB; an image with a broken or unfit profile is taken as sRGB already."""
    try:
        return ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image


def _describe(start: bytes) -> str:
    """What a file that is not an image seems to be, from its first bytes."""
    start = start.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it holds an HTML page"
    if start.startswith(b"pk\x03\x04"):
        return "it holds a zip archive"
    if start.startswith(b"<?xml") or start.startswith(b"<svg"):
        return "it holds XML or SVG"
    return "its content is of no image format that Pillow knows"
