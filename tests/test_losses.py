import math

import pytest
import torch

from models.loss_settings import LossSettings, weight_of_strength
from models.losses import PerceptualLoss, total_variation
from models.vgg import VGG19Features
from tests.conftest import NEEDS_INT8, smooth_image

SHALLOW = {"content_layers": ("relu2_1",), "style_layers": ("relu1_1", "relu2_1")}


def waves(size: int, number: int) -> torch.Tensor:
    """(1, 3, size, size): a pattern that continues seamlessly at its borders."""
    phase = torch.arange(size) * (2 * math.pi * number / size)
    rows, columns = torch.meshgrid(phase, phase, indexing="ij")
    return torch.stack([rows.sin(), columns.cos(), (rows + columns).sin()])[None] * 0.4 + 0.5


def test_total_variation_of_a_checkerboard():
    rows = torch.arange(6).view(-1, 1) + torch.arange(8)
    board = (rows % 2).float().expand(1, 3, 6, 8)
    assert total_variation(board).item() == 2  # every neighbour differs by 1, both ways
    assert total_variation(torch.full((1, 3, 4, 4), 0.3)).item() == 0


def test_gradient_reaches_the_image_and_not_the_network():
    loss = PerceptualLoss(LossSettings(**SHALLOW), [smooth_image(32, 32, seed=1)])
    image = smooth_image(24, 40).requires_grad_(True)
    loss(image, loss.content_targets(torch.zeros(1, 3, 24, 40))).total.backward()
    assert image.grad.abs().sum() > 0
    tensors = [*loss.parameters(), *loss.buffers()]
    assert tensors and not any(t.requires_grad for t in tensors)


@pytest.mark.parametrize(
    ("dtype", "rounded", "similarity"),
    [
        (torch.bfloat16, False, 0.98),
        (torch.float16, False, 0.98),
        pytest.param(torch.int8, False, 0.98, marks=NEEDS_INT8),
        pytest.param(torch.int8, True, 0.94, marks=NEEDS_INT8),
    ],
)
def test_lower_precision_has_nearly_the_same_loss_and_gradient(dtype, rounded, similarity):
    content, style = smooth_image(64, 64), waves(64, 3)
    totals, gradients = [], []
    for precision in (torch.float32, dtype):
        loss = PerceptualLoss(LossSettings(), [style], dtype=precision)
        loss.vgg.rounded = rounded
        image = waves(64, 2).requires_grad_(True)
        totals.append(loss(image, loss.content_targets(content)).total)
        gradients.append(torch.autograd.grad(totals[-1], image)[0].flatten())
    torch.testing.assert_close(totals[1], totals[0], rtol=0.02, atol=0)
    assert torch.cosine_similarity(*gradients, dim=0) > similarity


def test_terms_vanish_for_the_targets_themselves():
    image = smooth_image(40, 40)
    loss = PerceptualLoss(LossSettings(**SHALLOW), [image])
    terms = loss(image, loss.content_targets(image))
    assert terms.content.item() == 0
    assert terms.style.item() == pytest.approx(0, abs=1e-6)


def test_total_is_the_weighted_sum():
    settings = LossSettings(**SHALLOW, content_weight=2, style_weight=3, tv_weight=5)
    loss = PerceptualLoss(settings, [smooth_image(32, 32, seed=1)])
    t = loss(smooth_image(32, 32), loss.content_targets(smooth_image(32, 32, seed=2)))
    assert t.total.item() == pytest.approx((2 * t.content + 3 * t.style + 5 * t.tv).item())


def test_weights_mean_the_same_at_256_and_at_1024_px():
    """A seamless pattern repeated over a larger area has the same losses, but for the border."""
    content, painted = waves(256, 2), waves(256, 5)
    loss = PerceptualLoss(LossSettings(**SHALLOW, tv_weight=1), [smooth_image(128, 96, seed=3)])

    def terms(repeats):
        tiles = [image.repeat(1, 1, repeats, repeats) for image in (painted, content)]
        with torch.no_grad():
            return loss(tiles[0], loss.content_targets(tiles[1]))

    small, large = terms(1), terms(4)
    for name in ("content", "style", "tv"):
        assert getattr(large, name).item() == pytest.approx(getattr(small, name).item(), rel=0.03)


def test_loss_of_a_batch_is_the_mean_of_its_images():
    loss = PerceptualLoss(LossSettings(**SHALLOW), [smooth_image(32, 32, seed=1)])
    images, contents = (
        torch.cat([smooth_image(32, 32, seed=s) for s in seeds]) for seeds in ((2, 3), (4, 5))
    )
    alone = [
        loss(image[None], loss.content_targets(content[None]))
        for image, content in zip(images, contents, strict=True)
    ]
    together = loss(images, loss.content_targets(contents))
    for name in ("content", "style", "tv", "total"):
        mean = sum(getattr(terms, name).item() for terms in alone) / 2
        assert getattr(together, name).item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_every_layer_counts_the_same_whatever_its_scale(monkeypatch, factor):
    """Scaling all features of a layer, the style's too, changes nothing."""
    image, content = smooth_image(32, 32), smooth_image(32, 32, seed=2)
    original = VGG19Features.by_layer

    def scaled(self, image, layers=None, **where):
        return ((name, factor * values) for name, values in original(self, image, layers, **where))

    def terms():
        loss = PerceptualLoss(LossSettings(**SHALLOW), [smooth_image(32, 32, seed=1)])
        return loss(image, loss.content_targets(content))

    expected = terms()
    monkeypatch.setattr(VGG19Features, "by_layer", scaled)
    assert terms().total.item() == pytest.approx(expected.total.item(), rel=1e-4)


def test_style_blend_is_between_its_styles():
    styles = [smooth_image(32, 32, seed=s) for s in (1, 2)]
    blended, first = (
        PerceptualLoss(LossSettings(**SHALLOW), styles, style_blend=blend)
        for blend in ([1.0, 1.0], [1.0, 0.0])
    )
    alone = PerceptualLoss(LossSettings(**SHALLOW), styles[:1])
    grams = [loss.style_targets["relu2_1"][0] for loss in (first, alone, blended)]
    assert torch.equal(grams[0], grams[1])
    assert not torch.equal(grams[2], grams[1])


@pytest.mark.parametrize("blend", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_unfit_blend_is_refused(blend):
    with pytest.raises(ValueError, match="style_blend"):
        PerceptualLoss(LossSettings(**SHALLOW), [torch.rand(1, 3, 32, 32)] * 2, style_blend=blend)


def test_style_layers_have_weights():
    style, image = smooth_image(32, 32, seed=1), smooth_image(32, 32)

    def style_loss(*weights, layers=SHALLOW["style_layers"]):
        settings = LossSettings(
            content_layers=("relu2_1",), style_layers=layers, style_layer_weights=weights
        )
        loss = PerceptualLoss(settings, [style])
        return loss(image, loss.content_targets(image)).style.item()

    first, second = (style_loss(layers=(layer,)) for layer in SHALLOW["style_layers"])
    assert style_loss() == pytest.approx((first + second) / 2, rel=1e-5)
    assert style_loss(1.0, 3.0) == pytest.approx((first + 3 * second) / 4, rel=1e-5)
    assert style_loss(1.0, 0.0) == pytest.approx(first, rel=1e-5)


def test_content_layers_have_presets():
    assert LossSettings(content_layers=("fine",)).content_layers == ("relu2_2", "relu3_3")
    assert LossSettings() == LossSettings(content_layers=("balanced",))


def test_strength_is_a_style_weight():
    assert LossSettings().style_weight == weight_of_strength(0.5) == 10
    assert weight_of_strength(0) == 1 and weight_of_strength(1) == 100
    for wrong in (1.5, float("nan")):
        with pytest.raises(ValueError, match="strength"):
            weight_of_strength(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"content_layers": ("relu6_1",)},
        {"style_layers": ()},
        {"style_weight": -1.0},
        {"style_layer_weights": (1.0, 2.0)},
        {"style_layer_weights": (1.0, -2.0, 1.0, 1.0, 1.0)},
        {"style_layer_weights": (0.0,) * 5},
        {"content_weight": float("nan")},
        {"content_weight": 0.0, "style_weight": 0.0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError):
        LossSettings(**wrong)


def test_l1_content_loss_is_a_mean_of_absolute_differences():
    image, content = smooth_image(32, 32), smooth_image(32, 32, seed=2)
    values = {}
    for kind in ("l1", "l2"):
        loss = PerceptualLoss(LossSettings(**SHALLOW, content_loss=kind), [image])
        values[kind] = loss(image, loss.content_targets(content)).content.item()
    features = VGG19Features(("relu2_1",))
    ours, theirs = features(image)["relu2_1"], features(content)["relu2_1"]
    energy = ours.square().mean().item()  # the style image's
    difference = ours - theirs
    assert values["l1"] == pytest.approx(difference.abs().mean().item() / energy**0.5, rel=1e-3)
    assert values["l2"] == pytest.approx(difference.square().mean().item() / energy, rel=1e-3)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_sum_is_the_mean_times_the_number_of_elements(monkeypatch, kind):
    """By hand: an image whose 8 features are all 3, a content of 1, a style of 2."""

    def flat(self, image, layers=None, **where):
        yield "relu2_1", image.mean() * torch.ones(len(image), 2, 2, 2)

    monkeypatch.setattr(VGG19Features, "by_layer", flat)
    image, content, style = (torch.full((2, 3, 16, 16), value) for value in (3.0, 1.0, 2.0))
    settings = {"content_layers": ("relu2_1",), "style_layers": ("relu2_1",), "content_loss": kind}
    expected = {"l1": 2 / 2, "l2": 2**2 / 2**2}[kind]  # in units of the style's size or its square
    for reduction, factor in (("mean", 1), ("sum", 8)):
        loss = PerceptualLoss(LossSettings(**settings, content_reduction=reduction), [style[:1]])
        value = loss(image, loss.content_targets(content)).content.item()
        assert value == pytest.approx(factor * expected)


def test_replicated_padding_leaves_no_dark_frame():
    """On a flat image all features are flat, for the first layer; with zeros they are not."""
    flat = torch.full((1, 3, 16, 16), 0.9)
    spread = {
        padding: VGG19Features(("relu1_1",), padding=padding)(flat)["relu1_1"].std((2, 3)).max()
        for padding in ("zeros", "replicate")
    }
    assert spread["replicate"] < 1e-3 < spread["zeros"]
