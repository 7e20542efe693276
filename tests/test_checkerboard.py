import pytest
import torch

from fast.training.checkerboard import checkerboard_loss


def stripes(*levels: float, height: int = 64, cells: int = 20) -> torch.Tensor:
    """An image whose columns repeat these levels."""
    return torch.tensor(levels, dtype=torch.float32).repeat(cells).expand(1, 3, height, -1).clone()


def test_a_grid_is_as_strong_as_its_pattern_varies():
    assert checkerboard_loss(stripes(0, 1, 1, 0), 4).item() == pytest.approx(0.25)
    down = stripes(0, 0.2, 0.2, 0).transpose(2, 3)
    assert checkerboard_loss(down, 4).item() == pytest.approx(0.04 * 0.25)
    assert checkerboard_loss(stripes(0, 0, 1, 1, 1, 1, 0, 0), 8).item() == pytest.approx(0.25)


@pytest.mark.parametrize("period", [4, 8])
def test_even_shading_is_none(period):
    shading = torch.linspace(0, 1, 80).expand(1, 3, 64, -1)
    for image in (shading, shading.transpose(2, 3), torch.full((1, 3, 64, 64), 0.3)):
        assert checkerboard_loss(image, period).item() < 1e-9


def test_strokes_of_another_period_and_noise_are_none():
    torch.manual_seed(0)
    noise = torch.rand(2, 3, 128, 128)
    assert checkerboard_loss(noise, 4) < 0.01 * noise.var()
    other = stripes(0, 1, 1, 1, 0)
    assert checkerboard_loss(other, 4) < 0.01 * other.var()


def test_a_faint_grid_is_found_below_strong_noise():
    torch.manual_seed(0)
    weave = 0.1 * stripes(0, 1, 1, 0, height=1024, cells=256)
    noise = torch.randn(weave.shape) * 0.2
    assert checkerboard_loss(noise + weave, 4).item() == pytest.approx(0.0025, rel=0.2)


def test_windows_without_a_grid_do_not_make_up_for_those_with_one():
    half = stripes(0, 1, 1, 0, height=32, cells=8)
    other = stripes(0, 1, 1, 1, 0, height=32, cells=7)[..., :32]
    both = checkerboard_loss(torch.cat([half, other], 3), 4)
    assert both.item() >= 0.125 - 1e-6


def test_an_image_of_less_than_two_cells_has_none():
    assert checkerboard_loss(stripes(0, 1, 1, 0, height=7), 4).item() == 0


def test_descent_takes_the_grid_away_and_leaves_the_strokes():
    torch.manual_seed(0)
    strokes = torch.rand(1, 3, 64, 80)
    image = (strokes + stripes(0, 0.3, 0.3, 0)).requires_grad_()
    start = checkerboard_loss(image, 4).item()
    optimizer = torch.optim.Adam([image], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = checkerboard_loss(image, 4)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * start
    assert (image - strokes).std() < 0.3 * strokes.std()
