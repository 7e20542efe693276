"""The network on bands of rows beside the network on the whole image."""

from importlib import import_module

import pytest
import torch

from fast import bands, feature_maps, stores
from fast.bands import stylize_in_bands
from fast.stylize import load_net, set_precision, stylize
from models.transformer_net import TransformerNet, with_margin
from tests.conftest import NEEDS_INT8, smooth_image

PLENTY = 1e12


def in_bands(net, image, memory=PLENTY):
    painting = torch.full(image.shape, float("nan"))

    def write(top, band):
        painting[..., top : top + band.shape[2], :] = band

    with torch.inference_mode():
        stylize_in_bands(net, image, write, memory=memory)
    return painting


def whole(net, image):
    with torch.inference_mode():
        return with_margin(net, image, net.margin)


def random_net(**arguments):
    """Random weights, the normalisation's too; wide enough for Winograd convolutions."""
    torch.manual_seed(0)
    net = TransformerNet(width=32, num_blocks=2, **arguments).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if ".norm." in name:
            weight.add_(0.3 * torch.randn_like(weight))
    return net


@pytest.fixture
def net():
    return random_net(margin=3)


@pytest.fixture
def small_bands(monkeypatch):
    monkeypatch.setattr(feature_maps, "BAND_VALUES", {"cpu": 1})
    monkeypatch.setattr(feature_maps, "MIN_ROWS", 4)


# All in stores; the trunk in memory and the rest computed anew; the trunk in files.
@pytest.mark.parametrize("memory", [PLENTY, 300_000, 0])
@pytest.mark.parametrize(
    "size", [(64, 48), (53, 71), (2, 3), (1, 90), (77, 2), (9, 10), (4, 600), (600, 4)]
)
def test_bands_make_no_difference(net, small_bands, size, memory):
    image = smooth_image(*size)
    assert torch.allclose(in_bands(net, image, memory), whole(net, image), atol=1e-4)


@pytest.mark.parametrize("memory", [PLENTY, 0])
@pytest.mark.parametrize("size", [(45, 50), (1, 1), (3, 2), (1, 9)])
def test_networks_of_other_projects_on_bands(small_bands, size, memory):
    net = random_net(margin=0, grain=0, transposed=True, sigmoid=True)
    image = smooth_image(*size)
    assert torch.allclose(in_bands(net, image, memory), whole(net, image), atol=1e-4)


@pytest.mark.parametrize("memory", [PLENTY, 0])
@pytest.mark.parametrize("size", [(45, 50), (5, 7), (9, 12)])
def test_networks_that_work_at_half_the_size_on_bands(small_bands, size, memory):
    net, image = random_net(margin=4, stem_stride=2), smooth_image(*size)
    assert torch.allclose(in_bands(net, image, memory), whole(net, image), atol=1e-4)


def test_shipped_network_and_bands_of_the_usual_size():
    net = load_net("starry_night", device="cpu", precision="float32")
    image = smooth_image(90, 70)
    assert torch.allclose(in_bands(net, image), whole(net, image), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grain", [0, 3])
def test_whole_numbers_are_painted_like_values(small_bands, grain, dtype):
    net = set_precision(random_net(margin=3, grain=grain), dtype)
    numbers = smooth_image(53, 71).mul(255).to(torch.uint8)
    painting = stylize(net, numbers).float() / 255
    assert (painting - stylize(net, numbers / 255)).abs().max() < 0.02


@pytest.mark.parametrize("memory", [PLENTY, 0])
@pytest.mark.parametrize("arguments", [{"margin": 3}, {"stem_stride": 2}])
@pytest.mark.parametrize("size", [(53, 71), (90, 33)])
def test_bfloat16_makes_little_difference(small_bands, size, arguments, memory):
    net, image = random_net(**arguments), smooth_image(*size)
    expected = whole(net, image) - 0.5
    error = in_bands(set_precision(net, torch.bfloat16), image, memory) - 0.5 - expected
    assert 0 < error.norm() < 0.05 * expected.norm()


@NEEDS_INT8
@pytest.mark.parametrize("memory", [PLENTY, 0])
@pytest.mark.parametrize(
    "arguments",
    [{"margin": 3}, {"margin": 0, "grain": 0, "transposed": True}, {"stem_stride": 2}],
)
@pytest.mark.parametrize("size", [(53, 71), (90, 33)])
def test_8_bit_integers_make_little_difference(small_bands, size, arguments, memory):
    net = random_net(**arguments)
    image = smooth_image(*size).mul(255).round() / 255  # as it is read from a file
    expected = whole(net, image) - 0.5
    net.use_int8()
    error = in_bands(net, image, memory) - 0.5 - expected
    assert 0 < error.norm() < 0.05 * expected.norm()


@NEEDS_INT8
def test_8_bit_integers_of_bytes_and_of_the_same_as_numbers(net):
    net.use_int8()
    pixels = smooth_image(20, 24).mul(255).round().byte()
    expected = in_bands(net, pixels)
    assert torch.allclose(in_bands(net, pixels / 255), expected, atol=1e-6)
    beyond = in_bands(net, (pixels / 255 - 0.5) * 9)
    assert torch.equal(in_bands(net, ((pixels / 255 - 0.5) * 9).clamp(0, 1)), beyond)


@NEEDS_INT8
def test_8_bit_integers_of_next_to_nothing(net):
    for size in ((1, 1), (2, 3)):  # channels are nearly the same everywhere
        image = smooth_image(*size)
        expected = whole(net, image)
        net.use_int8()
        assert (in_bands(net, image) - expected).abs().max() < 0.1


@pytest.mark.parametrize("memory", [PLENTY, 1])  # in memory, in files
def test_several_workers_make_no_difference(net, small_bands, monkeypatch, memory):
    monkeypatch.setattr(bands, "BAND_MEMORY_PER_COLUMN", 1e-9)
    image, threads = smooth_image(64, 40), torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.allclose(in_bands(net, image, memory), whole(net, image), atol=1e-4)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_no_feature_map_is_kept_when_there_is_no_memory(net, small_bands, monkeypatch):
    def refuse(*_):
        raise AssertionError("a feature map in memory")

    monkeypatch.setattr(bands, "MemoryStore", refuse)
    assert in_bands(net, smooth_image(40, 40), memory=0).isfinite().all()
    with pytest.raises(AssertionError):
        in_bands(net, smooth_image(40, 40))


def test_statistics_of_a_band_do_not_keep_its_values(net, monkeypatch):
    sizes = []

    def watch(self, band):
        top, values, *statistics = compute(self, band)
        sizes.extend(s.untyped_storage().nbytes() / values.nbytes for s in statistics)
        return top, values, *statistics

    compute = feature_maps.Convolved._compute
    monkeypatch.setattr(feature_maps.Convolved, "_compute", watch)
    in_bands(net, smooth_image(40, 40))
    assert max(sizes) < 0.1


def test_bytes_give_bytes_and_every_image_of_a_batch_is_painted_by_itself(net):
    image = smooth_image(20, 24)
    pixels = image.mul(255).round().byte()
    painting = stylize(net, pixels)
    assert painting.dtype == torch.uint8
    assert (painting / 255 - stylize(net, pixels / 255)).abs().max() <= 0.5 / 255 + 1e-4
    other = smooth_image(20, 24, seed=5)
    both = stylize(net, torch.cat([image, other]))
    assert torch.equal(both[1:], stylize(net, other))


def test_memory_that_is_not_enough_after_all_leads_to_less(net, monkeypatch):
    image = smooth_image(30, 30)
    expected = stylize(net, image)
    asked = []

    def store():
        asked.append(True)
        return torch.empty(2**60)

    monkeypatch.setattr(bands, "MemoryStore", store)
    assert torch.allclose(stylize(net, image, max_memory=1e12), expected, atol=1e-4)
    assert asked


def test_progress_takes_back_what_has_to_be_done_again(net, monkeypatch):
    whole, shares = bands.stylize_in_bands, []

    def fail_late(*args, progress, **kwargs):
        whole(*args, progress=progress, **kwargs)
        if not any(share < 0 for share in shares):
            raise MemoryError

    monkeypatch.setattr(import_module("fast.stylize"), "stylize_in_bands", fail_late)
    stylize(net, smooth_image(30, 30), progress=shares.append)
    assert any(share < 0 for share in shares)
    assert sum(shares) == pytest.approx(1)


def test_other_errors_are_not_taken_for_a_lack_of_memory(net, monkeypatch):
    def fail(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(bands, "MemoryStore", fail)
    with pytest.raises(RuntimeError, match="something else"):
        stylize(net, smooth_image(30, 30))


def test_temporary_files_lie_where_the_environment_says_or_on_the_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert stores._folder_on_disk() is None
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stores.os, "access", lambda path, mode: path == "/var/tmp")
    assert stores._folder_on_disk() == "/var/tmp"
    monkeypatch.setattr(stores.os, "access", lambda path, mode: False)
    assert stores._folder_on_disk() is None
