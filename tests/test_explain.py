"""Looking inside: the pictures, and the command that writes them all."""

import re

import pytest
import torch

from media import read_image, write_image
from models.loss_settings import LossSettings
from models.style import gram_matrix
from slow import stylize
from slow.explain import __main__ as explain_cli
from slow.explain.feature_pictures import GAP, feature_picture, gram_picture, in_false_colors
from slow.explain.inside import content_reconstruction, style_reconstruction
from slow.settings import SlowSettings
from tests.conftest import smooth_image

FEW = ["--size", 32, "--steps", 5, "--layers", "relu1_1,relu2_1"]


def test_colours_grow_brighter_evenly():
    brightness = in_false_colors(torch.linspace(0, 1, 101).view(1, -1)).mean(1).flatten()
    assert (brightness.diff() > 0).all() and brightness[0] < 0.1 and brightness[-1] > 0.9


def test_feature_maps_stand_in_rows_of_eight_on_white():
    picture = feature_picture(torch.rand(1, 10, 5, 7), tile=7)
    assert picture.shape == (1, 3, 2 * (5 + GAP) + GAP, 8 * (7 + GAP) + GAP)
    assert (picture[..., :GAP, :] == 1).all() and (picture[..., -5 - GAP :, -7 - GAP :] == 1).all()


def test_strongest_feature_maps_come_first():
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 1, :2] = 5.0
    maps[0, 2, :, :2] = 3.0
    picture = feature_picture(maps, num_maps=2, tile=8)
    assert picture.shape == (1, 3, 8 + 2 * GAP, 2 * (8 + GAP) + GAP)
    first, second = picture[..., GAP:-GAP, GAP : GAP + 8], picture[..., GAP:-GAP, -GAP - 8 : -GAP]
    assert first[..., 0, :].mean() > 0.9 > 0.1 > first[..., -1, :].mean()
    assert second[..., 0].mean() > 0.9 > 0.1 > second[..., -1].mean()


def test_gram_matrices_share_channels_and_scale():
    features = torch.rand(1, 6, 9, 9)
    gram = gram_matrix(features)[0]
    picture = gram_picture([gram / 10, gram], num_channels=4, tile=8)
    assert picture.shape == (1, 3, 8 + 2 * GAP, 2 * (8 + GAP) + GAP)
    left, right = picture[..., GAP : GAP + 8], picture[..., GAP + 8 + GAP : -GAP]
    assert left.mean() < right.mean()
    corner = right[0, :, GAP, 0]  # the strongest channel with itself
    assert corner.mean() > 0.9


@pytest.mark.parametrize("losses", [content_reconstruction, style_reconstruction])
def test_only_one_term_is_left(losses):
    layers = "relu2_1" if losses is content_reconstruction else ("relu1_1", "relu2_1")
    loss = losses(LossSettings(tv_weight=3.0), layers)
    weights = [loss.content_weight, loss.style_weight, loss.tv_weight]
    assert [weight > 0 for weight in weights] == [
        losses is content_reconstruction,
        losses is style_reconstruction,
        False,
    ]


def test_noise_becomes_the_photo_by_its_shallow_features():
    photo = smooth_image(24, 32)
    settings = SlowSettings(size=32, min_size=0, steps=40, init="noise")
    result = stylize(photo, [photo], settings, content_reconstruction(LossSettings(), "relu1_1"))
    assert (
        (result - photo).abs().mean() < 0.12 < 0.25 < (torch.rand_like(photo) - photo).abs().mean()
    )


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "photo.png", smooth_image(24, 32))
    write_image(tmp_path / "style.png", smooth_image(32, 32, seed=1))
    return tmp_path / "photo.png", tmp_path / "style.png", "-o", tmp_path / "inside"


def test_command_writes_every_picture_with_a_caption(run, files):
    code, out, err = run(explain_cli, *files, *FEW)
    folder = files[3]
    kinds = ("content", "features", "gram", "style")
    expected = {f"{kind}_{layer}.png" for kind in kinds for layer in ("relu1_1", "relu2_1")}
    expected |= {"photo.png", "style.png", "painted.png", "optimisation.gif"}
    expected |= {"losses_content.png", "losses_style.png"}
    assert code == 0 and "25/25" in err
    assert {path.name for path in folder.iterdir()} == expected | {"captions.md"}
    assert sorted(out.split()) == sorted(str(folder / name) for name in expected)
    captions = (folder / "captions.md").read_text()
    assert set(re.findall(r"!\[.*?\]\((.*?)\)", captions)) == expected
    assert read_image(folder / "content_relu1_1.png").rgb.shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--size", 16), "photo.png is too small: 12 px"),
        (("--device", "abacus"), "--device abacus"),
    ],
)
def test_nothing_is_written_before_all_is_checked(run, files, flags, what):
    code, _, err = run(explain_cli, *files, "--steps", 1, *flags)
    assert code == 2 and what in err and len(err.splitlines()) == 1
    assert not files[3].exists()


def test_wrong_use_is_one_line(run, files):
    code, _, err = run(explain_cli, *files, "--layers", "relu9_9")
    assert code == 2 and "--layers has an unknown layer 'relu9_9'" in err
    files[3].mkdir()
    (files[3] / "mine.txt").write_text("")
    code, _, err = run(explain_cli, *files, *FEW)
    assert code == 2 and "--force" in err and len(err.splitlines()) == 1
    for output, what in ((files[0].parent, "the folder of an input"), (files[0], "is a file")):
        code, _, err = run(explain_cli, *files[:3], output, *FEW, "--force")
        assert code == 2 and what in err and len(err.splitlines()) == 1
