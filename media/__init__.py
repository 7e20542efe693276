"""Pixels in and out: the only place that knows Pillow and PyAV, how floats become bytes, and how
files are written whole.
"""

from media.files import claimed, sha256, write_atomically
from media.formats import (
    FORMATS,
    HEIF,
    VIDEO_FORMATS,
    VIDEOS,
    check_format,
    check_video_format,
    find_images,
)
from media.images import Picture, Window, decode_image, read_image
from media.pil import PilImage, from_pil, read_mask, to_pil
from media.pixels import as_bytes, as_float, resize
from media.sheet import contact_sheet
from media.video import VIDEO_HINT, Frame, Outline, pyav, read_frames, read_outline
from media.video_writing import PartWriter, count_frames, join_parts, read_note
from media.writing import encode_image, holds_text, read_text, write_image

__all__ = [
    "FORMATS",
    "HEIF",
    "VIDEOS",
    "VIDEO_FORMATS",
    "VIDEO_HINT",
    "Frame",
    "Outline",
    "PartWriter",
    "Picture",
    "PilImage",
    "Window",
    "as_bytes",
    "as_float",
    "check_format",
    "check_video_format",
    "claimed",
    "contact_sheet",
    "count_frames",
    "decode_image",
    "encode_image",
    "find_images",
    "from_pil",
    "holds_text",
    "join_parts",
    "pyav",
    "read_frames",
    "read_image",
    "read_mask",
    "read_note",
    "read_outline",
    "read_text",
    "resize",
    "sha256",
    "to_pil",
    "write_atomically",
    "write_image",
]
