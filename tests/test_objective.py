import numpy as np
import pytest
import torch
from PIL import Image

from fast.training.objective import make_objective
from media import read_image, write_image
from tests.conftest import SHALLOW, smooth_image

CPU = torch.device("cpu")


def textured() -> torch.Tensor:
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    return 0.5 * smooth_image(128, 128, seed=5) + 0.5 * noise


def style_with(opacity: np.ndarray, path):
    """A style picture of which everything that is not opaque is black."""
    write_image(path, textured())
    image = Image.open(path).convert("RGB")
    image = Image.composite(image, Image.new("RGB", image.size), Image.fromarray(opacity))
    image.putalpha(Image.fromarray(opacity))
    image.save(path)
    return path


def test_transparent_parts_of_a_style_do_not_count(tmp_path):
    write_image(tmp_path / "whole.png", textured()[..., :64, :])
    whole = make_objective(read_image(tmp_path / "whole.png"), SHALLOW, device=CPU)
    opacity = np.zeros((128, 128), np.uint8)
    opacity[:64] = 255
    half = make_objective(
        read_image(style_with(opacity, tmp_path / "half.png")), SHALLOW, device=CPU
    )
    for layer, (gram,) in half.style_targets.items():
        (expected,) = whole.style_targets[layer]
        # But for the border, where the layers see some black.
        assert (gram - expected).norm() < 0.1 * expected.norm()
    for layer, energy in half.energies.items():
        assert energy.item() == pytest.approx(whole.energies[layer].item(), rel=0.05)


def test_a_style_that_cannot_be_seen_is_refused(tmp_path):
    path = style_with(np.zeros((128, 128), np.uint8), tmp_path / "none.png")
    with pytest.raises(ValueError, match="transparent all over"):
        make_objective(read_image(path), SHALLOW, device=CPU)
