import copy
import re

import numpy as np
import pytest
import torch
from PIL import Image

import fast.model
from fast import mixing
from fast.bandwise import bandwise
from fast.catalogue import SAMPLES
from fast.model import StyleModel
from fast.stylize import stylize
from media import as_bytes, as_float, read_image, write_image
from media.colors import keep_colors, luma
from models.checkpoint import Checkpoint
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image


class Negative(torch.nn.Module):
    """A network whose painting is known: the photo's negative."""

    device = torch.device("cpu")
    margin = 8

    def forward(self, image):
        return 1 - image


class Flat(Negative):
    """A network that paints everything in one colour."""

    def forward(self, image):
        return torch.zeros_like(image) + torch.tensor([0.9, 0.6, 0.3]).view(1, 3, 1, 1)


@pytest.fixture(autouse=True)
def toy_networks(monkeypatch):
    """The networks above run as they are; real ones run on bands."""

    def run(net, image, *, preserve_color=False, **options):
        if isinstance(net, TransformerNet):
            return stylize(net, image, preserve_color=preserve_color, **options)
        photo = as_float(image)
        painting = keep_colors(net(photo), photo) if preserve_color else net(photo)
        painting = painting.clamp(0, 1)
        return as_bytes(painting) if image.dtype == torch.uint8 else painting

    monkeypatch.setattr(fast.model, "stylize", run)


@pytest.fixture
def negative():
    return StyleModel([Negative()], [1.0])


@pytest.fixture
def photo():
    return smooth_image(40, 52)


def test_a_tensor_gives_a_tensor_of_its_kind(negative, photo):
    assert torch.allclose(negative(photo), 1 - photo)
    pixels = photo.mul(255).round().byte()
    assert torch.equal(negative(pixels), 255 - pixels)
    assert negative(torch.cat([photo, photo]), size=26).shape == (2, 3, 20, 26)
    assert negative(photo.bfloat16(), stroke=2).shape == photo.shape


def test_a_pil_image_gives_one_with_its_transparency(negative):
    photo = Image.new("RGBA", (30, 20), (255, 0, 100, 77))
    painting = negative(photo)
    assert painting.size == (30, 20) and painting.getpixel((3, 3)) == (0, 255, 155, 77)
    assert negative(photo.convert("L"), size=15).size == (15, 10)
    with pytest.raises(TypeError, match="not int"):
        negative(3)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_numpy_array_is_taken_as_an_image(negative, channels):
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    assert negative(photo) == negative(Image.fromarray(photo))
    assert negative(photo[..., 0]) == negative(Image.fromarray(photo[..., 0]))
    for wrong in (photo / 255, photo[..., :2], photo[0, 0], photo[..., 0] / 255, photo > 9):
        with pytest.raises(ValueError, match="an array must be"):
            negative(wrong)


def test_a_path_gives_a_pil_image_or_a_file(negative, photo, tmp_path):
    write_image(tmp_path / "a.png", photo)
    assert negative(str(tmp_path / "a.png")).size == (52, 40)
    written = negative(tmp_path / "a.png", output=tmp_path / "b.png", size=26)
    assert written == tmp_path / "b.png"
    assert read_image(written).rgb.shape == (1, 3, 20, 26)


def test_strength_goes_from_the_photo_to_the_painting_and_beyond(negative, photo):
    assert torch.allclose(negative(photo, strength=0), photo, atol=1e-5)
    assert torch.allclose(negative(photo, strength=1.5), photo, atol=1e-5)  # painted twice
    flat = StyleModel([Flat()], [1.0])
    distances = [(flat(photo, strength=s) - flat(photo)).abs().mean() for s in (0, 0.3, 0.6, 0.9)]
    assert distances == sorted(distances, reverse=True) and distances[-1] > 0


def test_mixing_keeps_the_mean_contrast_where_an_average_loses_it():
    generator = torch.Generator().manual_seed(0)
    first, second = (0.5 + 0.1 * torch.randn(1, 3, 64, 64, generator=generator) for _ in range(2))
    average = first.lerp(second, 0.5).std().item()
    assert average == pytest.approx(0.1 / 2**0.5, rel=0.05)
    assert mixing.mix(first, second, 0.5).std().item() == pytest.approx(0.1, rel=0.1)


def test_bands_give_what_the_whole_image_gives(photo, monkeypatch):
    other = smooth_image(40, 52, seed=1)
    whole = mixing.mix(photo, other, 0.4)
    monkeypatch.setattr("fast.bandwise.BAND_PIXELS", 7 * 52)
    assert torch.allclose(mixing.mix(photo, other, 0.4), whole, atol=1e-6)
    assert bandwise(lambda x: x, torch.full((1, 3, 5, 2000), 77, dtype=torch.uint8)).unique() == 77


def test_colours_are_the_photos_and_the_brightness_the_paintings(negative, photo):
    photo = 0.4 + 0.2 * photo  # nothing is clamped
    kept = negative(photo, preserve_color=True)
    assert torch.allclose(luma(kept), 1 - luma(photo), atol=1e-5)
    assert torch.allclose(kept - luma(kept), photo - luma(photo), atol=1e-5)


@pytest.mark.parametrize("stroke", [0.5, 3])
def test_strokes_change_what_the_network_sees_not_the_size_of_the_result(stroke):
    seen = []

    class Spy(Flat):
        def forward(self, image):
            seen.append(tuple(image.shape[-2:]))
            return super().forward(image)

    photo = torch.zeros(1, 3, 60, 90)
    photo[..., 30, :] = 0.5  # a line that is lost in a smaller view
    painting = StyleModel([Spy()], [1.0])(photo, stroke=stroke)
    assert painting.shape == photo.shape
    assert seen == [(round(60 / stroke), round(90 / stroke))]
    brightness = luma(painting)[0, 0, :, 45]
    assert (brightness[30] > brightness[10] + 0.2) == (stroke > 1)  # its detail is added again


def test_automatic_strokes_are_those_of_a_usual_photo(negative, monkeypatch):
    for photo in (smooth_image(60, 90), smooth_image(90, 60)):
        for usual_side, stroke in ((90, 1), (200, 1), (45, np.int64(2)), (1, 10)):
            monkeypatch.setattr("fast.stroke.USUAL_SIDE", usual_side)
            assert torch.equal(negative(photo, stroke="auto"), negative(photo, stroke=stroke))


def test_a_mask_chooses_what_is_painted_with_a_soft_border(negative, tmp_path):
    photo = torch.full((1, 3, 200, 400), 0.2)
    drawn = Image.new("L", (400, 200))  # its right half white
    drawn.paste(255, (200, 0, 400, 200))
    drawn.save(tmp_path / "mask.png")
    cut_out = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    cut_out.paste((0, 0, 0, 255), (200, 0, 400, 200))
    arrays = np.array(drawn), np.array(drawn) > 127
    opaque = drawn.convert("RGBA")
    for mask in (tmp_path / "mask.png", drawn, opaque, cut_out, *arrays):
        painted = negative(photo, mask=mask)
        assert torch.allclose(painted[..., :180], photo[..., :180], atol=1e-3)
        assert torch.allclose(painted[..., 220:], 1 - photo[..., 220:], atol=1e-3)
        steps = painted[0, 0, 100].diff()
        assert steps.max() < 0.15 and (steps > 0.01).sum() >= 4
        inverted = negative(photo, mask=mask, invert_mask=True)
        assert torch.allclose(inverted + painted, torch.ones(()), atol=1e-5)
    small = negative(photo, mask=drawn, size=100)  # scaled together
    assert torch.allclose(small[..., [0, 99]].diff(), torch.tensor(0.6), atol=1e-3)
    for size in ((800, 400), (133, 67), (133, 66)):  # of the same proportions, but for rounding
        scaled = negative(photo, mask=drawn.resize(size))
        assert (scaled - negative(photo, mask=drawn)).abs().max() < 0.1
    hard = torch.zeros(200, 400)
    hard[:, 200:] = 1
    assert negative(photo, mask=hard)[0, 0, 0].unique().numel() == 2
    assert torch.equal(negative(photo, mask=hard > 0), negative(photo, mask=hard))


def test_settings_out_of_range_and_unfit_masks_are_refused(negative, photo):
    for settings, what in [
        ({"strength": 1.6}, "--strength 1.6"),
        ({"strength": float("nan")}, "--strength nan"),
        ({"stroke": 0}, "--stroke 0"),
        ({"stroke": "Auto"}, "--stroke Auto"),
        ({"stroke": None}, "--stroke None"),
        ({"size": 0}, "--size 0"),
        ({"size": -1}, "--size -1"),
        ({"mask": Image.new("L", (50, 50))}, "the mask has 50x50 px"),
        ({"mask": Image.new("L", (104, 84))}, "and not its picture's 52x40 px"),
        ({"mask": torch.ones(3, 3)}, "does not fit"),
        ({"mask": torch.ones(40, 52, dtype=torch.uint8)}, "bool or from 0 to 1"),
        ({"mask": torch.full((40, 52), torch.nan)}, "bool or from 0 to 1"),
        ({"mask": torch.full((40, 52), 1.5)}, "bool or from 0 to 1"),
        ({"mask": Image.new("L", (0, 0))}, "no pixels"),
        ({"invert_mask": True}, "needs a mask"),
        ({"mask": torch.ones(52, 40)}, "does not fit"),
        ({"mask": np.ones((40, 52))}, "an array must be"),
        ({"stroke": 0.1, "size": 2000}, "would have to see 20000x15380 px"),
    ]:
        with pytest.raises(ValueError, match=what):
            negative(photo, **settings)
    with pytest.raises(ValueError, match="^--size 0"):
        negative(SAMPLES / "photos" / "coffee.jpg", size=0)


def test_tensors_of_other_shapes_and_kinds_are_refused(negative):
    for shape in [(3, 4, 4), (1, 4, 4, 4), (1, 3, 0, 4)]:
        with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\)"):
            negative(torch.zeros(shape))
    with pytest.raises(ValueError, match="a batch of 2"):
        negative(torch.zeros(2, 3, 4, 4), output="painted.png")
    with pytest.raises(ValueError, match="int64"):
        negative(torch.zeros(1, 3, 4, 4, dtype=torch.int64))


def test_paintings_are_blended_by_their_parts(photo):
    model = StyleModel([Negative(), Flat()], [0.0, 1.0])
    assert torch.allclose(model(photo), Flat()(photo))
    halves = StyleModel([Flat(), Flat()], [0.5, 0.5])
    assert torch.allclose(halves(photo), Flat()(photo), atol=1e-5)
    mixed = StyleModel([Negative(), Flat()], [0.7, 0.3])(photo)
    expected = 0.7 * (1 - photo).mean() + 0.3 * 0.6
    assert mixed.mean().item() == pytest.approx(expected.item(), abs=0.01)


def save(path, net):
    path.write_bytes(Checkpoint(arguments=net.arguments, weights=net.state_dict()).to_bytes())
    return path


def test_models_of_a_common_start_are_blended_in_their_weights(tiny_model, photo, tmp_path):
    start = fast.load_net(tiny_model, device="cpu", precision="float32")
    other = copy.deepcopy(start)
    other.to_rgb.bias += 8
    other.trunk[0].conv1.conv.weight += 0.05
    child = save(tmp_path / "child.pth", other)
    model = fast.load(tiny_model, child, blend=(3, 1), device="cpu", precision="float32")
    (net,) = model.nets
    assert torch.allclose(net.to_rgb.bias, start.to_rgb.bias + 2)
    kernel = start.trunk[0].conv1.conv.weight
    assert torch.allclose(net.trunk[0].conv1.conv.weight, kernel + 0.0125, atol=1e-6)
    ends = [fast.load(path, device="cpu", precision="float32") for path in (tiny_model, child)]
    for blend, end in zip([(1, 0), (0, 1)], ends, strict=True):
        whole = fast.load(tiny_model, child, blend=blend, device="cpu", precision="float32")
        assert torch.allclose(whole(photo), end(photo), atol=1e-5)


def test_paintings_are_blended_where_models_have_nothing_in_common(tiny_model, tmp_path):
    torch.manual_seed(1)
    stranger = save(tmp_path / "stranger.pth", TransformerNet(width=4, num_blocks=1))
    wider = save(tmp_path / "wider.pth", TransformerNet(width=5, num_blocks=1))
    model = fast.load(tiny_model, stranger, wider, blend=(2, 1, 1), device="cpu")
    assert len(model.nets) == 3 and model.parts == [0.5, 0.25, 0.25]


def test_unfit_blends_are_refused(tiny_model):
    for blend in [(1,), (1, -1), (0, 0), (1, float("nan"))]:
        with pytest.raises(ValueError, match="--blend"):
            fast.load(tiny_model, tiny_model, blend=blend)
    with pytest.raises(ValueError, match="no model"):
        fast.load()


def test_any_size_is_painted_in_every_way():
    torch.manual_seed(0)
    model = StyleModel([TransformerNet(width=4, num_blocks=1).eval()], [1.0])
    for height, width in [(1, 1), (1, 300), (3, 2)]:
        photo = torch.rand(1, 3, height, width)
        for strength, stroke in [(0.5, 1), (1.5, 4), (1, 0.5)]:
            painting = model(photo, strength=strength, stroke=stroke, preserve_color=True)
            assert painting.shape == photo.shape
            assert 0 <= painting.min() and painting.max() <= 1


def test_the_readme_optimises_from_python_as_it_says(tmp_path, monkeypatch):
    blocks = re.findall(
        r"```python\n(.*?)```", (SAMPLES.parent / "README.md").read_text(), re.DOTALL
    )
    [code] = [block for block in blocks if "from slow import" in block]
    (tmp_path / "samples").symlink_to(SAMPLES)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("size=384", "size=32").replace("steps=100", "steps=2"), {})
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()]


def test_the_readme_paints_from_python_as_it_says(tmp_path, monkeypatch):
    root = SAMPLES.parent
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if "import fast" in block)
    assert len([line for line in code.splitlines() if line]) <= 6
    (tmp_path / "samples").symlink_to(SAMPLES)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("400", "64").replace('rocket.jpg", ', 'rocket.jpg", size=64, '), names)
    assert names["image"].size == (64, 43)
    assert read_image("painted.jpg").rgb.shape == (1, 3, 43, 64)


def test_a_painting_can_be_changed_and_used_with_gradients(negative):
    photo = torch.full((1, 3, 20, 20), 0.2)
    painting = negative(photo)
    painting.add_(0.1)
    weight = torch.ones((), requires_grad=True)
    (painting * weight).sum().backward()
    assert weight.grad == painting.sum()
