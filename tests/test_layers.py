import pytest
import torch
import torch.nn.functional as F

from models.layers import RowConv2d, UpsampleConvLayer
from tests.conftest import NEEDS_INT8, assert_same_gradients


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (6, 9)])
def test_up_convolution_equals_nearest_up_sampling_and_convolution(size, compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    layer = UpsampleConvLayer(6, 5)
    x = torch.randn(2, 6, *size, requires_grad=True)
    up = F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), (1, 1, 1, 1), mode="reflect")
    expected = F.relu(F.instance_norm(layer.conv(up), eps=layer.norm.eps))
    result = layer(x)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    inputs = (x, layer.conv.weight)
    assert_same_gradients(result, expected, inputs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (6, 9)])
def test_transposed_up_convolution_equals_the_direct_one(size):
    torch.manual_seed(0)
    layer = UpsampleConvLayer(6, 5, transposed=True)
    x = torch.randn(2, 6, *size)
    weight = layer.conv.weight.transpose(0, 1)
    up = F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    torch.testing.assert_close(layer(x), F.relu(F.instance_norm(up)), rtol=1e-4, atol=1e-4)


def test_convolution_by_rows_equals_the_direct_one():
    torch.manual_seed(0)
    conv = RowConv2d(5, 3, 9)
    x = torch.randn(2, 5, 12, 17, requires_grad=True)
    expected = F.conv2d(x, conv.weight, conv.bias)
    result = conv(x)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert_same_gradients(result, expected, (x, conv.weight, conv.bias), rtol=1e-4, atol=1e-4)


@NEEDS_INT8
@pytest.mark.parametrize(("kernel_size", "out"), [(9, 3), (5, 12)])
def test_convolution_by_blocks_has_nearly_the_same_gradients(kernel_size, out):
    torch.manual_seed(0)
    conv = RowConv2d(5, out, kernel_size)
    conv.int8 = True
    x = torch.randn(2, 5, 14, 24, requires_grad=True)
    results = conv(x), F.conv2d(x, conv.weight, conv.bias)
    incoming = torch.randn_like(results[0])
    inputs = x, conv.weight, conv.bias
    gradients = (torch.autograd.grad(result, inputs, incoming) for result in results)
    for rounded, exact in zip(*([*r] for r in gradients), strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()
    assert 0 < (results[0] - results[1]).norm() < 0.02 * results[1].norm()


@pytest.mark.parametrize("channels", [4, 16, 32])
def test_convolution_by_blocks_is_close_to_the_direct_one(channels):
    torch.manual_seed(0)
    conv = RowConv2d(channels, 3, 9).bfloat16()
    x = torch.randn(1, channels, 20, 40).bfloat16().contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(x.float(), conv.weight.float(), conv.bias.float())
    error = conv.convolve(x, conv.kernel()) - expected
    assert error.norm() < 0.01 * expected.norm()
