"""Guided statistics, and styles in regions."""

import pytest
import torch

from models.loss_settings import LossSettings
from models.losses import PerceptualLoss, layer_guides
from models.style import STYLE_LOSSES, gram_matrix, guided_gram_matrix
from slow import Region, SlowSettings, stylize
from slow.objective import tiled_objective
from slow.regions import RegionalLoss
from tests.conftest import smooth_image, whole_image

SHALLOW = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))
STYLE, OTHER = smooth_image(40, 48, seed=1), smooth_image(40, 40, seed=2)
CONTENT, IMAGE = smooth_image(32, 64, seed=3), smooth_image(32, 64, seed=4)


def left_half(height: int = 32, width: int = 64) -> torch.Tensor:
    return (torch.arange(width) < width // 2).float().expand(1, 1, height, width)


def test_guided_gram_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2)  # positions (1, 3), (2, 4)
    guides = torch.tensor([[1.0, 1.0], [2.0, 0.0]]).view(2, 1, 1, 2)
    grams = guided_gram_matrix(features, guides)
    assert torch.equal(grams[0], torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 4)
    assert torch.equal(grams[1], torch.tensor([[2.0, 6.0], [6.0, 18.0]]) / 4)
    assert torch.equal(grams[:1], gram_matrix(features))


def test_guided_gram_has_the_gradient_of_its_formula():
    features = torch.randn(1, 3, 4, 5, requires_grad=True)
    guides, incoming = torch.rand(2, 1, 4, 5), torch.randn(2, 3, 3)
    flat = features.flatten(2)
    products = [flat * guide.flatten() @ flat.mT for guide in guides]
    (expected,) = torch.autograd.grad(torch.cat(products) / 60, features, incoming)
    (result,) = torch.autograd.grad(guided_gram_matrix(features, guides), features, incoming)
    torch.testing.assert_close(result, expected)


def test_statistics_where_a_guide_is_0_everywhere():
    features = torch.randn(1, 3, 4, 5, requires_grad=True)
    guides = torch.stack([torch.zeros(1, 4, 5), torch.ones(1, 4, 5)])
    mean, gram = STYLE_LOSSES["gram+mean+std"].statistics(features, guides)
    assert not mean[0].any() and not gram[0].any()
    torch.testing.assert_close(mean[1], features.mean((2, 3))[0])
    gram[0].sum().backward()
    assert not features.grad.any()


def test_layer_guides_by_hand():
    mask = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0, 1.0]]).view(1, 1, 2, 5)
    guides = layer_guides(mask, ["relu1_1", "relu2_1"])
    assert torch.equal(guides["relu1_1"], mask / 0.4)
    # The last column has no position in the second block. Averages 0.5 and 0; mean 0.25.
    assert torch.equal(guides["relu2_1"], torch.tensor([[[[2.0, 0.0]]]]))
    # Nor has a mask that is there only; it counts for the block beside it.
    mask[..., 0] = 0
    guides = layer_guides(mask, ["relu2_1"])
    assert torch.equal(guides["relu2_1"], torch.tensor([[[[0.0, 2.0]]]]))


@pytest.fixture(scope="module")
def vgg():
    return PerceptualLoss(SHALLOW, [STYLE]).vgg


def evaluate(loss, image=IMAGE, side=None):
    make = whole_image(loss, CONTENT) if side is None else tiled_objective(loss, CONTENT, side)
    image = image.clone().requires_grad_(True)
    terms = make(image)
    return terms, image.grad


def regional(vgg, *regions, style=(STYLE,), settings=SHALLOW):
    return RegionalLoss(settings, style, regions, vgg=vgg)


@pytest.mark.parametrize("style_loss", list(STYLE_LOSSES))
def test_a_mask_of_ones_is_no_mask(vgg, style_loss):
    settings = LossSettings(
        content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"), style_loss=style_loss
    )
    expected, gradient = evaluate(PerceptualLoss(settings, [STYLE], vgg=vgg))
    region = Region(torch.ones(1, 1, 32, 64), (1.0,), (torch.ones(1, 1, 10, 12),))
    terms, result = evaluate(regional(vgg, region, settings=settings))
    for name in ("total", "content", "style"):
        value = getattr(expected, name).item()
        assert getattr(terms, name).item() == pytest.approx(value, rel=1e-4)
    assert (result - gradient).norm() < 1e-3 * gradient.norm()


def test_two_halves_of_one_style_are_about_no_mask(vgg):
    """On an image whose halves are alike they are exactly that, but for the border."""
    image = IMAGE[..., :32].repeat(1, 1, 1, 2)
    halves = [Region(mask, (1.0,), (None,)) for mask in (left_half(), 1 - left_half())]
    expected, gradient = evaluate(PerceptualLoss(SHALLOW, [STYLE], vgg=vgg), image)
    terms, result = evaluate(regional(vgg, *halves), image)
    assert terms.style.item() == pytest.approx(expected.style.item(), rel=0.05)
    assert torch.cosine_similarity(result.flatten(), gradient.flatten(), dim=0) > 0.99


def test_the_loss_as_a_module_knows_the_regions(vgg):
    loss = regional(
        vgg,
        Region(left_half(), (1.0, 0.0), (None, None)),
        Region(1 - left_half(), (0.0, 1.0), (None, None)),
        style=(STYLE, OTHER),
    )
    image = IMAGE.clone().requires_grad_(True)
    terms = loss(image, loss.content_targets(CONTENT))
    terms.total.backward()
    expected, gradient = evaluate(loss, side=32)
    for name in ("total", "content", "style", "tv"):
        value = getattr(expected, name).item()
        assert getattr(terms, name).item() == pytest.approx(value, rel=1e-4)
    assert (image.grad - gradient).norm() < 1e-3 * gradient.norm()


def test_soft_borders_leave_no_gap(vgg):
    """Two guides add up to that of the whole, wherever one changes into the other."""
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 32, 64)
    loss = regional(vgg, *(Region(mask, (1.0,), (None,)) for mask in (ramp, 1 - ramp)))
    for guide in loss.guides((32, 64)).values():
        torch.testing.assert_close(guide.mean(0), torch.ones_like(guide[0]))


def test_regions_that_overlap_share_the_place(vgg):
    ones = torch.ones(1, 1, 32, 64)
    loss = regional(vgg, *(Region(mask, (1.0,), (None,)) for mask in (ones, left_half())))
    assert torch.equal(loss.masks[0, ..., 0], torch.full((1, 32), 0.5))
    assert torch.equal(loss.masks[0, ..., -1], torch.ones(1, 32))


def test_style_does_not_reach_beyond_its_region(vgg):
    settings = LossSettings(
        content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"), content_weight=0.0
    )
    _, gradient = evaluate(regional(vgg, Region(left_half(), (1.0,), (None,)), settings=settings))
    # relu2_1 sees 4 px to the side: two convolutions, and one at half the size.
    assert gradient[..., :32].abs().min(dim=1).values.gt(0).any()
    assert not gradient[..., 32 + 4 :].any()
    assert gradient[..., 32 : 32 + 4].any()


def test_each_region_has_its_own_style(vgg):
    regions = (
        Region(left_half(), (1.0, 0.0), (None, None)),
        Region(1 - left_half(), (0.0, 1.0), (None, None)),
    )
    loss = regional(vgg, *regions, style=(STYLE, OTHER))
    for number, image in enumerate((STYLE, OTHER)):
        alone = PerceptualLoss(SHALLOW, [image], vgg=vgg)
        for layer, (gram,) in loss.style_targets.items():
            torch.testing.assert_close(gram[number], alone.style_targets[layer][0])


def test_a_style_mask_takes_a_part_of_the_style(vgg):
    mask = left_half(40, 48)
    loss = regional(vgg, Region(torch.ones(1, 1, 8, 8), (1.0,), (mask,)))
    features = vgg(STYLE)
    inside = features["relu1_1"][..., :24]
    torch.testing.assert_close(loss.style_targets["relu1_1"][0], gram_matrix(inside))


def test_tiles_serve_regions(vgg):
    regions = [Region(mask, (1.0,), (None,)) for mask in (left_half(), 1 - left_half())]
    loss = regional(vgg, *regions)
    expected, gradient = evaluate(loss)
    terms, result = evaluate(loss, side=16)
    assert terms.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
    assert (result - gradient).norm() < 1e-4 * gradient.norm()


def test_an_empty_region_is_refused(vgg):
    with pytest.raises(ValueError, match="region 1 is 0 everywhere"):
        regional(vgg, Region(torch.zeros(1, 1, 8, 8), (1.0,), (None,)))


def test_stylize_paints_inside_the_mask_only():
    settings = SlowSettings(size=64, min_size=0, steps=4)
    region = Region(left_half(), (1.0,), (None,))
    result = stylize(CONTENT, [STYLE], settings, SHALLOW, regions=[region])
    assert not torch.isclose(result, CONTENT, atol=1e-3)[..., :31].all(1).any()
    assert torch.equal(result[..., 33:], CONTENT[..., 33:])


def test_a_style_is_only_looked_at_where_it_has_a_part(vgg, monkeypatch):
    passes = []
    by_layer = vgg.by_layer
    monkeypatch.setattr(vgg, "by_layer", lambda image: passes.append(image) or by_layer(image))
    styles = STYLE, OTHER, IMAGE
    mask = torch.ones(1, 1, 32, 64)
    regions = [Region(mask, tuple(float(k == i) for k in range(3)), (None,) * 3) for i in range(3)]
    regional(vgg, *regions, style=styles)
    assert len(passes) == 6  # each style for its region, and for the energies of all together
