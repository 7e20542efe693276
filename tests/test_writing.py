"""16-bit files, and texts embedded in files; the rest of writing is tested with reading."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from media import FORMATS, Picture, read_image, read_text, sixteen_bit, write_image
from tests.conftest import smooth_image

TEXT = '{"program": "slow", "note": "caf\\u00e9 \\"quoted\\""}'


def read_png16(path) -> np.ndarray:
    """Chunks and rows unpacked by hand, byte by byte as the standard says."""
    content, chunks, position = path.read_bytes(), {}, 8
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        assert checksum == zlib.crc32(kind + data)
        chunks[kind] = chunks.get(kind, b"") + data
        position += 12 + length
    width, height, depth, color_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert depth == 16
    step = 2 * {2: 3, 6: 4}[color_type]
    filtered = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert (filtered[:, 0] == 4).all()
    rows = np.zeros((height + 1, step + width * step), int)  # a pixel and a row of zeros
    for y, x in np.ndindex(height, width * step):
        left, above, corner = rows[y + 1, x], rows[y, x + step], rows[y, x]
        nearest = min((left, above, corner), key=lambda v: abs(left + above - corner - v))
        rows[y + 1, x + step] = (filtered[y, x + 1] + nearest) % 256
    values = rows[1:, step:].astype(np.uint8).view(">u2")
    return values.reshape(height, width, -1)


def read_tiff16(path) -> np.ndarray:
    """Strips unpacked by hand: Deflate, then sums of the differences."""
    content = path.read_bytes()
    with Image.open(path) as image:
        tags = dict(image.tag_v2)
    assert tags[259] == 8 and tags[317] == 2 and tags[262] == 2
    rows = b"".join(
        zlib.decompress(content[start : start + length])
        for start, length in zip(tags[273], tags[279], strict=True)
    )
    values = np.frombuffer(rows, "<u2").reshape(tags[257], tags[256], tags[277])
    return np.cumsum(values, axis=1, dtype=np.uint16)


@pytest.mark.parametrize(("suffix", "read"), [("png", read_png16), ("tif", read_tiff16)])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bits_come_back_exactly(suffix, read, with_alpha, tmp_path, monkeypatch):
    monkeypatch.setattr(sixteen_bit, "STRIP", 300)  # so that several strips are written
    wanted = (smooth_image(40, 24)[0].permute(1, 2, 0).numpy() * 65535).astype(np.uint16)
    wanted[0, :3] = np.array([0, 1, 65535])[:, None]
    rgb = torch.from_numpy(wanted.astype(np.float32) / 65535).permute(2, 0, 1)[None]
    alpha = (np.arange(40 * 24) % 256).astype(np.uint8).reshape(40, 24) if with_alpha else None
    path = tmp_path / f"a.{suffix}"
    write_image(path, rgb, like=Picture(rgb, alpha), depth=16)
    values = read(path)
    assert np.array_equal(values[..., :3], wanted)
    assert len(np.unique(values[..., :3] & 255)) > 200  # the low bytes are not empty
    if with_alpha:
        assert np.array_equal(values[..., 3], alpha.astype(np.uint16) * 257)
    again = read_image(path)  # Pillow's view of it, in 8 bits
    assert (again.rgb - rgb).abs().max() < 1.01 / 255
    assert (again.alpha is None) != with_alpha


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_files_carry_the_metadata(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    picture = Picture(smooth_image(8, 9), exif=exif.tobytes(), dpi=(300.0, 300.0))
    path = tmp_path / f"a.{suffix}"
    write_image(path, picture.rgb, like=picture, depth=16, text=TEXT)
    with Image.open(path) as image:
        assert image.getexif()[0x010F] == "Maker"
        assert image.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
    assert read_text(path) == TEXT


def test_16_bits_are_refused_where_the_format_has_none(tmp_path):
    for name in ("a.jpg", "a.webp"):
        with pytest.raises(ValueError, match="16 bits"):
            write_image(tmp_path / name, smooth_image(4, 4), depth=16)
    with pytest.raises(ValueError, match="12 bits"):
        write_image(tmp_path / "a.png", smooth_image(4, 4), depth=12)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", sorted(FORMATS.keys() - {".bmp"}))
def test_a_text_comes_back(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    picture = Picture(smooth_image(8, 9), exif=exif.tobytes())
    path = tmp_path / f"a{suffix}"
    write_image(path, picture.rgb, like=picture, text=TEXT)
    assert read_text(path) == TEXT
    if suffix != ".gif":
        with Image.open(path) as image:
            assert image.getexif()[0x010F] == "Maker"


def test_a_text_outlives_metadata_that_are_too_long(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    picture = Picture(smooth_image(8, 8), exif=exif.tobytes())
    write_image(tmp_path / "a.jpg", picture.rgb, like=picture, text=TEXT)
    assert read_text(tmp_path / "a.jpg") == TEXT


def test_a_text_that_is_too_long_is_left_out(tmp_path):
    write_image(tmp_path / "a.jpg", smooth_image(8, 8), text="x" * 70_000)
    assert read_text(tmp_path / "a.jpg") == ""
    write_image(tmp_path / "a.png", smooth_image(8, 8), text="x" * 70_000)
    assert read_text(tmp_path / "a.png") == "x" * 70_000


def test_no_text_is_empty_and_no_image_is_refused(tmp_path):
    write_image(tmp_path / "a.png", smooth_image(4, 4))
    assert read_text(tmp_path / "a.png") == ""
    with pytest.raises(ValueError, match="not an image"):
        read_text(__file__)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none.png")
