import pytest
import torch
import torch.nn.functional as F

from models.padding import _MirroredBorder
from tests.conftest import assert_same_gradients


@pytest.mark.parametrize(("padding", "skipped", "mode"), [(4, 1, "reflect"), (1, 0, "replicate")])
def test_mirrored_border_is_that_of_pytorch(padding, skipped, mode):
    x = torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last).requires_grad_(True)
    expected = F.pad(x, (padding,) * 4, mode=mode)
    result = _MirroredBorder.apply(x, padding, skipped)
    assert torch.equal(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert_same_gradients(result, expected, (x,), rtol=1e-5, atol=1e-5)
