import pytest
import torch
import torch.nn.functional as F

from models import few_channels
from models.few_channels import MULTIPLE, OUTPUT_MULTIPLE, PIXELS, ConvFromFew, ConvToFew, shifted
from tests.conftest import assert_same_gradients

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.mark.parametrize("width", [17, 18, 19, 20, 24, 25])
@pytest.mark.parametrize(("kernel_size", "stride"), [(9, 1), (9, 2), (3, 1), (5, 3)])
def test_convolution_of_few_channels(width, kernel_size, stride):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 11, width, requires_grad=True)
    kernel = torch.randn(4, 3, kernel_size, kernel_size, requires_grad=True)
    bias = torch.randn(4, requires_grad=True)
    expected = F.conv2d(x, kernel, bias, stride=stride)
    conv = ConvFromFew(kernel, bias, stride=(stride, stride))
    result = conv(x)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert conv.kernel.shape[0] == PIXELS * 4 and conv.kernel.shape[1] % MULTIPLE == 0
    torch.testing.assert_close(result, expected, **CLOSE)
    assert_same_gradients(result, expected, (x, kernel, bias), **CLOSE)


@pytest.mark.parametrize("width", [9, 10, 17, 18, 19, 20, 24, 25])
@pytest.mark.parametrize(("kernel_size", "padding"), [(9, 0), (5, 0), (3, 1), (3, 2), (9, 5)])
def test_convolution_to_few_channels(width, kernel_size, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 7, 11, width).to(memory_format=torch.channels_last).requires_grad_()
    kernel = torch.randn(3, 7, kernel_size, kernel_size, requires_grad=True)
    expected = F.conv2d(x, kernel, padding=padding)
    conv = ConvToFew(kernel, padding=padding)
    result = conv(x)
    assert len(conv.kernel) % OUTPUT_MULTIPLE == 0
    torch.testing.assert_close(result, expected, **CLOSE)
    assert_same_gradients(result, expected, (x, kernel), **CLOSE)


@pytest.mark.parametrize("padding", [1, 2])
def test_convolution_of_few_channels_pads(padding):
    torch.manual_seed(0)
    x, kernel = torch.randn(2, 3, 7, 10), torch.randn(4, 3, 3, 3)
    result = ConvFromFew(kernel, padding=padding)(x)
    torch.testing.assert_close(result, F.conv2d(x, kernel, padding=padding), **CLOSE)


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_to_few_channels_of_an_input_as_small_as_its_kernel(size):
    torch.manual_seed(0)
    x, kernel = torch.randn(1, 7, size, size), torch.randn(3, 7, size, size)
    torch.testing.assert_close(ConvToFew(kernel)(x), F.conv2d(x, kernel), **CLOSE)


def test_rows_that_are_whole_blocks_are_not_copied(monkeypatch):
    x = torch.randn(1, 7, 9, 2 * PIXELS).to(memory_format=torch.channels_last)
    seen = []
    monkeypatch.setattr(few_channels.F, "conv2d", lambda x, *_, **__: seen.append(x) or x)
    monkeypatch.setattr(few_channels, "sum_of_shares", lambda x, *_, **__: x)
    ConvToFew(torch.randn(3, 7, 3, 3))(x)
    assert seen[0].shape == (1, 7 * PIXELS, 9, 2) and seen[0].data_ptr() == x.data_ptr()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_each_pixel_has_its_shifted_kernel():
    kernel = torch.tensor([[1.0, 2], [3, 4]])
    wanted = [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 1, 2], [0, 0, 3, 4]]
    assert shifted(kernel, pixels=2, stride=2).tolist() == wanted
