"""PNG and TIFF files with 16 bits a channel, which Pillow cannot write in colour."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, TiffTags

STRIP = 1 << 20  # values that are prepared at once
TEXT_KEYWORD = "Comment"  # of a PNG's text: "miscellaneous comment" in the standard


def encode_png16(
    pixels: np.ndarray, *, exif: bytes = b"", dpi: tuple[float, float] | None = None, text: str = ""
) -> bytes:
    """The content of a PNG file (ISO/IEC 15948).

    Args:
        pixels: (H, W, C) uint16; C is 3 for RGB, 4 for RGB and alpha. sRGB.
        exif: EXIF block to embed, or none.
        dpi: resolution in pixels per inch.
        text: Unicode text to embed, or none.
    """
    height, width, channels = pixels.shape
    color_type = {3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
    chunks.append((b"sRGB", b"\0"))  # perceptual intent
    if dpi:
        per_metre = (round(value / 0.0254) for value in dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if exif:
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if text:
        # Not compressed, no language, no translated keyword.
        keyword = TEXT_KEYWORD.encode("latin-1")
        chunks.append((b"iTXt", keyword + b"\0\0\0\0\0" + text.encode()))
    compressor = zlib.compressobj()
    chunks += [(b"IDAT", compressor.compress(strip)) for strip in _paeth_rows(pixels)]
    chunks += [(b"IDAT", compressor.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _paeth_rows(pixels: np.ndarray) -> Iterator[bytes]:
    """Rows as the differences from what PNG's Paeth filter predicts, some rows at a time.

    The predictor is whichever of the left, the upper and the upper left neighbour's byte is nearest
    to left + upper - upper left. It beats the other filters nearly everywhere in paintings.
    """
    height, width, channels = pixels.shape
    previous = np.zeros((1, width * channels * 2), np.uint8)
    rows_at_once = max(1, STRIP // (width * channels))
    for top in range(0, height, rows_at_once):
        # Most significant byte first.
        values = np.ascontiguousarray(pixels[top : top + rows_at_once], ">u2")
        rows = values.view(np.uint8).reshape(len(values), -1)
        above = np.concatenate([previous, rows[:-1]])
        previous = rows[-1:]

        step = channels * 2  # bytes of a pixel
        left, upper_left = (np.pad(x, ((0, 0), (step, 0)))[:, :-step] for x in (rows, above))
        a, b, c = (x.astype(np.int16) for x in (left, above, upper_left))
        to_left, to_above, to_corner = abs(b - c), abs(a - c), abs(a + b - 2 * c)
        nearest = np.where(to_above <= to_corner, above, upper_left)
        nearest = np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
        yield np.insert(rows - nearest, 0, 4, axis=1).tobytes()  # 4: the filter's number


def encode_tiff16(
    pixels: np.ndarray,
    *,
    exif: Image.Exif | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """The content of a TIFF 6.0 file, compressed without loss (Deflate).

    Args:
        pixels: (H, W, C) uint16; C is 3 for RGB, 4 for RGB and alpha.
        exif: tags to embed, with their blocks of exposure and place.
        dpi: resolution in pixels per inch.
    """
    height, width, channels = pixels.shape
    rows_at_once = max(1, STRIP // (width * channels))
    strips = []
    for top in range(0, height, rows_at_once):
        rows = np.array(pixels[top : top + rows_at_once], "<u2", order="C")
        rows[:, 1:] -= rows[:, :-1].copy()  # predictor 2: differences from the left pixel
        strips.append(zlib.compress(rows.tobytes()))
    lengths = [len(strip) for strip in strips]

    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
    for tag, value in (exif or {}).items():
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            directory.tagtype[tag] = TiffTags.LONG
            value = dict(exif.get_ifd(tag))
        directory[tag] = value
    tags = TiffImagePlugin
    directory[tags.IMAGEWIDTH], directory[tags.IMAGELENGTH] = width, height
    directory[tags.BITSPERSAMPLE] = (16,) * channels
    directory[tags.SAMPLESPERPIXEL] = channels
    directory[tags.COMPRESSION] = 8  # Deflate
    directory[tags.PREDICTOR] = 2
    directory[tags.PHOTOMETRIC_INTERPRETATION] = 2  # RGB
    if channels == 4:
        directory[tags.EXTRASAMPLES] = 2  # alpha, not multiplied into the colours
    if dpi:
        directory[tags.X_RESOLUTION], directory[tags.Y_RESOLUTION] = dpi
        directory[tags.RESOLUTION_UNIT] = 2  # inch
    directory[tags.ROWSPERSTRIP] = rows_at_once
    directory[tags.STRIPBYTECOUNTS] = tuple(lengths)
    # Counted from the end of the directory, which Pillow adds.
    directory.tagtype[tags.STRIPOFFSETS] = TiffTags.LONG
    directory[tags.STRIPOFFSETS] = tuple(int(sum(lengths[:i])) for i in range(len(lengths)))
    file = io.BytesIO()
    directory.save(file)
    file.write(b"".join(strips))
    return file.getvalue()
