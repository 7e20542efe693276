"""Keeping the photo's colours."""

import pytest
import torch

from media.colors import keep_colors, luma
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
