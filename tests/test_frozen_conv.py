import pytest
import torch
import torch.nn.functional as F

from models import device, winograd
from models.device import dtype_of_maps
from models.frozen_conv import FrozenConv
from tests.conftest import NEEDS_INT8


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def maps(request, monkeypatch):
    """Type of the maps beside 8-bit integers, on any processor."""
    is_bfloat16 = request.param == torch.bfloat16
    monkeypatch.setattr(device, "_cpu_has", lambda *_: is_bfloat16)
    return request.param


@pytest.fixture
def always_winograd(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *_: True)


@pytest.mark.parametrize("strip", [winograd.STRIP, 1, 36 * 2 * 4 * 6 * 2])  # all, 1, 2 block rows
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (8, 8), (9, 14), (19, 16)])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_winograd_equals_the_direct_convolution(monkeypatch, always_winograd, size, strip, padding):
    monkeypatch.setattr(winograd, "STRIP", strip)
    result, grad, expected, expected_grad = beside_direct(size, padding)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (9, 14)])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("relu", [False, True])
def test_bfloat16_is_close(size, padding, relu):
    result, grad, expected, expected_grad = beside_direct(
        size, padding, dtype=torch.bfloat16, relu=relu
    )
    assert (result - expected).norm() < 0.01 * expected.norm()
    assert (grad - expected_grad).norm() < 0.02 * expected_grad.norm()


@NEEDS_INT8
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (9, 14)])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_gradients_of_8_bit_integers_are_close(maps, size, padding):
    result, grad, expected, expected_grad = beside_direct(size, padding, dtype=torch.int8)
    error = 0.01 if maps == torch.bfloat16 else 1e-5
    assert (result - expected).norm() < error * expected.norm()
    assert 0 < (grad - expected_grad).norm() < 0.02 * expected_grad.norm()


def beside_direct(size, padding, dtype=torch.float32, relu=False):
    """Output and the input's gradient, and those of the convolution of PyTorch."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size, requires_grad=True)
    weight, bias = torch.randn(5, 6, 3, 3), torch.randn(5)
    if dtype == torch.bfloat16:  # of values that both have
        x, weight = (t.detach().to(dtype).float() for t in (x, weight))
        x.requires_grad_()
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate" if padding == "replicate" else "constant")
    expected = F.conv2d(padded, weight, bias)
    expected = F.relu(expected) if relu else expected
    incoming = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, x, incoming)
    conv = FrozenConv(weight, bias, dtype=dtype, padding=padding)
    result = conv(x.to(dtype_of_maps(dtype)), relu=relu).float()
    (grad,) = torch.autograd.grad(result, x, incoming)
    return result, grad, expected, expected_grad


@NEEDS_INT8
def test_rounded_convolutions_are_close(maps):
    torch.manual_seed(0)
    x, weight, bias = torch.rand(2, 6, 9, 14), torch.randn(5, 6, 3, 3), torch.randn(5)
    expected = F.conv2d(x, weight, bias, padding=1)
    result = FrozenConv(weight, bias, dtype=torch.int8)(x.to(maps), rounded=True)
    assert result.dtype == maps
    error = result.float() - expected
    assert 0 < error.norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("size", [(8, 8), (6, 8), (8, 6), (6, 6)])
def test_what_follows_may_work_in_place(always_winograd, size):
    x = torch.randn(1, 6, *size, requires_grad=True)
    FrozenConv(torch.randn(5, 6, 3, 3), torch.randn(5))(x).relu_().sum().backward()
    assert x.grad.abs().sum() > 0
