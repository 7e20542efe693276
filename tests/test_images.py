import io
import os
import sys
import types
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from media import (
    FORMATS,
    Picture,
    Window,
    decode_image,
    find_images,
    formats,
    read_image,
    to_pil,
    write_image,
)
from media.files import replacing, write_atomically
from tests.conftest import smooth_image

LOSSLESS = {".png", ".tif", ".tiff", ".bmp"}


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_every_format_comes_back(suffix, tmp_path):
    image = smooth_image(24, 36)
    write_image(tmp_path / f"a{suffix}", image)
    again = read_image(tmp_path / f"a{suffix}").rgb
    assert again.shape == image.shape and again.dtype == torch.float32
    if suffix in LOSSLESS:
        assert (again - image).abs().max() <= 0.51 / 255
    else:
        assert (again - image).abs().mean() < 0.05


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_dropped(orientation, suffix, tmp_path):
    upright = Image.new("RGB", (40, 24), "black")
    upright.paste("white", (0, 0, 20, 12))  # top left
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    if suffix != "tif":
        exif[0x0100] = 9999  # a structural tag, as phones write it; it must not reach a TIFF
    exif.get_ifd(0x8769)[0x9286] = "comment"
    stored.save(tmp_path / f"a.{suffix}", exif=exif)

    picture = read_image(tmp_path / f"a.{suffix}")
    expected = torch.from_numpy(np.array(upright)).permute(2, 0, 1)[None] / 255
    assert (picture.rgb - expected).abs().max() < (0.1 if suffix == "jpg" else 1e-6)
    assert read_image(tmp_path / f"a.{suffix}", long_side=20).rgb.shape[-2:] == (12, 20)
    for output in ("b.jpg", "b.tif"):
        write_image(tmp_path / output, picture.rgb, like=picture)
        written = Image.open(tmp_path / output)
        assert written.size == (40, 24)
        assert written.getexif()[0x010F] == "Maker"
        assert written.getexif().get(0x0112, 1) == 1
        if output != "b.tif":  # Pillow writes no blocks into a compressed TIFF
            assert suffix == "tif" or written.getexif().get_ifd(0x8769)[0x9286] == "comment"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA", "PA"])
def test_modes_are_read_as_rgb(mode, tmp_path):
    source = Image.new("RGB", (10, 6), "white").convert(mode if mode != "PA" else "P")
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    source.save(tmp_path / f"a.{suffix}")
    assert torch.equal(read_image(tmp_path / f"a.{suffix}").rgb, torch.ones(1, 3, 6, 10))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_cut(suffix, tmp_path):
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = torch.from_numpy(values / 65535.0).float()
    assert (read_image(tmp_path / f"a.{suffix}").rgb - expected).abs().max() < 1 / 255


def test_float_tiff_is_scaled_by_its_range(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "a.tif")
    assert (read_image(tmp_path / "a.tif").rgb - 0.5).abs().max() < 1 / 255


def test_odd_values_do_not_darken_a_float_tiff(tmp_path):
    values = np.full((20, 20), 0.5, np.float32)
    values[0, :3] = [np.nan, np.inf, 1.02]
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif").rgb.mean().item() == pytest.approx(0.5, abs=0.02)


def test_scaling_beyond_the_limit_is_refused(tmp_path):
    write_image(tmp_path / "a.png", smooth_image(4, 4000))
    with pytest.raises(ValueError, match="179 million"):
        read_image(tmp_path / "a.png", short_side=2000)


def test_unusable_resolution_is_dropped(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif", dpi=(1e9, 1e9))
    assert read_image(tmp_path / "a.tif").dpi is None


def test_alpha_is_put_back_or_becomes_white(tmp_path):
    alpha = np.tile(np.array([0, 255], np.uint8), (6, 5))
    picture = Picture(smooth_image(6, 10), alpha)
    write_image(tmp_path / "a.png", picture.rgb, like=picture)
    assert np.array_equal(read_image(tmp_path / "a.png").alpha, alpha)
    write_image(tmp_path / "a.bmp", picture.rgb, like=picture)
    flat = read_image(tmp_path / "a.bmp")
    assert flat.alpha is None and (flat.rgb[..., 0::2] == 1).all()


def test_metadata_too_long_for_the_format_is_left_out(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    picture = Picture(smooth_image(8, 8), exif=exif.tobytes())
    write_image(tmp_path / "a.jpg", picture.rgb, like=picture)
    assert read_image(tmp_path / "a.jpg").rgb.shape == (1, 3, 8, 8)


def test_transparent_palette_has_alpha(tmp_path):
    source = Image.new("P", (4, 4), 1)
    source.putpalette([255, 0, 0, 0, 255, 0])
    source.save(tmp_path / "a.png", transparency=1)
    assert (read_image(tmp_path / "a.png").alpha == 0).all()


def test_colour_profile_is_converted_and_a_broken_one_ignored(tmp_path):
    # LAB is the one profile besides sRGB that every Pillow can make: L = 50 %, neutral.
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.new("LAB", (4, 4), (128, 128, 128)).save(tmp_path / "a.tif", icc_profile=lab)
    grey = read_image(tmp_path / "a.tif").rgb
    assert (grey - 119 / 255).abs().max() < 0.02  # L* = 50 is 119 in sRGB
    Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "b.png", icc_profile=b"nonsense")
    assert read_image(tmp_path / "b.png").rgb[0, 0, 0, 0].item() == pytest.approx(200 / 255)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_sides_are_scaled_as_asked(suffix, tmp_path):
    write_image(tmp_path / f"a.{suffix}", smooth_image(90, 200))
    assert read_image(tmp_path / f"a.{suffix}", long_side=50).rgb.shape[-2:] == (22, 50)
    assert read_image(tmp_path / f"a.{suffix}", short_side=45).rgb.shape[-2:] == (45, 100)
    assert read_image(tmp_path / f"a.{suffix}", long_side=400).rgb.shape[-2:] == (180, 400)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").rgb[0, :, 0, 0].tolist() == [1, 0, 0]


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    return buffer.getvalue()


def _bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"<!doctype html><p>404</p>", "HTML"),
        (b"PK\x03\x04zip", "zip"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"just some text", "no image format"),
        (_jpeg()[:700], "cannot be decoded|no image format"),
        (_jpeg()[:-1200], "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "cannot be decoded|no image format"),
        (_bomb(), "179 million"),
    ],
)
def test_what_is_no_good_image_is_described(content, what, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=what) as error:
        read_image(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.jpg")


def test_unknown_suffix_and_too_large_an_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="suffix must be one of"):
        write_image(tmp_path / "a.xyz", smooth_image(4, 4))
    with pytest.raises(ValueError, match="WEBP"):
        write_image(tmp_path / "a.webp", torch.zeros(1, 3, 1, 17_000))
    assert list(tmp_path.iterdir()) == []


def test_values_outside_the_range_are_clamped(tmp_path):
    write_image(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1))
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (0, 128, 255)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_error_that_is_not_of_the_system_keeps_its_words(tmp_path):
    with pytest.raises(OSError, match=r"^encoder error -2$"), replacing(tmp_path / "a.gif"):
        raise OSError("encoder error -2")


def test_images_are_found_in_folders_and_hidden_ones_left_out(tmp_path):
    for name in ("b.JPG", "sub/a.png", "sub/e.jfif", ".hidden/c.png", "._d.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert names == ["b.JPG", "sub/a.png", "sub/e.jfif"]


@pytest.fixture(params=[False, True])
def has_heif(request, monkeypatch):
    """Without the package for HEIC; and with one of that name, whose files are PNG with a head."""

    def opener(file, name):
        file.seek(12)
        return PngImagePlugin.PngImageFile(io.BytesIO(file.read()))

    def register_heif_opener():
        Image.register_open("HEIF", opener, lambda start: start[4:12] == b"ftypheic")

    fake = types.SimpleNamespace(register_heif_opener=register_heif_opener)
    monkeypatch.setitem(sys.modules, "pillow_heif", fake if request.param else None)
    for name in ("OPEN", "ID"):
        value = getattr(Image, name)
        monkeypatch.setattr(Image, name, type(value)(value))
    formats.can_read_heif.cache_clear()
    yield request.param
    formats.can_read_heif.cache_clear()


def test_heic_is_read_with_its_package_and_else_named(has_heif, tmp_path):
    write_image(tmp_path / "a.png", smooth_image(8, 6))
    content = b"\0\0\0\x18ftypheic" + (tmp_path / "a.png").read_bytes()
    for name in ("1.heic", "2.HEIC", "3.dng"):
        (tmp_path / name).write_bytes(content)
    left_out = (
        "left out 1 .dng$" if has_heif else "left out 1 .dng, 2 .heic; for .heic: pip install"
    )
    with pytest.warns(UserWarning, match=left_out) as warned:
        names = [path.name for path in find_images(tmp_path)]
    assert len(warned) == 1
    if has_heif:
        assert names == ["1.heic", "2.HEIC", "a.png"]
        assert read_image(tmp_path / "1.heic").pixels.shape == (1, 3, 8, 6)
    else:
        assert names == ["a.png"]
        with pytest.raises(ValueError, match=r'1.heic needs: pip install -e "\.\[heic\]"$'):
            read_image(tmp_path / "1.heic")


def test_real_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    formats.can_read_heif.cache_clear()
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Vincent"
    to_pil(smooth_image(64, 96)).save(tmp_path / "a.heic", exif=exif.tobytes(), quality=95)
    picture = read_image(find_images(tmp_path)[0], long_side=48)
    assert picture.original_size == (96, 64)
    small = torch.nn.functional.interpolate(smooth_image(64, 96), (32, 48), mode="area")
    assert (picture.rgb - small).abs().mean() < 0.02
    assert b"Vincent" in picture.exif


def test_a_file_that_has_come_meanwhile_is_kept_if_asked(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_atomically(path, b"first", exists_ok=False)
    for _ in range(2):
        with pytest.raises(FileExistsError):
            write_atomically(path, b"second", exists_ok=False)
        monkeypatch.setattr("os.link", Mock(side_effect=PermissionError))  # a disk without links
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]
    write_atomically(tmp_path / "b.png", b"third", exists_ok=False)
    assert (tmp_path / "b.png").read_bytes() == b"third"


@pytest.mark.parametrize("orientation", [1, 6])
def test_window_is_a_part_of_the_scaled_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    to_pil(torch.rand(1, 3, 120, 200)).save(tmp_path / "a.png", exif=exif)
    whole = read_image(tmp_path / "a.png", short_side=60).pixels.int()
    height, width = whole.shape[-2:]
    for top, left in ((0, 0), (0.5, 1), (1, 0.25)):
        window = Window(40, top, left)
        with (tmp_path / "a.png").open("rb") as file:
            picture = decode_image(file, "a.png", short_side=60, window=window)
        y, x = round(top * (height - 40)), round(left * (width - 40))
        assert picture.pixels.shape == (1, 3, 40, 40)
        assert (picture.pixels - whole[..., y : y + 40, x : x + 40]).abs().max() <= 1


def test_window_larger_than_the_image_is_all_of_it(tmp_path):
    write_image(tmp_path / "a.png", smooth_image(20, 30))
    with (tmp_path / "a.png").open("rb") as file:
        picture = decode_image(file, "a.png", window=Window(21, 0.5, 0.5))
    assert torch.equal(picture.pixels, read_image(tmp_path / "a.png").pixels)


def test_pipe_is_refused(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # else a reader would wait for one
    os.write(writer, b"no image")
    with pytest.raises(ValueError, match="pipe is a pipe, not an image file"):
        read_image(pipe)
    os.close(writer)
