"""Formats, by suffix: those that can be written, and those that folders are searched for."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from PIL import features

# How each format is written: Pillow's name, whether it keeps transparency, and its options.
# 4:4:4 and high quality, because brush strokes are all edges and colour changes.
_JPEG = ("JPEG", False, {"quality": 95, "subsampling": 0})
_TIFF = ("TIFF", True, {"compression": "tiff_adobe_deflate"})
FORMATS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jfif": _JPEG,
    ".jpe": _JPEG,
    ".png": ("PNG", True, {}),
    ".webp": ("WEBP", True, {"quality": 95}),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": ("BMP", False, {}),
    ".gif": ("GIF", True, {}),
}
if features.check("avif"):
    FORMATS[".avif"] = ("AVIF", True, {"quality": 90, "subsampling": "4:4:4"})

HEIF = (".heic", ".heif", ".hif")  # only read, by a package that not everybody has
HEIF_HINT = 'pip install -e ".[heic]"'
# Other kinds of images, of cameras and programs, which are left out of a folder, but not silently.
FOREIGN = {
    *(".avif", ".jp2", ".jxl", ".psd", ".svg", ".tga"),
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"),
}

# FFmpeg's names for each suffix that can be written: container, codec, and the codec's options: no
# B-frames (bf), so that frames are stored in the order of their times, and in VP9 the quality of
# the crf alone, whatever the bit rate (b).
_H264 = ("libx264", {"preset": "medium", "bf": "0"})
_VP9 = ("libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"})
VIDEO_FORMATS = {
    ".mp4": ("mp4", *_H264),
    ".m4v": ("mp4", *_H264),
    ".mov": ("mov", *_H264),
    ".mkv": ("matroska", *_H264),
    ".webm": ("webm", *_VP9),
}
# These, and others that are only read.
VIDEOS = {
    *VIDEO_FORMATS,
    *(".3gp", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv"),
}

DEPTHS = (8, 16)  # bits a channel
MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}  # px


def check_format(path: Path, depth: int = 8, long_side: int = 0) -> None:
    """ValueError unless the suffix names a format that can be written in this depth (bits) and size
    (px).
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"cannot write '{path.name}': the suffix must be one of {' '.join(sorted(FORMATS))}"
        )
    if depth not in DEPTHS:
        raise ValueError(f"a depth of {depth} bits cannot be written; choose 8 or 16")
    if depth == 16 and FORMATS[suffix][0] not in ("PNG", "TIFF"):
        raise ValueError(f"cannot write '{path.name}' with 16 bits; only .png, .tif and .tiff can")
    limit = MAX_SIDES.get(FORMATS[suffix][0], long_side)
    if long_side > limit:
        raise ValueError(
            f"cannot write '{path.name}' with {long_side} px a side; the format ends at {limit} px"
        )


def check_video_format(path: Path) -> None:
    """ValueError unless the suffix names a video format that can be written."""
    if path.suffix.lower() not in VIDEO_FORMATS:
        raise ValueError(
            f"cannot write '{path.name}': a video's suffix must be one of {' '.join(VIDEO_FORMATS)}"
        )


@cache
def can_read_heif() -> bool:
    """Whether Pillow reads HEIC files here, iPhones' own format; from now on it does if it can."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def is_heif(start: bytes) -> bool:
    """Whether a file is of this format, from its first bytes; an AVIF file may be taken for one."""
    return start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf")


def find_images(
    folder: Path,
    *,
    outside: Path | None = None,
    on_error: Callable[[OSError], None] | None = None,
) -> list[Path]:
    """Image files in a folder and its subfolders, by suffix, sorted; no hidden ones.

    Broken links are included, so that a missing photo is noticed. A warning tells of images that
    cannot be read, and of videos.

    Args:
        folder: where to look.
        outside: a subfolder, such as that of the results, whose images are left out; any other
            folder changes nothing.
        on_error: called with the error of a folder that cannot be read; by default a warning.
    """
    images, others = [], []
    for place, folders, names in os.walk(folder, onerror=on_error or _warn):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            suffix = path.suffix.lower()
            if suffix in FORMATS or (suffix in HEIF and can_read_heif()):
                if os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path)):
                    images.append(path)
            elif suffix in HEIF or suffix in FOREIGN or suffix in VIDEOS:
                others.append(path)
    images.sort()
    if outside and _is_below(outside, folder):
        images, others = (
            [path for path in paths if not _is_below(path, outside)] for paths in (images, others)
        )
    if others:
        _warn_left_out(folder, Counter(path.suffix.lower() for path in others))
    return images


def _warn_left_out(folder: Path, counts: Counter[str]) -> None:
    """Warn of the files of a folder that are left out, by suffix."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    hints = [f"; for {suffix}: {HEIF_HINT}" for suffix in HEIF if suffix in counts]
    warnings.warn(f"{folder}: left out {kinds}{''.join(hints[:1])}", stacklevel=3)


def _warn(error: OSError) -> None:
    warnings.warn(f"{error.filename}: {error.strerror}", stacklevel=2)


def _is_below(path: Path, folder: Path) -> bool:
    # Unlike Path.resolve, realpath takes a link that leads to itself.
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents
