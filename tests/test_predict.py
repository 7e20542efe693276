import io
import os
import re
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import fast
import predict
from fast import load_net, stylize
from fast.catalogue import CHECKPOINTS, SAMPLES, find_model
from fast.flags import split_models
from fast.grid import paint_grid
from media import Picture, as_bytes, read_image, write_image
from models.padding import reflect
from tests.conftest import NEEDS_INT8, smooth_image


@pytest.fixture
def model(tiny_model):
    return tiny_model


def test_shipped_model_paints_a_sample_photo():
    photo = read_image(SAMPLES / "photos" / "chelsea.jpg", long_side=128).rgb
    painted = stylize(load_net("starry_night", device="cpu"), photo)
    assert painted.shape == photo.shape
    assert 0 <= painted.min() and painted.max() <= 1
    # Far from the ginger cat: the painting is mostly blue.
    red, _, blue = painted.mean((0, 2, 3)).tolist()
    assert blue > red
    # Its brightness still follows the photo, so the content is there.
    pair = np.stack([photo.mean(1).flatten().numpy(), painted.mean(1).flatten().numpy()])
    assert np.corrcoef(pair)[0, 1] > 0.3


def test_shipped_models_describe_themselves():
    from models.checkpoint import read_checkpoint

    # Those of the README alone: users train their own in the same folder.
    shipped = re.findall(r"^\| `(\w+\.pth)`", (CHECKPOINTS / "README.md").read_text(), re.MULTILINE)
    assert "starry_night.pth" in shipped
    for name in shipped:
        checkpoint = read_checkpoint(CHECKPOINTS / name)
        assert (
            checkpoint.style["title"] and checkpoint.style["artist"] and checkpoint.style["licence"]
        )
        assert checkpoint.figures and not checkpoint.resume_state


def test_margin_is_painted_and_cut_off():
    net = load_net("starry_night", device="cpu", precision="float32")
    photo = smooth_image(40, 56)
    margin = net.margin
    with torch.no_grad():
        whole = net(reflect(photo, margin)).clamp(0, 1)
    inside = whole[..., margin:-margin, margin:-margin]
    assert torch.allclose(stylize(net, photo), inside, atol=1e-4)


@pytest.mark.parametrize(
    "precision", ["bfloat16", "float16", pytest.param("int8", marks=NEEDS_INT8)]
)
def test_lower_precisions_are_close_to_float32(model, precision):
    image = smooth_image(40, 52)
    exact = stylize(load_net(model, device="cpu", precision="float32"), image)
    rounded = stylize(load_net(model, device="cpu", precision=precision), image)
    assert rounded.dtype == exact.dtype
    assert (rounded - exact).abs().mean() < 0.01


@pytest.mark.parametrize(
    "name", ["starry_night", "starry_night.pth", CHECKPOINTS / "starry_night.pth"]
)
def test_models_are_found_by_name_and_by_path(name):
    assert find_model(str(name)) == CHECKPOINTS / "starry_night.pth"


def test_bundled_samples_are_painted_by_default(run, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(predict, "--model", model, "--size", 32, "--quiet")
    assert code == 0
    written = [tmp_path / line for line in out.splitlines()]
    assert [path.name for path in written] == [
        f"{photo.stem}_tiny.jpg" for photo in sorted((SAMPLES / "photos").iterdir())
    ]
    assert all(max(read_image(path).rgb.shape) == 32 for path in written)


def test_one_photo_to_one_file_keeps_size_transparency_and_metadata(run, model, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    source = Image.new("RGBA", (37, 21), (90, 120, 30, 128))
    source.save(tmp_path / "in.png", exif=exif)
    code, out, err = run(predict, tmp_path / "in.png", "--model", model, "-o", tmp_path / "out.png")
    assert (code, out, err) == (0, f"{tmp_path / 'out.png'}\n", "")
    result = Image.open(tmp_path / "out.png")
    assert result.size == (37, 21) and result.mode == "RGBA"
    assert result.getchannel("A").getextrema() == (128, 128)
    assert result.getexif()[0x010F] == "Maker"


def test_folders_keep_their_structure(run, model, photos, tmp_path):
    (photos / "sub").mkdir()
    (photos / "0.png").rename(photos / "sub" / "0.png")
    code, out, _ = run(predict, photos, "--model", model, "-o", tmp_path / "out", "--quiet")
    assert code == 0 and len(out.splitlines()) == 3
    assert (tmp_path / "out" / "sub" / "0_tiny.png").exists()


def test_existing_files_are_kept_and_the_others_painted(run, model, photos, tmp_path):
    kept = tmp_path / "out" / "1_tiny.png"
    kept.parent.mkdir()
    kept.write_bytes(b"mine")
    code, out, err = run(predict, photos, "--model", model, "-o", tmp_path / "out", "--quiet")
    assert code == 1 and "--force" in err
    assert len(out.splitlines()) == 2 and kept.read_bytes() == b"mine"
    code, out, _ = run(
        predict, photos, "--model", model, "-o", tmp_path / "out", "--force", "--quiet"
    )
    assert code == 0 and kept.read_bytes() != b"mine"


def test_a_run_that_was_cut_off_is_resumed(run, model, photos, tmp_path):
    out = tmp_path / "out"
    assert run(predict, photos / "1.png", "--model", model, "-o", out)[0] == 0
    before = (out / "1_tiny.png").stat()
    code, printed, err = run(predict, photos, "--model", model, "-o", out, "--resume")
    assert code == 0 and len(printed.splitlines()) == 2
    assert err.endswith("2 painted, 1 skipped, 0 failed\n")
    assert (out / "1_tiny.png").stat() == before
    assert "give one" in run(predict, "--model", model, "--resume", "--force")[2]


def test_missing_and_bad_inputs_are_counted_and_the_others_painted(run, model, photos, tmp_path):
    (photos / "0.png").write_bytes(b"")
    inputs = [tmp_path / "none.jpg", photos, photos / "*.webp"]
    code, out, err = run(predict, *inputs, "--model", model, "-o", tmp_path / "out")
    assert code == 1 and len(out.splitlines()) == 2
    lines = [line for line in re.split("[\r\n]+", err) if line.startswith("error")]
    assert [line.removeprefix("error: ") for line in lines] == [
        f"{inputs[0]}: no such file or folder",
        f"{inputs[2]}: no match",
        f"{photos / '0.png'} is empty",
    ]
    assert err.endswith("2 painted, 0 skipped, 3 failed\n")


def test_a_bad_photo_does_not_stop_the_others(run, model, photos, tmp_path):
    (photos / "1.png").write_bytes(b"<html>gone</html>")
    code, out, err = run(predict, photos, "--model", model, "-o", tmp_path / "out", "--quiet")
    assert code == 1 and len(out.splitlines()) == 2
    assert len(err.splitlines()) == 1 and "1.png is not an image: it holds an HTML page" in err
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_wrong_use_is_one_line_and_exit_code_2(run, model, photos, tmp_path):
    photo = photos / "0.png"
    twin = tmp_path / "0.png"
    write_image(twin, smooth_image(8, 8))
    out = tmp_path / "out"
    for arguments, what in [
        (
            (photo, "--model", "nothing"),
            "there is no model 'nothing'; in checkpoints/ there are: ",
        ),
        ((photo, "--model", photo), "PNG image"),
        ((tmp_path / "none.jpg", "--model", model), "no such file"),
        ((photos / "sub", "--model", model), "no such file"),
        ((photo, "--model", model, "-o", tmp_path / "a.xyz"), "suffix must be one of"),
        ((photos, "--model", model, "-o", tmp_path / "a.png"), "need a folder"),
        ((photo, twin, "--model", model), "several inputs would be written"),
        ((photo, "--model", model, "-o", photo, "--force"), "is one of the inputs"),
        ((photo, "--model", model, "--device", "abacus"), "--device abacus"),
    ]:
        if "-o" not in arguments:
            arguments = (*arguments, "-o", out)
        code, printed, err = run(predict, *arguments)
        assert (code, printed) == (2, ""), what
        assert what in err and len(err.splitlines()) == 1
    assert not out.exists()


def test_argparse_errors_use_the_same_code(run, model):
    for arguments in (["--size", "0", "--model", model], ["--mod", model], []):
        assert run(predict, *arguments)[0] == 2


class Pipe(io.TextIOWrapper):
    """Standard input or output that is no terminal."""

    def __init__(self, content=b""):
        super().__init__(io.BytesIO(content))


def test_standard_input_goes_to_standard_output(model, photos, monkeypatch):
    streams = Pipe((photos / "0.png").read_bytes()), Pipe()
    monkeypatch.setattr("sys.stdin", streams[0])
    monkeypatch.setattr("sys.stdout", streams[1])
    monkeypatch.setattr("sys.argv", ["predict.py", "-", "--model", str(model), "-o", "-"])
    assert predict.main() == 0
    painting = Image.open(io.BytesIO(streams[1].buffer.getvalue()))
    assert painting.format == "PNG" and painting.size == (60, 48)


def test_flags_reach_the_painting(run, model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("fast.stroke.USUAL_SIDE", 20)  # of photos of 60 px
    Image.new("L", (60, 48), 255).save(tmp_path / "mask.png")
    photo = read_image(photos / "0.png").rgb
    results = {}
    for flags in [
        ["--strength", 0],
        ["--strength", 1],
        ["--strength", 1.5],
        ["--stroke", 3],
        ["--stroke", "auto"],
        ["--preserve-color"],
        ["--mask", tmp_path / "mask.png", "--invert-mask"],
        [model, "--blend", "1,0"],
    ]:
        out = tmp_path / "out.png"
        code, _, err = run(
            predict, photos / "0.png", "-o", out, "--force", "--model", model, *flags
        )
        assert code == 0, err
        results[str(flags[0])] = read_image(out).rgb
        results[str(flags)] = read_image(out).rgb
    untouched = [results["['--strength', 0]"], results["--mask"]]
    assert all((image - photo).abs().max() < 0.01 for image in untouched)
    plain = results["['--strength', 1]"]
    assert torch.equal(results[str(model)], plain)
    assert torch.equal(results["['--stroke', 'auto']"], results["['--stroke', 3]"])
    for flag in ("['--strength', 1.5]", "['--stroke', 3]", "--preserve-color"):
        assert (results[flag] - plain).abs().mean() > 0.005
        assert (results[flag] - photo).abs().mean() > 0.005


def test_wrong_looks_are_told_before_anything_is_written(run, model, photos, tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "square.png")
    for flags, code, what in [
        (["--strength", 2], 2, "--strength 2: must be from 0 to 1.5"),
        (["--stroke", 0], 2, "--stroke 0"),
        (["--blend", "1,2"], 2, "2 parts for 1 models"),
        (["--invert-mask"], 2, "needs a --mask"),
        (["-o", tmp_path / "square.png", "--mask", tmp_path / "square.png"], 2, "would replace"),
        (["--mask", tmp_path / "none.png"], 2, "none.png: No such file"),
        (["--mask", tmp_path / "square.png"], 1, "square.png has 9x9 px, and not its"),
        (["--grid", "--blend", "1"], 2, "leave out --blend"),
    ]:
        out = tmp_path / "out"
        result = run(predict, photos / "0.png", "-o", out, "--model", model, *flags)
        assert (result[0], result[1]) == (code, ""), what
        assert what in result[2] and len(result[2].splitlines()) == 1
        assert not out.exists()


def test_a_grid_shows_all_models_and_the_list_describes_them(
    run, model, photos, tmp_path, monkeypatch
):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("first", "second", "first.step500"):
        (folder / f"{name}.pth").write_bytes(model.read_bytes())
    monkeypatch.setattr("fast.catalogue.CHECKPOINTS", folder)

    code, out, _ = run(predict, "--grid", photos / "0.png", "-o", tmp_path / "grid.png")
    assert (code, out) == (0, f"{tmp_path / 'grid.png'}\n")
    width, height = Image.open(tmp_path / "grid.png").size
    assert 3 * 480 < width < 3.2 * 480 and 384 < height < 450
    code, out, _ = run(predict, "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["model", "first", "second"]
    assert "second" not in run(predict, "--list", "first")[1]
    code, _, err = run(predict, "--list", "third")
    assert code == 2 and "there is no model 'third'" in err

    (folder / "second.pth").write_bytes(b"<html>")
    code, out, err = run(predict, "--list")
    assert code == 1 and len(out.splitlines()) == 2 and "second.pth is not a model" in err
    code, _, err = run(predict, "--grid", photos / "0.png", "-o", tmp_path / "b.png")
    assert code == 1 and "second.pth is not a model" in err
    assert Image.open(tmp_path / "b.png").width < width
    assert run(predict, "--grid", photos, "--model", "second")[0] == 2


def test_one_mask_is_read_for_photos_of_one_size(run, model, photos, tmp_path, monkeypatch):
    Image.new("L", (60, 48), 255).save(tmp_path / "mask.png")
    read = Mock(side_effect=predict.as_mask)
    monkeypatch.setattr(predict, "as_mask", read)
    arguments = ["--model", model, "-o", tmp_path / "out", "--mask", tmp_path / "mask.png"]
    assert run(predict, photos, *arguments)[0] == 0
    assert read.call_count == 1


def test_a_device_that_processes_choose_themselves_is_told():
    processes = Mock(device="cuda:0", is_main=True)
    assert predict.device_for("cuda", processes) == "cuda:0"
    for wanted in ("mps", "cuda:0"):  # the other processes have other ones
        with pytest.warns(UserWarning, match=f"--device {wanted} is not used"):
            assert predict.device_for(wanted, processes) == "cuda:0"
    assert predict.device_for("mps", Mock(device=None)) == "mps"


def test_words_after_a_model_are_models_or_photos():
    assert split_models([["a.pth", "b.pth", "x.jpg"], ["the_scream"]], ["y.jpg"]) == (
        ["a.pth", "b.pth", "the_scream"],
        ["y.jpg", "x.jpg"],
    )
    assert split_models([["odd", "starry_night", "odd"]], []) == (
        ["odd", "starry_night"],
        ["odd"],
    )


def test_two_processes_share_a_folder(model, photos, tmp_path):
    (photos / "bad.jpg").write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    (out / "0_tiny.png").write_bytes(b"mine")
    launch = "-m torch.distributed.run --nproc_per_node 2 --standalone"
    arguments = [predict.__file__, photos, "--model", model, "-o", out, "--device", "cpu"]
    result = subprocess.run(
        [*map(str, [sys.executable, *launch.split(), *arguments, "--resume"])],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 1
    assert sorted(result.stdout.split()) == [str(out / "1_tiny.png"), str(out / "2_tiny.png")]
    assert "2 painted, 1 skipped, 1 failed" in result.stderr
    assert "bad.jpg is empty" in result.stderr
    assert len(list(out.iterdir())) == 3


@pytest.mark.parametrize(("flag", "is_shown"), [("--force", True), ("--quiet", False)])
def test_a_single_photo_that_takes_long_has_a_bar_on_a_terminal(
    run, model, tmp_path, monkeypatch, flag, is_shown
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for patience, is_slow in ((0, True), (1000, False)):
        monkeypatch.setattr(predict, "PATIENCE", patience)
        photo, out = SAMPLES / "photos" / "rocket.jpg", tmp_path / f"{patience}.png"
        code, printed, err = run(
            predict, photo, "--model", model, "-o", out, "--size", 64, "--device", "cpu", flag
        )
        assert (code, printed) == (0, f"{out}\n")
        assert ("%|" in err) == (is_shown and is_slow)
        assert not err.strip() or is_slow


def test_progress_adds_up_to_one(model):
    photo = Picture(as_bytes(smooth_image(40, 50)))
    look = {"strength": 1.2, "stroke": 1, "preserve_color": False, "mask": None}
    models = [fast.load(model, device="cpu"), fast.load(model, device="cpu")]
    models[0].nets, models[0].parts = models[0].nets * 3, [0.5, 0.0, 0.5]
    shares = []
    plain = paint_grid(photo, [("", m) for m in models], **look)
    shown = paint_grid(photo, [("", m) for m in models], progress=shares.append, **look)
    assert torch.equal(plain.pixels, shown.pixels)
    assert len(shares) > 20 and sum(shares) == pytest.approx(1)
