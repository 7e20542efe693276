"""Keeping the photo's colours: afterwards, and by colours of the style that match them."""

import pytest
import torch

from media.colors import (
    keep_colors,
    luma,
    match_histogram,
    match_luma,
    match_mean_and_covariance,
)
from tests.conftest import smooth_image


def test_brightness_is_the_paintings_and_colour_the_photos():
    painting, photo = smooth_image(24, 20, seed=1), smooth_image(24, 20, seed=2)
    kept = keep_colors(painting, photo)
    assert torch.allclose(luma(kept), luma(painting), atol=1e-6)
    for channel in range(3):  # B - Y and R - Y are the colour differences
        assert torch.allclose(
            kept[:, channel] - luma(kept)[:, 0], photo[:, channel] - luma(photo)[:, 0], atol=1e-6
        )


def test_grey_photo_gives_a_grey_painting():
    photo = torch.full((1, 3, 8, 8), 0.25)
    kept = keep_colors(torch.rand(1, 3, 8, 8), photo)
    assert kept.std(1).max().item() == pytest.approx(0, abs=1e-6)


def muted(height: int, width: int, *, seed: int) -> torch.Tensor:
    """Colours well inside [0, 1], so that no map clamps them."""
    return 0.35 + 0.3 * smooth_image(height, width, seed=seed)


def test_brightness_gets_the_photos_mean_and_spread():
    style, photo = muted(24, 20, seed=1), muted(30, 40, seed=2)
    matched = match_luma(style, photo)
    assert matched.shape == (1, 1, 24, 20)
    assert matched.mean().item() == pytest.approx(luma(photo).mean().item(), abs=1e-5)
    assert matched.std().item() == pytest.approx(luma(photo).std().item(), abs=1e-5)
    order = luma(style).flatten().argsort()
    assert (matched.flatten()[order].diff() >= 0).all()  # what was brighter still is


def test_colours_get_the_photos_mean_and_covariance():
    style, photo = muted(40, 30, seed=1), muted(30, 50, seed=2)
    matched = match_mean_and_covariance(style, photo)
    assert matched.shape == style.shape and matched.dtype == torch.float32
    assert torch.allclose(matched.mean((0, 2, 3)), photo.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(matched[0].flatten(1).cov(), photo[0].flatten(1).cov(), atol=1e-4)


def test_a_style_with_the_photos_colours_is_left_alone():
    photo = muted(40, 30, seed=1)
    assert torch.allclose(match_mean_and_covariance(photo, photo), photo, atol=1e-5)
    assert torch.allclose(match_histogram(photo, photo), photo, atol=0.01)


def test_noise_of_a_grey_style_does_not_become_colour():
    grey = luma(smooth_image(30, 30)).expand(-1, 3, -1, -1)
    noisy = (grey + 0.002 * torch.randn(grey.shape)).clamp(0, 1)
    matched = match_mean_and_covariance(noisy, smooth_image(30, 30, seed=2))
    # Neighbours stay alike, although the photo's colours vary far more.
    assert (matched[..., 1:] - matched[..., :-1]).abs().mean() < 0.05


@pytest.mark.parametrize("match", [match_mean_and_covariance, match_histogram])
def test_flat_pictures_are_no_trouble(match):
    grey = luma(smooth_image(30, 30)).expand(-1, 3, -1, -1)
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert (match(grey, flat) - 0.25).abs().max() < 0.02
    assert match(flat, grey).isfinite().all()


def test_histograms_come_nearer_than_by_mean_and_covariance():
    style = smooth_image(60, 50, seed=1)
    photo = smooth_image(50, 60, seed=2).pow(3)  # skewed, unlike any affine map of the other

    def distance(image: torch.Tensor) -> float:
        directions = torch.nn.functional.normalize(torch.randn(3, 20), dim=0)
        values = [(x[0].flatten(1).mT @ directions).sort(0).values for x in (image, photo)]
        return (values[0] - values[1]).abs().mean().item()

    affine, full = match_mean_and_covariance(style, photo), match_histogram(style, photo)
    assert distance(full) < 0.4 * distance(affine) < 0.4 * distance(style)


def test_equal_colours_stay_equal():
    style = smooth_image(20, 30, seed=1)
    style[..., 10:] = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1)
    matched = match_histogram(style, smooth_image(20, 30, seed=2))
    assert matched[..., 10:].flatten(2).std(2).max() < 1e-5
