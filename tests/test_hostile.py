"""Whatever is thrown at predict.py ends in the right picture, or in one line and an exit code."""

import io
import os
import pickle
import socket
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, features

import cli
import predict
from fast import stylize
from media.sixteen_bit import encode_png16, encode_tiff16
from models.checkpoint import Checkpoint
from models.transformer_net import TransformerNet

# The corpus is painted with strength 0, so that what comes out is the photo itself.
FLAGS = ("--strength", 0, "--device", "cpu", "--precision", "float32")
WIDTH, HEIGHT = 32, 24
LIGHT, DARK = 220, 30


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    net = TransformerNet(width=4, num_blocks=1)
    path = tmp_path_factory.mktemp("model") / "m.pth"
    path.write_bytes(Checkpoint(arguments=net.arguments, weights=net.state_dict()).to_bytes())
    return path


@pytest.fixture
def paint(run, model, tmp_path):
    """Paint into a new folder: (exit code, errors, written files); nothing else may change."""

    def paint_inputs(*inputs: object) -> tuple[int, list[str], list[Path]]:
        before = contents(tmp_path)
        out = tmp_path / "out"
        code, printed, err = run(
            predict, "--model", model, "-o", out, "--quiet", *FLAGS, "--", *inputs
        )
        written = sorted(path for path in out.rglob("*") if path.is_file()) if out.exists() else []
        assert len(printed.splitlines()) == sum(str(path).count("\n") + 1 for path in written)
        assert {
            path: held for path, held in contents(tmp_path).items() if out not in path.parents
        } == before
        return code, err.splitlines(), written

    return paint_inputs


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def scene(mode: str = "RGB") -> Image.Image:
    """Light at the top left, dark elsewhere."""
    grey = Image.new("L", (WIDTH, HEIGHT), DARK)
    grey.paste(LIGHT, (0, 0, WIDTH // 2, HEIGHT // 2))
    if mode in ("I", "I;16"):
        values = np.asarray(grey).astype(np.int32) * 257
        return Image.fromarray(values if mode == "I" else values.astype(np.uint16))
    if mode == "LAB":
        return Image.merge("LAB", (grey, *[Image.new("L", grey.size, 128)] * 2))
    if mode in ("LA", "RGBA"):
        grey = grey.convert(mode)
        grey.putalpha(Image.new("L", grey.size, 200))
        return grey
    return grey.convert(mode, dither=Image.Dither.NONE)


def assert_is_scene(path: Path, mode: str = "RGB") -> None:
    with Image.open(path) as image:
        image.load()
    assert image.size == (WIDTH, HEIGHT) and image.mode == mode
    grey = np.asarray(image.convert("RGB").convert("L")).astype(int)
    light = grey[: HEIGHT // 2 - 1, : WIDTH // 2 - 1]
    assert light.min() > 180, "it is not light at the top left"
    grey[: HEIGHT // 2 + 1, : WIDTH // 2 + 1] = 0
    assert grey.max() < 90, "it is not dark elsewhere"


# Mode, suffix, mode of the painting, options of Pillow.
MODES = [
    *(("1", s, "RGB", {}) for s in ("png", "tif", "bmp", "pbm", "gif", "pcx")),
    *(("L", s, "RGB", {}) for s in ("png", "jpg", "tif", "bmp", "webp", "pgm", "jfif", "tga")),
    *(("P", s, "RGB", {}) for s in ("png", "gif", "bmp", "tif", "pcx")),
    ("P", "png", "RGBA", {"transparency": bytes([255] * 128 + [200] * 128)}),
    ("L", "png", "RGBA", {"transparency": 7}),
    ("RGB", "png", "RGBA", {"transparency": (1, 2, 3)}),
    *(("LA", s, "RGBA", {}) for s in ("png", "tif")),
    *(("RGB", s, "RGB", {}) for s in ("png", "jpg", "tif", "bmp", "webp", "ppm", "sgi")),
    *(("RGBA", s, "RGBA", {}) for s in ("png", "tif", "webp", "tga", "dds")),
    *(("CMYK", s, "RGB", {}) for s in ("jpg", "tif")),
    ("YCbCr", "tif", "RGB", {}),
    ("LAB", "tif", "RGB", {}),
    *(("I;16", s, "RGB", {}) for s in ("png", "tif")),
    ("I", "tif", "RGB", {}),
    ("F", "tif", "RGB", {}),
    ("F", "pfm", "RGB", {}),
    ("RGB", "jpg", "RGB", {"progressive": True}),
    ("RGB", "jpg", "RGB", {"icc_profile": b"no profile"}),
    (
        "RGB",
        "png",
        "RGB",
        {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    ),
    (
        "L",
        "png",
        "RGB",
        {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    ),
    ("RGB", "jpg", "RGB", {"exif": b"Exif\0\0MM\0*no such thing"}),
    ("RGB", "jpg", "RGB", {"comment": b"\xff\xfe" * 1000, "dpi": (0, 0)}),
    ("RGB", "tif", "RGB", {"compression": "tiff_lzw", "tiffinfo": {270: "x" * 5000}}),
]
if features.check("jpg_2000"):
    MODES += [("RGB", "jp2", "RGB", {}), ("L", "jp2", "RGB", {}), ("RGBA", "jp2", "RGBA", {})]
if features.check("avif"):
    MODES += [("RGB", "avif", "RGB", {}), ("RGBA", "avif", "RGBA", {})]


@pytest.mark.parametrize(("mode", "suffix", "painted", "options"), MODES)
def test_every_mode_and_format(mode, suffix, painted, options, paint, tmp_path):
    photo = tmp_path / f"photo.{suffix}"
    scene(mode).save(photo, **options)
    code, errors, written = paint(photo)
    assert (code, errors) == (0, [])
    assert_is_scene(*written, painted)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_a_channel(suffix, alpha, paint, tmp_path):
    pixels = np.asarray(scene("RGBA" if alpha else "RGB")).astype(np.uint16) * 257
    encoded = encode_png16(pixels) if suffix == "png" else encode_tiff16(pixels)
    (tmp_path / f"photo.{suffix}").write_bytes(encoded)
    code, errors, written = paint(tmp_path / f"photo.{suffix}")
    assert (code, errors) == (0, [])
    assert_is_scene(*written, "RGBA" if alpha else "RGB")


@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_orientations(orientation, paint, tmp_path):
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
    stored, exif = scene(), Image.Exif()
    if orientation in undo:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    code, errors, written = paint(tmp_path / "photo.jpg")
    assert (code, errors) == (0, [])
    assert_is_scene(*written)
    assert Image.open(written[0]).getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3), (1, 2), (4097, 5)])
def test_odd_sizes(size, paint, tmp_path):
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "photo.png")
    code, errors, written = paint(tmp_path / "photo.png")
    assert (code, errors) == (0, [])
    image = Image.open(written[0])
    assert image.size == size and image.getcolors() == [(size[0] * size[1], (10, 200, 30))]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "mpo"])
def test_of_many_frames_the_first_is_painted(suffix, paint, tmp_path):
    later = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in ("red", "blue")]
    scene().save(tmp_path / f"photo.{suffix}", save_all=True, append_images=later)
    code, errors, written = paint(tmp_path / f"photo.{suffix}")
    assert (code, errors) == (0, [])
    assert_is_scene(*written)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "with space.png",
            " .png",
            "画像 ünïcødé 🎨.png",
            "-o.png",
            "--force",
            "a.b.c.png",
            "bare",
        ),
        *(
            "UPPER.PNG",
            ".hidden.png",
            "new\nline.png",
            "100%s%(x)s.png",
            "[x]*?.png",
            "'\"$(x)`.png",
        ),
        *("jpeg.png", "png.txt", "trailing.", "stylized", "~", os.fsdecode(b"latin-\xe9.png")),
    ],
)
def test_odd_names(name, paint, tmp_path, monkeypatch):
    scene().save(tmp_path / name, format="JPEG" if name.startswith("jpeg") else "PNG")
    monkeypatch.chdir(tmp_path)
    code, errors, written = paint(name)
    assert errors == [] and code == 0
    assert_is_scene(*written)


def encoded(name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(buffer, name, **options)
    return buffer.getvalue()


def png_of(width: int, height: int, *, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(name: bytes, held: bytes) -> bytes:
        return (
            struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def zip_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.png", encoded())
    return buffer.getvalue()


def large(mode: str, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def wrong_check_sum() -> bytes:
    content = bytearray(encoded())
    content[content.index(b"IDAT") + 20] ^= 255
    return bytes(content)


class Evil:
    """A pickle that would leave a file behind."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch evil",)


NO_IMAGES = {
    "empty": (b"", "is empty"),
    "html": (b"<!doctype html><title>404</title>", "HTML"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "text": (b"just some text\n", "not an image"),
    "nul": (bytes(1000), "not an image"),
    "noise": (np.random.default_rng(0).bytes(5000), "not an image"),
    "zip": (zip_archive(), "zip"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not an image"),
    "pickle": (pickle.dumps(Evil()), "not an image"),
    "one byte": (b"\xff", "not an image"),
    "jpeg start": (b"\xff\xd8\xff\xe0", "not an image|cannot be decoded"),
    "half a jpeg": (encoded("JPEG")[:-1500], "cannot be decoded"),
    "half a progressive jpeg": (encoded("JPEG", progressive=True)[:-1500], "cannot be decoded"),
    "half a png": (encoded()[:-3000], "cannot be decoded"),
    "half a gif": (encoded("GIF")[:-1500], "cannot be decoded"),
    "half a tiff": (encoded("TIFF")[:-1500], "cannot be decoded"),
    "half a webp": (encoded("WEBP")[:-500], "cannot be decoded|not an image"),
    "half a bmp": (encoded("BMP")[:-500], "cannot be decoded"),
    "png start": (encoded()[:30], "cannot be decoded|not an image"),
    "wrong check sum": (wrong_check_sum(), "cannot be decoded"),
    "no data": (png_of(64, 64), "cannot be decoded"),
    "bomb": (large("1", 20_000), "179 million"),
    "claimed bomb": (png_of(2**31 - 1, 2**31 - 1), "179 million|cannot be decoded|not an image"),
    "no width": (png_of(0, 64), "cannot be decoded|not an image"),
    "negative bmp": (encoded("BMP")[:18] + struct.pack("<i", -9) + encoded("BMP")[22:], "."),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_told_in_one_line(name, paint, tmp_path):
    content, what = NO_IMAGES[name]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(content)
    code, errors, written = paint(photo)
    assert code == 1 and written == []
    (line,) = errors
    assert line.startswith(f"error: {photo}")
    assert any(part in line for part in what.split("|")), line
    assert not Path("evil").exists()


def test_what_is_no_file_is_told_in_one_line(paint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.jpg").mkdir()
    Path("lost.jpg").symlink_to("nowhere.jpg")
    Path("loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    cases = [
        ("folder.jpg", 2, "no image in this folder"),
        ("lost.jpg", 1, "No such file"),
        ("loop.jpg", 1, "symbolic links"),
        ("socket.jpg", 1, "No such device"),
        ("missing.jpg", 2, "no such file or folder"),
        ("x" * 300, 2, "no such file or folder"),
        ("no/*.jpg", 2, "no match"),
        (os.devnull, 1, "is empty"),
    ]
    if os.path.exists("/proc/self/mem"):  # a file that even root cannot read
        Path("unreadable.jpg").symlink_to("/proc/self/mem")
        cases.append(("unreadable.jpg", 1, "Input/output error"))
    for name, expected, what in cases:
        code, errors, written = paint(name)
        assert (code, len(errors), written) == (expected, 1, []), (name, errors)
        assert what in errors[0], (name, errors)


def test_all_of_it_at_once(paint, tmp_path):
    """The good ones are painted, the bad ones named, each by a line."""
    folder = tmp_path / "corpus"
    (folder / "x.jpg").mkdir(parents=True)
    scene().save(folder / "x.jpg" / "inner.png")
    for suffix in ("png", "jpg", "gif", "webp"):
        scene().save(folder / f"a.{suffix}")
    for number, (content, _) in enumerate(NO_IMAGES.values()):
        (folder / f"bad{number}.jpg").write_bytes(content)
    (folder / "lost.jpg").symlink_to("nowhere.jpg")
    (folder / "notes.txt").write_text("no photo")
    code, errors, written = paint(folder)
    names = [str(path.relative_to(tmp_path / "out")) for path in written]
    assert names == ["a.gif_m.png", "a_m.jpg", "a_m.png", "a_m.webp", "x.jpg/inner_m.png"]
    assert code == 1 and len(errors) == len(NO_IMAGES) + 1
    for path in written:
        assert_is_scene(path)


def checkpoint(**changes: object) -> bytes:
    net = TransformerNet(width=4, num_blocks=1)
    fields = {"arguments": net.arguments, "weights": net.state_dict(), **changes}
    return Checkpoint(**fields).to_bytes()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def with_nan() -> bytes:
    weights = TransformerNet(width=4, num_blocks=1).state_dict()
    weights["to_rgb.bias"][0] = float("nan")
    return checkpoint(weights=weights)


NO_MODELS = {
    "empty": b"",
    "html": b"<!doctype html>",
    "jpeg": encoded("JPEG"),
    "noise": np.random.default_rng(0).bytes(5000),
    "zip": zip_archive(),
    "git lfs": b"version https://git-lfs.github.com/spec/v1\n",
    "pickle": pickle.dumps(Evil()),
    "pickle in a torch file": saved({"weights": Evil()}),
    "half": checkpoint()[:-2000],
    "a bit less": checkpoint()[:-1],
    "tensor": saved(torch.zeros(3)),
    "number": saved(3),
    "nothing": saved({}),
    "no weights": checkpoint(weights={}),
    "not finite": with_nan(),
    "too wide": checkpoint(arguments={"width": 10**6, "num_blocks": 1}),
    "too deep": checkpoint(arguments={"width": 4, "num_blocks": 10**9}),
    "odd arguments": checkpoint(arguments={"width": "4", "num_blocks": None}),
    "unknown arguments": checkpoint(arguments={"depth": 4}),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_no_model_is_told_in_one_line(name, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene().save("photo.png")
    Path("model.pth").write_bytes(NO_MODELS[name])
    code, out, err = run(predict, "photo.png", "--model", "model.pth", *FLAGS)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and "model.pth" in err
    assert sorted(os.listdir()) == ["model.pth", "photo.png"]


def test_what_cannot_be_written_is_told_in_one_line(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene().save("photo.png")
    Image.new("RGB", (17_000, 1)).save("wide.png")
    Path("file").write_text("mine")
    Path("folder.png").mkdir()
    Path("taken.png").write_text("mine")
    Path("link.png").symlink_to("nowhere.png")
    scene().save("y" * 250 + ".png")
    for arguments, expected, what in [
        (["photo.png", "-o", "file"], 2, "-o file: file is a file"),
        (["photo.png", "-o", "file/in.png"], 1, "file: File exists"),
        (["photo.png", "-o", "file/in.png", "--resume"], 1, "file: File exists"),
        (["photo.png", "-o", "taken.png"], 1, "taken.png exists"),
        (["photo.png", "-o", "link.png"], 1, "link.png exists"),
        (["photo.png", "-o", "photo.png", "--force"], 2, "one of the inputs"),
        (["photo.png", "-o", "a.tiff.exe"], 2, "suffix must be one of"),
        (["photo.png", "-o", "z" * 300 + ".png"], 1, "File name too long"),
        (["wide.png", "-o", "wide.webp"], 1, "WEBP"),
        (["y" * 250 + ".png", "-o", "out"], 1, "File name too long"),
        (["photo.png", "-o", "/proc/x.png"], 1, "/proc/"),
    ]:
        before = contents(tmp_path)
        code, out, err = run(predict, *arguments, "--model", model, *FLAGS)
        assert (code, out) == (expected, ""), (arguments, err)
        assert len(err.splitlines()) == 1 and what in err, (arguments, err)
        assert contents(tmp_path) == before
    assert os.readlink("link.png") == "nowhere.png"


def test_a_full_disk_leaves_nothing_half_written(paint, tmp_path, monkeypatch):
    scene().save(tmp_path / "photo.png")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    code, errors, written = paint(tmp_path / "photo.png")
    assert code == 1 and written == []
    assert errors == [f"error: {tmp_path / 'out' / 'photo_m.png'}: No space left on device"]


def test_too_little_memory_for_one_photo_does_not_stop_the_others(paint, tmp_path, monkeypatch):
    def stylize_small(net, photo, **look):
        if photo.shape[-1] > 100:
            raise MemoryError("not enough memory for 200x200 px")
        return stylize(net, photo, **look)

    monkeypatch.setattr("fast.model.stylize", stylize_small)
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    scene().save(tmp_path / "b.png")
    code, errors, written = paint(tmp_path / "a.png", tmp_path / "b.png")
    assert code == 1 and [path.name for path in written] == ["b_m.png"]
    assert errors == [f"error: {tmp_path / 'a.png'}: not enough memory for 200x200 px"]


def test_ctrl_c_within_a_photo_leaves_the_finished_ones(run, model, tmp_path, monkeypatch):
    calls = []

    def interrupted(net, photo, **look):
        calls.append(photo)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stylize(net, photo, **look)

    monkeypatch.setattr("fast.model.stylize", interrupted)
    photos = [tmp_path / f"{number}.png" for number in range(5)]
    for photo in photos:
        scene().save(photo)
    out = tmp_path / "out"
    code, printed, err = run(predict, *photos, "--model", model, "-o", out, *FLAGS)
    assert code == 130
    assert printed.split() == [str(out / "0_m.png"), str(out / "1_m.png")]
    assert sorted(path.name for path in out.iterdir()) == ["0_m.png", "1_m.png"]
    for path in out.iterdir():
        assert_is_scene(path)
    assert "2 painted, 0 skipped, 0 failed" in err and err.endswith("interrupted\n")


def test_closed_streams(model, tmp_path, monkeypatch, capsys):
    scene().save(tmp_path / "a.png")
    command = ["predict.py", "--model", model, "-o", tmp_path / "b.png", *FLAGS]
    for stream, arguments, code, what in [
        ("stdin", ["-"], cli.FAILED, "standard input is closed"),
        ("stdout", [tmp_path / "a.png"], cli.OK, ""),
        ("stderr", [tmp_path / "a.png", tmp_path / "none.png", "-o", tmp_path], cli.FAILED, ""),
        ("stdout", [tmp_path / "a.png", "-o", "-"], cli.WRONG_USE, "-o - needs"),
    ]:
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr(sys, stream, None)
            patch.setattr(sys, "argv", [*map(str, command + arguments)])
            cli.run(predict.main)
        err = capsys.readouterr().err
        assert stop.value.code == code and what in err and len(err.splitlines()) <= 1
    assert_is_scene(tmp_path / "b.png")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_at_any_time_shows_no_traceback(model, tmp_path):
    import signal
    import subprocess
    import time

    for number in range(200):
        Image.new("RGB", (160, 120)).save(tmp_path / f"{number}.png")
    command = [sys.executable, predict.__file__, tmp_path, "--model", model, *FLAGS]
    for number, seconds in enumerate((0.15, 0.7, None)):  # None: after the first painting
        out = tmp_path / f"out {number}"
        with subprocess.Popen(
            [*map(str, command), "-o", out],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            if seconds is None:
                process.stdout.readline()
            else:
                time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode in (130, -signal.SIGINT), err
        assert "Traceback" not in err and "Error" not in err
        if out.exists():
            assert 1 <= len(list(out.iterdir())) < 200
            for path in out.iterdir():
                assert Image.open(path).size == (160, 120)
    assert out.exists()
