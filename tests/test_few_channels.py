import pytest
import torch
import torch.nn.functional as F

from models.few_channels import MULTIPLE, columns_as_channels
from tests.conftest import assert_same_gradients


@pytest.mark.parametrize(("size", "kernel_size", "stride"), [(17, 9, 1), (20, 9, 2), (6, 3, 1)])
def test_convolution_stays_the_same(size, kernel_size, stride):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 11, size, requires_grad=True)
    kernel = torch.randn(4, 3, kernel_size, kernel_size, requires_grad=True)
    expected = F.conv2d(x, kernel, stride=stride)
    columns, column = columns_as_channels(x, kernel, stride)
    assert column.shape[1:] == (columns.shape[1], kernel_size, 1)
    assert columns.shape[1] % MULTIPLE == 0
    assert columns.is_contiguous(memory_format=torch.channels_last)
    result = F.conv2d(columns, column, stride=(stride, 1))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert_same_gradients(result, expected, (x, kernel), rtol=1e-4, atol=1e-4)
