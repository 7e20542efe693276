import pytest
import torch
import torch.nn.functional as F

from models import winograd
from models.winograd import FrozenWinogradConv, learned_winograd_conv, pays
from tests.conftest import assert_same_gradients


@pytest.mark.parametrize("strip", [winograd.STRIP, 1, 36 * 2 * 4 * 6 * 2])  # all, 1, 2 block rows
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (8, 8), (9, 14), (19, 16)])
def test_equals_the_direct_convolution_and_its_gradient(monkeypatch, size, strip):
    monkeypatch.setattr(winograd, "STRIP", strip)
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size, requires_grad=True)
    weight, bias = torch.randn(5, 6, 3, 3), torch.randn(5)
    expected = F.conv2d(x, weight, bias, padding=1)
    incoming = torch.randn_like(expected)
    (expected_grad,) = torch.autograd.grad(expected, x, incoming)

    result = FrozenWinogradConv(weight, bias)(x)
    (grad,) = torch.autograd.grad(result, x, incoming)

    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (6, 8), (8, 6), (6, 6)])
def test_what_follows_may_work_in_place(size):
    x = torch.randn(1, 6, *size, requires_grad=True)
    FrozenWinogradConv(torch.randn(5, 6, 3, 3), torch.randn(5))(x).relu_().sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(3, 3), (6, 7), (10, 14)])
def test_learned_weights_get_the_direct_convolutions_gradients(size):
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size, requires_grad=True)
    weight = torch.randn(5, 6, 3, 3, requires_grad=True)
    expected, result = F.conv2d(x, weight), learned_winograd_conv(x, weight)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(result, expected, (x, weight), rtol=1e-4, atol=1e-3)


def test_is_chosen_for_wide_float32_layers_on_the_cpu_alone():
    wide, narrow = torch.empty(8, 128, 3, 3), torch.empty(8, 64, 3, 3)
    assert pays("cpu", torch.float32, wide)
    assert not pays("cpu", torch.float32, narrow)
    assert not pays("cpu", torch.bfloat16, wide)
    assert not pays("cuda", torch.float32, wide)
    assert not pays("cpu", torch.float32, torch.empty(8, 128, 2, 2))
