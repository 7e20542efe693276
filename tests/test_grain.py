"""The noise that a network gets with its photo."""

import pytest
import torch

from fast.stylize import load_net, stylize
from models.grain import PERIOD, add_grain, grain_of, make_grain
from models.plain_net import PlainNet
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image


def random_net(grain):
    torch.manual_seed(0)
    return TransformerNet(width=4, num_blocks=1, grain=grain).eval().requires_grad_(False)


def test_grain_is_noise_around_zero_in_every_channel():
    grain = make_grain(3).float()
    assert grain.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert torch.allclose(grain.std(dim=(1, 2)), torch.tensor(2.0), atol=0.01)
    assert grain.mean(dim=(1, 2)).abs().max() < 0.02
    assert grain.flatten(1).corrcoef()[0, 1:].abs().max() < 0.02


def test_grain_repeats_itself_beyond_its_period():
    grain = make_grain(3)
    whole = grain_of(grain, 0, PERIOD + 9, 2 * PERIOD)
    assert whole.shape == (3, PERIOD + 9, 2 * PERIOD)
    assert torch.equal(whole[:, PERIOD:], whole[:, :9])
    assert torch.equal(whole[..., PERIOD:], whole[..., :PERIOD])
    assert torch.equal(grain_of(grain, 7, 5, 11), whole[:, 7:12, :11])


def test_image_with_grain_stays_in_its_range_and_without_it_the_same():
    image = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3, 1).expand(2, 3, 3, 64)
    noisy = add_grain(image, make_grain(3))
    assert (noisy.min(), noisy.max()) == (0, 1)
    assert 1 / 255 < (noisy[..., 1, :] - 0.5).std() < 3 / 255
    assert add_grain(image, make_grain(0)) is image


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_photo_of_one_colour_is_painted_with_strokes(kind, level):
    photo = torch.full((1, 3, 48, 48), level, dtype=torch.uint8)
    photo = photo if kind == torch.uint8 else photo / 255
    flat, painted = (stylize(random_net(grain), photo).float() for grain in (0, 3))
    scale = 1 if kind == torch.uint8 else 255
    assert scale * flat.std(dim=(2, 3)).max() < 0.5
    assert scale * painted.std(dim=(2, 3)).min() > 1


def test_photo_of_one_colour_is_painted_alike_in_every_precision():
    photo = torch.zeros(1, 3, 96, 96)
    nets = (load_net("starry_night", device="cpu", precision=p) for p in ("float32", "bfloat16"))
    exact, rounded = (stylize(net, photo) for net in nets)
    assert 255 * (exact - rounded).abs().mean() < 4


def test_plain_network_has_the_same_grain():
    net, image = random_net(3), smooth_image(32, 40)
    painting = net(image)
    assert torch.allclose(PlainNet(net)(image), painting, atol=1e-5)
    assert (painting - random_net(0)(image)).abs().max() > 1e-3
