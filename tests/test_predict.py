import re

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from fast import load_net, stylize
from fast.stylize import CHECKPOINTS, MARGIN, find_model
from media import read_image, write_image
from models.transformer_net import reflect
from tests.conftest import SAMPLES, smooth_image


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
    with torch.no_grad():
        whole = net(reflect(photo, *(MARGIN,) * 4)).clamp(0, 1)
    inside = whole[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    assert torch.allclose(stylize(net, photo), inside, atol=1e-4)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
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


@pytest.mark.gpu
def test_cuda_paints_like_the_cpu():
    image = smooth_image(65, 90)
    painted = [
        stylize(load_net("starry_night", device=device, precision="float32"), image).cpu()
        for device in ("cpu", "cuda")
    ]
    assert (painted[0] - painted[1]).abs().mean() < 0.01
