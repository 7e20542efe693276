import pytest
import torch
from accelerate import Accelerator

from fast.training.checkerboard import checkerboard_loss
from fast.training.figures import measure
from fast.training.learner import Learner, Schedule
from fast.training.losses import BatchLosses
from fast.training.settings import TrainingSettings
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet
from tests.conftest import SHALLOW, smooth_image


def stripes(*levels: float, height: int = 64, cells: int = 20) -> torch.Tensor:
    """An image whose columns repeat these levels."""
    return torch.tensor(levels, dtype=torch.float32).repeat(cells).expand(1, 3, height, -1).clone()


@pytest.mark.parametrize(
    "levels",
    [(0, 1, 1, 0), (0, 0, 1, 1), (0, 1, 0, 1), (1, 0, 0, 0), (0, 1, 2, 3), (0,) * 4 + (1,) * 4],
)
def test_a_grid_is_as_strong_as_its_pattern_varies(levels):
    variance = torch.tensor(levels, dtype=torch.float32).var(correction=0).item()
    grid, period = 0.2 * stripes(*levels), len(levels)
    for image in (grid, grid.transpose(2, 3), grid + 0.3, -grid):
        loss = checkerboard_loss(image, period)
        assert loss.item() == pytest.approx(0.04 * variance, rel=1e-4)


@pytest.mark.parametrize("period", [4, 8])
def test_shading_and_outlines_are_none(period):
    shading = torch.linspace(0, 1, 96).expand(1, 3, 64, -1)
    line, edge = torch.zeros(2, 1, 3, 64, 64)
    line[..., 21] = 1
    edge[..., 21:] = 1
    for image in (shading, line, edge, torch.full((1, 3, 64, 64), 0.3)):
        assert checkerboard_loss(image, period).item() < 1e-8
        assert checkerboard_loss(image.transpose(2, 3), period).item() < 1e-8


def test_strokes_of_another_period_and_noise_are_next_to_none():
    torch.manual_seed(0)
    noise = torch.rand(2, 3, 256, 256)
    for image in (noise, stripes(0, 1, 1, 1, 0), stripes(0, 0, 1)):
        assert checkerboard_loss(image, 4) < 0.02 * image.var()


def test_a_faint_grid_is_found_below_strong_noise():
    torch.manual_seed(0)
    weave = 0.1 * stripes(0, 1, 1, 0, height=1024, cells=256)
    noise = torch.randn(weave.shape) * 0.2
    assert checkerboard_loss(noise + weave, 4).item() == pytest.approx(0.0025, rel=0.1)


def test_each_image_and_each_channel_counts_for_itself():
    images = torch.zeros(2, 3, 64, 64)
    images[0, 1] = stripes(0, 1, 1, 0, cells=16)[0, 0]
    # Of diagonal neighbours, one has the opposite of the other's pattern.
    turned = (torch.arange(64) // 16 % 2 * 2 - 1).view(-1, 1) * images[0, 1]
    images[1, 1] = turned - turned.mean()
    assert checkerboard_loss(images[1:], 4).item() == 0
    assert checkerboard_loss(images, 4).item() == pytest.approx(0.25 / 6)


def test_small_images_have_smaller_tiles_and_too_small_ones_no_grid():
    for side in (8, 12, 31):
        assert checkerboard_loss(stripes(0, 1, 1, 0, height=side), 4).item() == pytest.approx(0.25)
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


@pytest.fixture
def loss() -> PerceptualLoss:
    return PerceptualLoss(SHALLOW, [smooth_image(32, 32)])


def test_training_minimises_it_with_its_weight(loss):
    values, gradients = [], []
    for weight in (0.0, 1e6):
        torch.manual_seed(0)
        net = TransformerNet(width=4, num_blocks=1)
        learner = Learner(net, Schedule(0.01, 0, 10), Accelerator(cpu=True))
        settings = TrainingSettings(width=4, num_blocks=1, checkerboard=weight)
        losses = BatchLosses(learner, loss, settings)
        values.append(losses.backward(torch.rand(1, 3, 64, 64), seed=0))
        gradients.append(net.to_rgb.weight.grad)
    total, content, style, tv, checkerboard, instability = values[1].tolist()
    assert values[0][4].item() == pytest.approx(checkerboard, rel=1e-4) and checkerboard > 0
    assert total - values[0][0].item() == pytest.approx(1e6 * checkerboard, rel=1e-2)
    assert instability == 0 and min(content, style, tv) > 0
    assert not torch.allclose(*gradients, rtol=1e-3)
    with pytest.raises(ValueError, match="checkerboard must be 0 or more, not -1"):
        TrainingSettings(checkerboard=-1)


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_the_period_is_how_far_a_photo_must_move(stem_stride):
    torch.manual_seed(0)
    net = TransformerNet(width=4, num_blocks=1, grain=0, stem_stride=stem_stride)
    assert net.period == 4 * stem_stride
    photo = torch.rand(1, 3, 256, 256)
    middle = slice(120, 136)
    with torch.no_grad():
        painting = net(photo)[..., middle, middle]
        for shift in (net.period, net.period // 2):
            # All around, so that the statistics stay the same, but for those near the border.
            moved = net(photo.roll(shift, 3)).roll(-shift, 3)[..., middle, middle]
            error = (moved - painting).std() / painting.std()
            assert (error < 0.1) == (shift == net.period), error


def test_a_figure_tells_its_deviation_in_grey_levels(loss, monkeypatch):
    grid = stripes(0.4, 0.6, 0.6, 0.4, cells=16)
    monkeypatch.setattr("fast.training.figures.stylize", lambda net, image: grid)
    figures = measure(TransformerNet(width=4, num_blocks=1), loss, smooth_image(64, 64))
    assert figures.checkerboard == pytest.approx(25.5, rel=1e-3)


@pytest.mark.gpu
def test_a_gpu_computes_the_same():
    painting = smooth_image(64, 80) + 0.1 * stripes(0, 1, 1, 0)
    losses, gradients = [], []
    for device in ("cpu", "cuda"):
        image = painting.detach().to(device).requires_grad_()
        loss = checkerboard_loss(image, 4)
        loss.backward()
        losses.append(loss.item())
        gradients.append(image.grad.cpu())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-9)
