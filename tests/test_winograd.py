import pytest
import torch
import torch.nn.functional as F

from models.winograd import FrozenWinogradConv, winograd_conv3x3, winograd_kernel


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (8, 8), (9, 14)])
def test_equals_the_direct_convolution_and_its_gradient(size):
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


def test_without_padding_and_bias():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 7, 10, 3), torch.randn(4, 3, 3, 3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight).permute(0, 2, 3, 1)
    result = winograd_conv3x3(x, winograd_kernel(weight), None, padding=0)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
