import pytest
import torch

from fast.catalogue import SAMPLES
from media import read_image
from models.style import STYLE_LOSSES, _num_parts, gram_matrix
from models.vgg import VGG19Features

NAMES = tuple(STYLE_LOSSES)


def features(seed: int, *, channels: int = 6, size: int = 12) -> torch.Tensor:
    """(2, C, H, W), not negative, as after a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, size, size, generator=generator).relu()


def error(name: str, style: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    loss = STYLE_LOSSES[name]
    return loss.error_from(tuple(t.mean(0) for t in loss.statistics(style)))(loss.statistics(image))


def gaussian(std: list[float], mean: list[float]) -> torch.Tensor:
    """(1, 2, 2, 2) with these means and standard deviations, not correlated."""
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]])
    values = signs * torch.tensor(std).view(2, 1) + torch.tensor(mean).view(2, 1)
    return values.view(1, 2, 2, 2)


def test_gram_of_ones_is_one_over_channels():
    # Each entry sums H*W ones and is divided by C*H*W.
    assert torch.equal(gram_matrix(torch.ones(2, 4, 3, 5)), torch.full((2, 4, 4), 0.25))


@pytest.mark.parametrize(
    ("positions", "parts"), [(1, 1), (8191, 1), (8192, 2), (65536, 16), (28673, 1)]
)
def test_positions_are_parted_equally(positions, parts):
    assert _num_parts(positions) == parts and positions % parts == 0


def test_gram_has_the_gradient_of_its_formula():
    values = torch.randn(2, 3, 4, 5, dtype=torch.float32, requires_grad=True)
    incoming = torch.randn(2, 3, 3)  # not symmetric
    flat = values.flatten(2)
    (expected,) = torch.autograd.grad(flat @ flat.mT / 60, values, incoming)
    (result,) = torch.autograd.grad(gram_matrix(values), values, incoming)
    torch.testing.assert_close(result, expected)


def test_gram_is_not_rounded_to_the_precision_of_the_features():
    torch.manual_seed(0)
    values = torch.rand(2, 20, 30, 30).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = values.double().requires_grad_()
    values.requires_grad_()
    expected, result = gram_matrix(exact), gram_matrix(values)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected.float(), rtol=1e-5, atol=0)
    incoming = torch.randn(2, 20, 20)
    (expected_grad,) = torch.autograd.grad(expected, exact, incoming)
    (grad,) = torch.autograd.grad(result, values, incoming)
    torch.testing.assert_close(grad.double(), expected_grad, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_style_itself_has_no_error_and_another_has(name):
    style = features(1)[:1]
    assert error(name, style, style).item() == pytest.approx(0, abs=1e-5)
    assert error(name, style, features(2)).item() > 0.001


@pytest.mark.parametrize(
    ("name", "expected"), [("gram", 1), ("gram+mean+std", 3), ("wasserstein", 0.5)]
)
def test_error_of_nothing_is_known(name, expected):
    style = features(1)[:1]
    result = error(name, style, torch.zeros_like(style)).item()
    assert result == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_means_over_positions(name):
    whole = features(3)
    parts = [STYLE_LOSSES[name].statistics(part) for part in whole.split([3, 9], dim=2)]
    for together, first, second in zip(STYLE_LOSSES[name].statistics(whole), *parts, strict=True):
        torch.testing.assert_close(0.25 * first + 0.75 * second, together)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_the_value(name):
    style, image, direction = features(1), features(2), features(4) - 0.5
    moving = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(error(name, style, moving), moving)
    step = 1e-2
    change = error(name, style, image + step * direction) - error(
        name, style, image - step * direction
    )
    assert (gradient * direction).sum().item() == pytest.approx(change.item() / 2 / step, rel=0.02)


def test_wasserstein_distance_of_independent_gaussians():
    """Half of |m - m*|^2 + |s - s*|^2, relative to the style's mean square."""
    style, image = gaussian([1.0, 2.0], [0.0, 1.0]), gaussian([3.0, 1.0], [1.0, 1.0])
    expected = (1 + 4 + 1) / (1 + 4 + 1) / 2
    assert error("wasserstein", style, image).item() == pytest.approx(expected, rel=1e-3)


def test_mean_and_deviation_are_told_apart_where_gram_matrices_are_the_same():
    style, image = gaussian([1.0, 1.0], [0.0, 0.0]), gaussian([0.8, 1.0], [0.6, 0.0])
    assert error("gram", style, image).item() == pytest.approx(0, abs=1e-6)
    # The means' error is divided by the style's, which are 0 here: use the image as the style.
    assert error("gram+mean+std", image, style).item() > 0.1
    assert error("wasserstein", style, image).item() == pytest.approx((0.04 + 0.36) / 4, rel=1e-3)


def test_channels_that_are_all_zero_do_no_harm():
    style, image = features(1), features(2)
    style[:, 0], image[:, :3] = 0, 0
    for name in NAMES:
        moving = image.clone().requires_grad_(True)
        error(name, style, moving).backward()
        assert moving.grad.isfinite().all()


def test_distance_from_itself_is_0_with_fewer_positions_than_channels_and_a_single_thread():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        style = 300 * features(1, channels=512, size=2)[:1]
        assert error("wasserstein", style, style).item() == pytest.approx(0, abs=1e-3)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("pooling", ["average", "l2"])
def test_other_poolings_keep_the_size_of_the_features(pooling):
    image = read_image(SAMPLES / "photos" / "rocket.jpg", long_side=160).rgb
    layers = ("relu2_1", "relu3_1")
    expected, result = (VGG19Features(layers, pooling=p)(image) for p in ("max", pooling))
    for layer in layers:
        ratio = result[layer].square().mean() / expected[layer].square().mean()
        assert 0.6 < ratio < 1.6, layer
