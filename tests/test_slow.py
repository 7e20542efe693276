import pytest
import torch

from media import read_image, write_image
from models import losses as losses_module
from models.losses import LossSettings
from slow import __main__ as slow_cli
from slow import stylize
from tests.conftest import SAMPLES, smooth_image

SHALLOW = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))
CONTENT, STYLE = smooth_image(32, 40), smooth_image(48, 48, seed=1)


def losses(**settings) -> list[float]:
    values = []
    stylize(CONTENT, [STYLE], loss=SHALLOW, callback=lambda it: values.append(it.loss), **settings)
    return values


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("init", ["content", "noise", STYLE])
def test_a_few_steps_lower_the_loss(optimizer, init):
    values = losses(steps=25, optimizer=optimizer, init=init)
    assert len(values) == 25
    assert min(values) < 0.5 * values[0]


def test_the_image_with_the_lowest_loss_is_returned():
    seen = []
    result = stylize(CONTENT, [STYLE], loss=SHALLOW, steps=12, callback=seen.append)
    assert result.shape == CONTENT.shape and 0 <= result.min() and result.max() <= 1
    best = min(seen, key=lambda iterate: iterate.loss)
    assert torch.equal(result, best.best)
    assert torch.equal(seen[0].best, CONTENT)  # started from the content, which is left alone


def test_same_seed_same_result():
    results = [
        stylize(CONTENT, [STYLE], loss=SHALLOW, steps=6, init="noise", seed=seed)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_divergence_returns_the_best_image_so_far(monkeypatch):
    original = losses_module.gram_matrix
    calls = []

    def explode(features):
        calls.append(features)
        return original(features) * (float("nan") if len(calls) > 2 * 4 else 1)

    # Two layers: once for the style, then once for each of three steps.
    monkeypatch.setattr(losses_module, "gram_matrix", explode)
    seen = []
    with pytest.warns(UserWarning, match="not finite at step 4"):
        result = stylize(CONTENT, [STYLE], loss=SHALLOW, steps=10, callback=seen.append)
    assert len(seen) == 3 and torch.equal(result, seen[-1].best)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"optimizer": "sgd"}, {"init": "zeros"}, {"learning_rate": -1.0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        losses(**{"steps": 1, **wrong})


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
    code, out, _ = run(
        slow_cli, *files[:2], style, *files[2:], *FEW, "--init", style, "--style-blend", "2,1"
    )
    assert code == 0 and out


def test_interrupted_command_saves_the_best_image(run, files, monkeypatch):
    def interrupt(self, number):
        raise KeyboardInterrupt

    monkeypatch.setattr(slow_cli.tqdm, "update", interrupt)
    code, out, _ = run(slow_cli, *files, *FEW)
    assert code == 130 and out == f"{files[3]}\n"
    assert files[3].exists()


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({0: "none.jpg"}, "none.jpg"),
        ({1: __file__}, "not an image"),
        ({3: "out.xyz"}, "suffix"),
        ({3: "nowhere/out.png"}, "no folder nowhere"),
        ({4: ("--content-layers", "relu7_1")}, "relu7_1"),
        ({4: ("--style-weight", "-1")}, "style_weight"),
        ({4: ("--size", "3")}, "too small"),
        ({4: ("--device", "abacus")}, "--device abacus"),
        ({4: ("--init", "none.png")}, "none.png"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run, files, changed, what):
    arguments = [*files]
    for index, value in changed.items():
        arguments[index : index + 1] = value if isinstance(value, tuple) else [value]
    code, out, err = run(slow_cli, *arguments, "--steps", 1, "--quiet")
    assert (code, out) == (2, "")
    assert what in err and len(err.splitlines()) == 1
    assert not files[3].exists()


def test_existing_files_and_inputs_are_not_overwritten(run, files):
    files[3].write_bytes(b"mine")
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "--force" in err and files[3].read_bytes() == b"mine"
    code, _, err = run(slow_cli, *files[:3], files[0], *FEW, "--force")
    assert code == 2 and "one of the inputs" in err


@pytest.mark.slow
def test_a_real_photo_gets_nearer_to_the_style():
    content = read_image(SAMPLES / "photos" / "rocket.jpg", long_side=256).rgb
    style = read_image(SAMPLES / "starry_night.jpg", long_side=256).rgb
    values = []
    stylize(content, [style], steps=60, callback=lambda iterate: values.append(iterate.style))
    assert values[-1] < 0.05 * values[0]
