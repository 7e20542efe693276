"""Pixels in and out: the only place that knows Pillow and 8-bit values."""

from media.files import write_atomically
from media.images import (
    FORMATS,
    Picture,
    check_format,
    decode_image,
    find_images,
    read_image,
    write_image,
)

__all__ = [
    "FORMATS",
    "Picture",
    "check_format",
    "decode_image",
    "find_images",
    "read_image",
    "write_atomically",
    "write_image",
]
