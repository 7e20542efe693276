import torch
import torch.nn.functional as F

from models.instance_norm import InstanceNorm
from tests.conftest import assert_same_gradients


def test_instance_norm_equals_torch_in_value_and_gradient():
    torch.manual_seed(0)
    norm = InstanceNorm(5)
    norm.weight.data, norm.bias.data = torch.rand(5), torch.rand(5)
    x = (3 * torch.randn(2, 5, 7, 6) + 1).requires_grad_(True)
    inputs = (x, norm.weight, norm.bias)
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias)
    result = norm(x)
    torch.testing.assert_close(result, expected)
    assert_same_gradients(result, expected, inputs, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_normalised_by_float32_statistics():
    torch.manual_seed(0)
    norm = InstanceNorm(5)
    x = (torch.randn(2, 5, 30, 30) + 20).bfloat16()  # whose mean and deviation differ in size
    result = norm(x)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), F.instance_norm(x.float()), rtol=0.01, atol=0.02)
