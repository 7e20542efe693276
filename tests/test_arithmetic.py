import pytest
import torch

from fast.arithmetic import extreme, mean_and_variance


@pytest.mark.parametrize(("pixels", "channels"), [(1, 3), (24, 3), (48, 7), (5, 32)])
def test_statistics_of_each_channel(pixels, channels):
    torch.manual_seed(0)
    values = torch.randn(pixels, channels) + torch.arange(channels)
    mean, variance = mean_and_variance(values)
    torch.testing.assert_close(mean, values.mean(0))
    torch.testing.assert_close(variance, values.var(0, correction=0), rtol=1e-4, atol=1e-6)
    assert torch.equal(extreme(torch.amin, values), values.amin(0))
