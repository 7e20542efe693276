"""Without a GPU the kernels run in Triton's interpreter, see conftest.py."""

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import assert_same_gradients

pytest.importorskip("triton")

from models import triton_kernels as kernels  # noqa: E402
from models.triton_kernels import tiles  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=[False, True], ids=["few tiles", "many tiles"], autouse=True)
def many_tiles(request, monkeypatch):
    """Also several tiles for a program and for a row."""
    if request.param:
        monkeypatch.setattr(tiles, "TILE", 64)
        monkeypatch.setattr(tiles, "PROGRAMS", 4)


@pytest.mark.parametrize(("relu", "is_sum"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(2, 5, 7, 6), (1, 32, 31, 45), (3, 128, 1, 1)])
def test_instance_norm_equals_torch(size, relu, is_sum):
    torch.manual_seed(0)
    x = 3 * torch.randn(size, device=DEVICE) + 20  # whose mean and deviation differ in size
    x = x.to(memory_format=torch.channels_last).requires_grad_(True)
    weight, bias = torch.randn(2, size[1], device=DEVICE).unbind()
    inputs = x, weight.requires_grad_(True), bias.requires_grad_(True)
    expected = torch.group_norm(x.double(), size[1], weight.double(), bias.double()).float()
    expected = F.relu(expected) if relu else expected
    summand = torch.randn(size, device=DEVICE, requires_grad=True) if is_sum else None
    if is_sum:
        inputs, expected = (*inputs, summand), expected + summand
    result = kernels.instance_norm(x, weight, bias, 1e-5, relu=relu, summand=summand)
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(result, expected, inputs, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_normalised_by_float32_statistics():
    torch.manual_seed(0)
    x = (torch.randn(2, 5, 30, 30, device=DEVICE) + 20).bfloat16()
    result = kernels.instance_norm(
        x, torch.ones(5, device=DEVICE), torch.zeros(5, device=DEVICE), 1e-5
    )
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), F.instance_norm(x.float()), rtol=0.01, atol=0.02)


def test_not_finite_values_stay_so():
    x = torch.randn(1, 2, 4, 4, device=DEVICE)
    x[0, 0, 2, 2] = torch.nan
    result = kernels.instance_norm(
        x, torch.ones(2, device=DEVICE), torch.zeros(2, device=DEVICE), 1e-5, relu=True
    )
    assert result[0, 0].isnan().all() and result[0, 1].isfinite().all()


@pytest.mark.parametrize("channels", [3, 32])
@pytest.mark.parametrize(("padding", "skipped", "mode"), [(4, 1, "reflect"), (1, 0, "replicate")])
def test_mirrored_border_is_that_of_torch(channels, padding, skipped, mode):
    x = torch.randn(2, channels, 5, 7, device=DEVICE)
    x = x.to(memory_format=torch.channels_last).requires_grad_(True)
    expected = F.pad(x, (padding,) * 4, mode=mode)
    result = kernels.mirrored_border(x, padding, skipped)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_same_gradients(result, expected, (x,), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 20, 4, 6), (1, 128, 2, 35), (3, 4, 7, 2)])
def test_interleaved_is_that_of_strides(size):
    x = torch.randn(size, device=DEVICE).to(memory_format=torch.channels_last).requires_grad_(True)
    phases = x.unflatten(1, (2, 2, -1))
    batch, _, height, width = size
    expected = x.new_empty(batch, size[1] // 4, 2 * height - 2, 2 * width - 2)
    for p in (0, 1):
        for q in (0, 1):
            part = phases[:, p, q, :, p : height - 1 + p, q : width - 1 + q]
            expected[..., p::2, q::2] = part
    result = kernels.interleaved(x)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_same_gradients(result, expected, (x,), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(2, 64, 6, 10), (1, 5, 7, 6), (2, 3, 2, 9)])
def test_max_pool_is_that_of_torch_after_a_relu(size):
    """Also where several are the largest, and where all are 0."""
    torch.manual_seed(0)
    x = torch.randint(-2, 3, size, device=DEVICE).float()
    x = F.relu(x).to(memory_format=torch.channels_last).requires_grad_(True)
    expected = F.max_pool2d(F.relu(x), 2)
    result = kernels.max_pool(x)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_same_gradients(result, expected, (x,), rtol=0, atol=0)


def test_max_pool_keeps_what_is_no_number():
    x = torch.zeros(1, 2, 4, 4, device=DEVICE)
    x[0, 1, 2, 3] = torch.nan
    assert kernels.max_pool(x)[0, 1].isnan().tolist() == [[False, False], [False, True]]
