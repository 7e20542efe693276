import json
import math
from itertools import islice

import pytest
import torch

from fast import evaluate as cli_module
from fast.training.figures import Descent, descents, instability, iterations_to_reach, measure
from fast.training.job import train
from fast.training.photos import find_photos, read_photos
from fast.training.settings import TrainingSettings
from media import claimed, write_image
from models.checkpoint import read_checkpoint
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet
from tests.conftest import SHALLOW, smooth_image


@pytest.fixture
def copier(monkeypatch):
    """A network that only copies its input."""
    net = TransformerNet(width=1, num_blocks=1)
    net.forward = lambda image: image
    monkeypatch.setattr("fast.training.figures.stylize", lambda net, image: image)
    return net


@pytest.fixture
def loss():
    return PerceptualLoss(SHALLOW, [smooth_image(40, 40, seed=5)])


def test_the_photo_itself_has_no_content_loss_and_takes_no_iterations(copier, loss):
    image = smooth_image(32, 48)
    figures = cli_module.compare(measure(copier, loss, image), descents(loss, image), limit=3)
    assert figures.content == 0 and figures.total == pytest.approx(10 * figures.style)
    assert figures.from_content == 0
    assert figures.from_noise > 0


def test_iterations_count_until_the_loss_is_reached(loss):
    content = smooth_image(32, 32)
    losses = list(islice(Descent(loss, content, content), 20))
    with torch.no_grad():
        assert losses[0] == loss(content, loss.content_targets(content)).total.item()
    for number in (1, 10, 19):
        lowest = min(losses[: number + 1])
        assert iterations_to_reach(lowest, losses) == losses.index(lowest)
    assert 0 < iterations_to_reach(0.7 * losses[0], losses) < math.inf
    assert iterations_to_reach(0.0, losses) == math.inf


def test_a_descent_goes_on_where_it_was_left(loss):
    content = smooth_image(32, 32)
    descent = Descent(loss, content, content)
    first, longer = list(islice(descent, 3)), list(islice(descent, 6))
    assert longer[:3] == first and longer == list(islice(Descent(loss, content, content), 6))


def test_instability_is_that_of_the_noise_for_a_network_that_only_copies(copier):
    grey = torch.full((1, 3, 64, 64), 0.5)
    # The mean of |x| for a normal x of deviation 2 is 2 * sqrt(2 / pi).
    assert instability(copier, grey) == pytest.approx(2 * math.sqrt(2 / math.pi), rel=0.05)


@pytest.mark.filterwarnings("ignore:photo left out")
def test_unreadable_and_thin_photos_are_left_out_of_the_count(photos):
    (photos / "0.png").write_bytes(b"broken")
    write_image(photos / "1.png", smooth_image(3, 300))
    with pytest.warns(UserWarning, match="0.png is not an image") as caught:
        ((name, _),) = read_photos(find_photos(photos), 100, count=1)
    assert name == "2.png"
    assert any("1.png is too thin: 100x1 px" in str(warning.message) for warning in caught)


def test_command_prints_a_table_and_writes_figures(run, tmp_path, photos):
    from accelerate import Accelerator

    write_image(tmp_path / "style.png", smooth_image(48, 48, seed=7))
    settings = TrainingSettings(
        steps=1, batch_size=1, image_size=32, style_size=48, width=4, num_blocks=1
    )
    model = tmp_path / "model.pth"
    train(
        tmp_path / "style.png",
        photos,
        model,
        settings=settings,
        loss=SHALLOW,
        accelerator=Accelerator(cpu=True),
    )
    twin = tmp_path / "twin.pth"
    twin.write_bytes(model.read_bytes())
    arguments = [
        "--model",
        model,
        "--model",
        twin,
        "--data",
        photos,
        "--size",
        "40",
        "--max-iterations",
        "2",
    ]
    arguments += ["--write"]
    arguments += ["--style", tmp_path / "style.png", "--json", tmp_path / "figures.json"]
    code, out, _ = run(cli_module, *arguments)
    assert code == 0 and f"| {model} | 0.png |" in out and out.count("median") == 2
    reports = json.loads((tmp_path / "figures.json").read_text())
    report = reports[str(model)]
    assert report["total"] == reports[str(twin)]["total"]
    assert len(report["each"]) == report["photos"] == 3
    assert read_checkpoint(model).figures["total"] == report["total"]

    link = tmp_path / "link.pth"
    link.symlink_to(model)
    on_link = ["--model", link, *arguments[4:-1], tmp_path / "other.json"]
    with claimed(model):  # as a training does
        code, _, err = run(cli_module, *on_link)
    assert code == 2 and "another run is writing it" in err
    assert run(cli_module, *on_link)[0] == 0 and link.is_symlink()

    code, _, err = run(cli_module, *arguments)
    assert code == 2 and "--json" in err and "--force" in err
    arguments.append("--force")
    write_image(tmp_path / "style.png", smooth_image(48, 48, seed=8))
    code, _, err = run(cli_module, *arguments)
    assert code == 2 and "not the picture" in err
