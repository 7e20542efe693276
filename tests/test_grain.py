"""The noise that a network gets with its photo."""

import pytest
import torch

from fast.stylize import load_net, stylize
from models.checkpoint import Checkpoint
from models.grain import PERIOD, add_grain, make_noise, repeated
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet
from tests.conftest import NEEDS_INT8, smooth_image


def random_net(grain):
    torch.manual_seed(0)
    return TransformerNet(width=4, num_blocks=1, grain=grain).eval().requires_grad_(False)


def test_grain_is_noise_around_zero_in_every_channel():
    noise = make_noise(3).float()
    assert noise.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.allclose(noise.std(dim=(1, 2)), torch.tensor(2.0), atol=0.01)
    assert noise.mean(dim=(1, 2)).abs().max() < 0.02
    assert noise.flatten(1).corrcoef()[0, 1:].abs().max() < 0.02


def test_noise_repeats_itself_beyond_its_period():
    noise = make_noise(3)
    assert torch.equal(repeated(noise, 1, PERIOD - 2, 5), noise[:, [-2, -1, 0, 1, 2]])
    assert torch.equal(repeated(noise, 2, 0, 2 * PERIOD), torch.cat((noise, noise), dim=2))


def test_image_with_grain_stays_in_its_range_and_without_it_the_same():
    image = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3, 1).expand(2, 3, 3, 64)
    noisy = add_grain(image, make_noise(3))
    assert (noisy.min(), noisy.max()) == (0, 1)
    assert 1 / 255 < (noisy[..., 1, :] - 0.5).std() < 3 / 255
    assert add_grain(image, make_noise(0)) is image


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_photo_of_one_colour_is_painted_with_strokes(kind, level):
    photo = torch.full((1, 3, 48, 48), level, dtype=torch.uint8)
    photo = photo if kind == torch.uint8 else photo / 255
    flat, painted = (stylize(random_net(grain), photo).float() for grain in (0, 3))
    scale = 1 if kind == torch.uint8 else 255
    assert scale * flat.std(dim=(2, 3)).max() < 0.5
    assert scale * painted.std(dim=(2, 3)).min() > 1


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=NEEDS_INT8)])
def test_photo_of_one_colour_is_painted_alike_in_every_precision(precision):
    photo = torch.zeros(1, 3, 96, 96)
    nets = (load_net("starry_night", device="cpu", precision=p) for p in ("float32", precision))
    exact, rounded = (stylize(net, photo) for net in nets)
    assert 255 * (exact - rounded).abs().mean() < 2


def test_checkpoints_from_before_grain_have_none():
    net = random_net(0)
    arguments = {name: value for name, value in net.arguments.items() if name != "grain"}
    assert Checkpoint(arguments=arguments, weights=net.state_dict()).build().noise is None


def test_plain_network_has_the_same_grain():
    net, image = random_net(3), smooth_image(32, 40)
    painting = net(image)
    assert torch.allclose(PlainNet(net)(image), painting, atol=1e-5)
    assert (painting - random_net(0)(image)).abs().max() > 1e-3
