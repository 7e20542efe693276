import math

import pytest
import torch

from slow import optimizers
from slow.optimizers import LBFGS, Adam, make_optimizer, make_waves
from slow.settings import SlowSettings

TARGET = torch.linspace(0, 1, 3 * 6 * 8).view(1, 3, 6, 8)
STIFFNESS = torch.logspace(-2, 0, 3 * 6 * 8).view(1, 3, 6, 8)


def gradient(image):
    """Of a quadratic bowl, a hundred times steeper in some directions than in others."""
    return STIFFNESS * (image - TARGET)


def run(search, num_steps, *, factor=1.0):
    image = torch.zeros_like(TARGET)
    for _ in range(num_steps):
        search.step(image, factor * gradient(image))
    return image


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e12])
def test_lbfgs_finds_the_minimum_whatever_the_scale_of_the_loss(factor):
    """Also where a test on the change of the loss would end at once."""
    assert torch.allclose(
        run(LBFGS(learning_rate=1.0, history=20), 80, factor=factor), TARGET, atol=1e-2
    )


def test_lbfgs_goes_on_at_the_minimum_and_stays_there():
    search = LBFGS(learning_rate=1.0, history=20)
    image = run(search, 80)
    before = image.clone()
    for _ in range(50):
        search.step(image, gradient(image))
    assert image.isfinite().all() and torch.allclose(image, before, atol=1e-2)
    for _ in range(3):  # a gradient of exactly 0, and no change of it
        search.step(image, torch.zeros_like(image))
    assert image.isfinite().all()


def test_lbfgs_takes_no_step_that_leaves_the_range():
    search, image = LBFGS(learning_rate=1.0, history=20), torch.zeros_like(TARGET)
    search.step(image, torch.ones_like(image))
    search.step(image, 0.999 * torch.ones_like(image))  # nearly no curvature: the minimum seems far
    assert -0.03 < image.mean() < -0.02


def test_lbfgs_does_not_remember_a_step_of_negative_curvature():
    search, image = LBFGS(learning_rate=1.0, history=20), torch.zeros_like(TARGET)
    search.step(image, -torch.ones_like(image))
    search.step(image, -2 * torch.ones_like(image))  # downhill ever more steeply
    assert search.count == 0 and (image > 0).all()


def test_history_is_short_and_shorter_for_large_images(monkeypatch):
    search = LBFGS(learning_rate=1.0, history=7)
    run(search, 20)
    assert len(search.steps) == len(search.changes) == 7
    monkeypatch.setattr(optimizers, "LARGE", 10)
    monkeypatch.setattr(optimizers, "SHORT_HISTORY", 3)
    search = LBFGS(learning_rate=1.0, history=7)
    run(search, 20)
    assert len(search.steps) == 3


def smoothed(image):
    return optimizers.smooth(image, make_waves(*image.shape[-2:], image.device))


def test_smoothing_weights_waves_by_the_root_of_their_length():
    def wave(length):  # which goes on in its mirror image
        return torch.cos((torch.arange(64) + 0.5) * (2 * math.pi / length)).expand(1, 3, 64, 64)

    gains = [(smoothed(wave(n)) / wave(n))[..., 1].mean() for n in (4, 16)]
    assert (gains[1] / gains[0]).item() == pytest.approx(2, rel=0.03)
    noise = torch.randn(1, 3, 64, 48)
    assert 0.8 < smoothed(noise).std() / noise.std() < 1.5
    assert smoothed(torch.rand(1, 3, 7, 9)).shape == (1, 3, 7, 9)


def test_smoothing_does_not_reach_around_the_borders():
    image = torch.zeros(1, 3, 48, 80)
    image[..., 0, 0] = 1  # in a corner, it is mirrored into its three neighbours
    result = smoothed(image)
    assert result[..., -1, -1].abs().max() < 1e-3 * result.max()
    assert result[..., 0, 40].abs().max() < 0.02 * result.max()
    assert torch.equal(result[..., 0, 0], result.amax((2, 3)))


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (48, 64)])
def test_smoothing_is_symmetric_and_keeps_flat_images_flat(size):
    """As an inverse Hessian has to be; an image's mirror image is as flat as itself."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 3, *size, generator=generator, dtype=torch.float64)
    there, back = (a * smoothed(b)).sum(), (smoothed(a) * b).sum()
    assert there.item() == pytest.approx(back.item(), rel=1e-4)
    flat = smoothed(torch.ones(1, 3, *size))
    assert flat.std(correction=0) < 1e-4 * flat.mean()


def test_adam_computes_the_same_as_pytorch():
    theirs = torch.zeros_like(TARGET).requires_grad_(True)
    optimizer = torch.optim.Adam([theirs], lr=0.03, betas=Adam.BETAS, eps=1e-12)
    for _ in range(10):
        theirs.grad = gradient(theirs.detach())
        optimizer.step()
    torch.testing.assert_close(run(Adam(0.03), 10), theirs.detach())


@pytest.mark.parametrize("name", ["lbfgs", "adam"])
def test_enlarged_optimisers_step_as_far_as_before(name):
    """The loss is a mean: with four times as many pixels each has a quarter of the gradient."""

    def resize(image):
        return image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    small = make_optimizer(SlowSettings(optimizer=name))
    image = run(small, 10)
    size = {}
    for key, search, start in (
        ("small", small.enlarged(lambda x: x, 1.0), image),
        ("large", small.enlarged(resize, 4.0), resize(image)),
    ):
        moved = start.clone()
        downhill = gradient(image) if key == "small" else resize(gradient(image)) / 4
        search.step(moved, downhill)
        size[key] = (moved - start).abs().mean().item()
    assert size["large"] == pytest.approx(size["small"], rel=0.3)
