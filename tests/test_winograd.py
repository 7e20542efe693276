import pytest
import torch
import torch.nn.functional as F

from models.winograd import learned_winograd_conv, pays
from tests.conftest import assert_same_gradients


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
