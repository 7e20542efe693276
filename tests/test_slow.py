import copy
import dataclasses
import itertools
import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

from fast.catalogue import SAMPLES
from media import read_image, write_image
from media.colors import luma
from models.loss_settings import LossSettings
from slow import PRESETS, SlowSettings, stylize
from slow import __main__ as slow_cli
from slow.job import TINY
from slow.settings import scales
from slow.start import drop_thin_scales, resize_long_side
from tests.conftest import smooth_image, whole_image

SHALLOW = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))
CONTENT, STYLE = smooth_image(32, 40), smooth_image(48, 48, seed=1)


def run_slow(callback=None, *, image=None, resume=None, objective=whole_image, **settings):
    settings = SlowSettings(
        **{"size": 40, "min_size": 0, "steps": 25, "init": "content", **settings}
    )
    return stylize(
        CONTENT,
        [STYLE],
        settings,
        SHALLOW,
        init=image,
        resume=resume,
        objective=objective,
        callback=callback,
    )


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("start", [{"init": "content"}, {"init": "noise"}, {"image": STYLE}])
def test_a_few_steps_lower_the_loss(optimizer, start):
    seen = []
    run_slow(seen.append, optimizer=optimizer, **start)
    values = [iterate.loss for iterate in seen]
    assert len(values) == 25
    assert min(values) < 0.5 * values[0]


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_the_image_with_the_lowest_loss_is_returned(averaging):
    losses, images = [], []

    def recording(loss, content):
        evaluate = whole_image(loss, content)

        def record(image):
            terms = evaluate(image)
            images.append(image.detach().clone())
            losses.append(terms.total.item())
            return terms

        return record

    result = run_slow(objective=recording, optimizer="adam", averaging=averaging, steps=12)
    assert result.shape == CONTENT.shape and 0 <= result.min() and result.max() <= 1
    assert torch.equal(result, images[losses.index(min(losses))].clamp(0, 1))
    assert torch.equal(images[0], CONTENT)  # started from the content, which is left alone


def test_from_coarse_to_fine():
    seen = []
    result = run_slow(seen.append, size=64, min_size=20, scale_factor=2, steps=30)
    assert result.shape == (1, 3, 51, 64)
    assert [(i.step, i.size) for i in seen[::29]] == [(1, (16, 20)), (30, (51, 64))]


def test_scales_grow_by_at_most_the_factor_and_share_the_steps():
    settings = SlowSettings(size=512, min_size=100, scale_factor=2, steps=150, decay=0.5)
    assert [s.size for s in scales(settings)][-1] == 512
    for smaller, larger in itertools.pairwise(scales(settings)):
        assert 1 < larger.size / smaller.size < 2.02
        assert larger.steps == pytest.approx(smaller.steps / 2, rel=0.1)
    for steps in (1, 2, 3, 17):
        rounds = scales(dataclasses.replace(settings, steps=steps))
        assert sum(s.steps for s in rounds) == steps and min(s.steps for s in rounds) >= 1
    assert [s.size for s in scales(dataclasses.replace(settings, min_size=0))] == [512]


def test_same_seed_same_result():
    results = [run_slow(init="noise", seed=seed, steps=6) for seed in (3, 3, 4)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("stop", [5, 12, 13, 24])
def test_a_resumed_run_ends_at_the_same_image(optimizer, stop):
    settings = {"optimizer": optimizer, "averaging": 0.9, "min_size": 20, "steps": 24}
    states = []

    def save(iterate):
        if iterate.step == stop:
            states.append(copy.deepcopy(iterate.state.state_dict()))

    expected = run_slow(save, **settings)
    assert torch.equal(run_slow(resume=states[0], **settings), expected)


@pytest.mark.parametrize("init", ["content", "noise", "style", STYLE])
def test_luminance_paints_the_brightness_and_keeps_the_contents_colours(init):
    seen = []
    start = {"image": init} if isinstance(init, torch.Tensor) else {"init": init}
    settings = {"colors": "luminance", "size": 32, "min_size": 20}
    result = run_slow(seen.append, **settings, **start)
    assert result.shape == (1, 3, 26, 32) and seen[0].state.image.shape[1] == 1
    assert seen[0].best.shape == (1, 3, 16, 20) and torch.equal(seen[-1].best, result)
    photo = resize_long_side(CONTENT, 32)
    inside = ((result > 0) & (result < 1)).all(1, keepdim=True)  # not clamped
    assert inside.float().mean() > 0.5
    kept = (result - luma(result) - photo + luma(photo)) * inside
    assert kept.abs().max() < 1e-5
    assert (luma(result) - luma(photo)).abs().mean() > 0.02


@pytest.mark.parametrize("colors", ["match", "histogram"])
def test_matched_colours_are_nearer_to_the_contents(colors):
    content_mean = CONTENT.mean((2, 3))
    plain, matched = (run_slow(colors=c).mean((2, 3)) for c in ("style", colors))
    assert (matched - content_mean).abs().sum() < 0.5 * (plain - content_mean).abs().sum()


def test_errors_by_layer_make_up_the_terms():
    seen = []
    run_slow(seen.append, steps=1)
    assert list(seen[0].style_errors) == list(SHALLOW.style_layers)
    assert seen[0].content == pytest.approx(seen[0].content_errors["relu2_1"])
    assert seen[0].style == pytest.approx(sum(seen[0].style_errors.values()) / 2)


def test_a_scale_that_diverges_at_once_gives_the_smaller_one_enlarged():
    def exploding(loss, content):
        evaluate = whole_image(loss, content)

        def explode(image):
            terms = evaluate(image)
            if image.shape[-1] < 40:
                return terms
            return dataclasses.replace(terms, total=terms.total * math.nan)

        return explode

    seen = []
    with pytest.warns(UserWarning, match="not finite"):
        result = run_slow(seen.append, objective=exploding, min_size=20, scale_factor=2)
    assert result.shape == CONTENT.shape
    assert (resize_long_side(result, 20) - seen[-1].best).abs().mean() < 0.05


def test_a_larger_scale_begins_with_the_contents_detail():
    seen = []
    settings = SlowSettings(size=40, min_size=20, scale_factor=2, steps=2, init="content")
    only_content = dataclasses.replace(SHALLOW, style_weight=0.0)
    stylize(CONTENT, [STYLE], settings, only_content, callback=seen.append)
    assert [iterate.size for iterate in seen] == [(16, 20), (32, 40)]
    assert seen[-1].loss < 1e-6  # nothing but the content image


def test_divergence_returns_the_best_image_so_far():
    calls = []

    def exploding(loss, content):
        evaluate = whole_image(loss, content)

        def explode(image):
            calls.append(image)
            terms = evaluate(image)
            if len(calls) < 4:
                return terms
            return dataclasses.replace(terms, total=terms.total * math.nan)

        return explode

    seen = []
    with pytest.warns(UserWarning, match="not finite at step 4"):
        result = run_slow(seen.append, objective=exploding)
    assert len(seen) == 3 and torch.equal(result, seen[-1].best)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"size": 0},
        {"optimizer": "sgd"},
        {"init": "zeros"},
        {"learning_rate": -1.0},
        {"averaging": 1.0},
        {"colors": "sepia"},
        {"scale_factor": 1.0},
        {"decay": math.nan},
        {"seed": -1},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        run_slow(**{"steps": 1, **wrong})


@pytest.fixture
def files(tmp_path):
    for name, image in (("content.png", CONTENT), ("style.png", STYLE)):
        write_image(tmp_path / name, image)
    return tmp_path / "content.png", tmp_path / "style.png", "-o", tmp_path / "out.png"


FEW = (
    "--steps",
    3,
    "--size",
    40,
    "--content-layers",
    "relu2_1",
    "--style-layers",
    "relu1_1,relu2_1",
)


def test_command_prints_the_path_and_nothing_else_on_stdout(run, files):
    code, out, err = run(slow_cli, *files, *FEW)
    assert (code, out) == (0, f"{files[3]}\n")
    assert "3/3" in err
    assert read_image(files[3]).rgb.shape == (1, 3, 32, 40)


def test_command_takes_several_styles_and_an_image_to_start_from(run, files):
    style = files[1]
    paintings = []
    for flags in [], ["--init", style], ["--style-blend", "2,1"]:
        code, _, _ = run(slow_cli, *files[:2], style, *files[2:], *FEW, *flags, "--force")
        assert code == 0
        paintings.append(read_image(files[3]).rgb)
    assert not torch.equal(paintings[0], paintings[1])


def test_scales_at_which_a_picture_is_too_thin_are_left_out():
    settings, loss = SlowSettings(size=512), LossSettings(style_layers=("relu5_1",))
    square, panorama = torch.zeros(1, 3, 400, 400), torch.zeros(1, 3, 100, 512)
    assert drop_thin_scales(settings, loss, (square, square)) == settings
    for images in ((panorama, square), (square, panorama)):
        smallest = scales(drop_thin_scales(settings, loss, images))[0].size
        assert min(resize_long_side(panorama, smallest).shape[-2:]) >= 16 and smallest < 100
    one_scale = dataclasses.replace(settings, min_size=0)
    assert drop_thin_scales(one_scale, loss, (panorama, square)) == one_scale


def test_interrupted_command_saves_the_best_image(run, files, monkeypatch):
    def interrupt(self, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(slow_cli.tqdm, "update", interrupt)
    code, out, err = run(slow_cli, *files, *FEW)
    assert err.endswith("interrupted\n")
    assert code == 130 and out == f"{files[3]}\n"
    assert files[3].exists()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({0: "none.jpg"}, "none.jpg"),
        ({0: "strip.png"}, "strip.png is too small: 9 px"),
        ({0: "dot.png"}, "dot.png is too small to be painted: 1x1 px"),
        ({1: __file__}, "not an image"),
        ({1: "cut.png"}, "cut.png cannot be decoded"),
        ({1: "dot.png"}, "--style-scale"),
        ({1: "bomb.png"}, "bomb.png has, or is to be scaled to, more pixels than are safe"),
        ({3: "out.xyz"}, "suffix"),
        ({3: "nowhere/out.png"}, "-o nowhere/out.png: there is no folder nowhere"),
        ({3: "out.jpg", 4: ("--depth", "16")}, "out.jpg' with 16 bits"),
        ({3: "out.webp", 4: ("--size", "17000")}, "out.webp' with 17000 px a side"),
        ({3: "content.png"}, "-o content.png is one of the inputs"),
        ({4: ("--content-layers", "relu7_1")}, "--content-layers has an unknown layer 'relu7_1'"),
        ({4: ("--style-layers", ",")}, "--style-layers needs at least one layer"),
        ({4: ("--style-weight", "-1")}, "--style-weight must be 0 or more"),
        ({4: ("--style-weight", "0", "--content-weight", "0")}, "--content-weight and --style-w"),
        ({4: ("--style-layer-weights", "1,2")}, "--style-layer-weights has 2 values"),
        ({4: ("--style-blend", "0")}, "--style-blend 0.0 is not a weight"),
        ({4: ("--style-blend", "1,2")}, "--style-blend 1.0,2.0 is not a weight"),
        ({4: ("--strength", "2")}, "--strength must be between 0 and 1"),
        ({4: ("--size", "3")}, "--size"),
        ({4: ("--size", "0")}, "--size must be 1 or more"),
        ({4: ("--size", "1000000")}, "more pixels than are safe"),
        ({4: ("--optimizer", "sgd")}, "unknown --optimizer 'sgd'"),
        ({4: ("--colors", "sepia")}, "unknown --colors 'sepia'"),
        ({4: ("--device", "abacus")}, "--device abacus"),
        ({4: ("--init", "none.png")}, "--init none.png is no file"),
        ({4: ("--init", "none.pth")}, "no model 'none.pth'"),
        ({4: ("--pooling", "min")}, "pooling"),
        ({4: ("--preview", "a.xyz")}, "a.xyz"),
        ({4: ("--preview", "style.png")}, "--preview style.png is an input"),
        ({4: ("--preview", "nowhere/a.png")}, "--preview nowhere/a.png"),
        ({4: ("--from", "content.png")}, "content.png holds no recipe"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run, files, changed, what, monkeypatch):
    folder = files[0].parent
    monkeypatch.chdir(folder)
    write_image("dot.png", smooth_image(1, 1))
    write_image("strip.png", smooth_image(TINY, 60 * TINY))
    Path("cut.png").write_bytes(files[0].read_bytes()[:-60])
    if "bomb.png" in changed.values():
        Image.new("1", (20_000, 20_000)).save("bomb.png")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = [*files]
    for index, value in sorted(changed.items()):
        arguments[index : index + 1] = value if isinstance(value, tuple) else [value]
    code, out, err = run(slow_cli, *arguments, "--steps", 1, "--quiet")
    assert (code, out) == (2, "")
    assert what in err and len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("flag", [("--depth", "12"), ("--save-every", "-1"), ("--steps", "many")])
def test_wrong_values_are_refused_by_their_flag(run, files, flag):
    code, out, err = run(slow_cli, *files, *flag)
    assert (code, out) == (2, "") and flag[0] in err.splitlines()[-1]


def test_a_folder_that_is_write_protected_is_told_before_the_run(run, files, monkeypatch):
    monkeypatch.setattr("cli.TemporaryFile", Mock(side_effect=PermissionError))
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "no file can be written there" in err and "%" not in err


def test_existing_files_and_inputs_are_not_overwritten(run, files):
    files[3].write_bytes(b"mine")
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "--force" in err and files[3].read_bytes() == b"mine"
    code, _, err = run(slow_cli, *files[:3], files[0], *FEW, "--force")
    assert code == 2 and "one of the inputs" in err


def test_presets_can_be_shown_and_changed(run):
    code, out, _ = run(slow_cli, "--preset", "gatys", "--steps", 7, "--show-settings")
    shown = dict(line.split("=") for line in out.splitlines())
    assert code == 0
    assert shown["--init"] == "noise" and shown["--steps"] == "7"
    assert shown["--style-layers"] == "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1"
    settings, loss = PRESETS["gatys"]
    assert len(scales(settings)) == 1 and settings.steps >= 300
    assert loss.content_layers == ("relu4_2",)
    assert (loss.pooling, loss.style_loss) == ("average", "gram")


@pytest.mark.parametrize("value", [["bogus"], []])
def test_a_wrong_preset_is_told_by_the_parser_that_knows_all_flags(run, value):
    code, out, err = run(slow_cli, "--preset", *value)
    assert (code, out) == (2, "") and "usage: " in err and "[CONTENT]" in err
    assert "argument --preset" in err


def test_a_recipe_and_a_preset_exclude_each_other(run, files):
    run(slow_cli, *files, *FEW)
    for preset in PRESETS:
        code, _, err = run(slow_cli, "--from", files[3], "--preset", preset, "--show-settings")
        assert code == 2 and "--from and --preset cannot be given together" in err


def test_command_starts_from_a_trained_style(run, files):
    run(slow_cli, *files, *FEW)
    usual = read_image(files[3]).rgb
    code, _, _ = run(slow_cli, *files, *FEW, "--init", "starry_night.pth", "--force")
    assert code == 0 and not torch.equal(read_image(files[3]).rgb, usual)


@pytest.mark.slow
def test_a_real_photo_gets_nearer_to_the_style():
    content = read_image(SAMPLES / "photos" / "rocket.jpg", long_side=256).rgb
    style = read_image(SAMPLES / "starry_night.jpg", long_side=256).rgb
    values = []
    stylize(
        content,
        [style],
        SlowSettings(size=256, min_size=0, steps=60),
        LossSettings(),
        callback=lambda iterate: values.append(iterate.style),
    )
    assert values[-1] < 0.05 * values[0]
