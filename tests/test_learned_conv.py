import pytest
import torch
import torch.nn.functional as F

from models import learned_conv
from models.learned_conv import learned_int8_conv
from models.transformer_net import TransformerNet
from tests.conftest import NEEDS_INT8

pytestmark = NEEDS_INT8


def with_gradients(x, weight, convolve, incoming):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = convolve(x, weight)
    return y.detach(), *torch.autograd.grad(y, (x, weight), incoming)


@pytest.mark.parametrize("most_products", [learned_conv.MOST_PRODUCTS, 50])
@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 2), (9, 3), (1, 9), (4, 1)])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_are_close(monkeypatch, most_products, kernel_size, positive, dtype):
    monkeypatch.setattr(learned_conv, "MOST_PRODUCTS", most_products)
    torch.manual_seed(0)
    x, weight = torch.randn(2, 6, 12, 14), torch.randn(5, 6, *kernel_size)
    x = x.relu() if positive else x
    incoming = torch.randn_like(F.conv2d(x, weight))
    all_exact = with_gradients(x, weight, F.conv2d, incoming)
    all_rounded = with_gradients(x.to(dtype), weight, learned_int8_conv, incoming.to(dtype))
    assert [result.dtype for result in all_rounded] == [dtype, dtype, torch.float32]
    for exact, rounded in zip(all_exact, all_rounded, strict=True):
        assert 0 < (rounded - exact).norm() < 0.02 * exact.norm()


def test_small_gradients_of_one_sign_are_not_lost():
    torch.manual_seed(0)
    x, weight = torch.rand(2, 6, 12, 14), torch.randn(5, 6, 3, 3)
    incoming = torch.full_like(F.conv2d(x, weight), -0.001)
    incoming[:, :, 3, 3] = 1.0  # all others are rounded to 0
    exact, rounded = (
        with_gradients(x, weight, convolve, incoming)[2]
        for convolve in (F.conv2d, learned_int8_conv)
    )
    assert (rounded - exact).norm() < 0.1 * exact.norm()


def test_no_gradient_gives_none():
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    _, *gradients = with_gradients(x, weight, learned_int8_conv, torch.zeros(1, 4, 6, 6))
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_learns_about_the_same_from_8_bit_integers(stem_stride, dtype):
    torch.manual_seed(0)
    net = TransformerNet(width=8, num_blocks=2, stem_stride=stem_stride)
    image = torch.rand(2, 3, 48, 40)
    target = torch.rand(2, 3, 48, 40)
    gradients, outputs = [], []
    for use in (False, True):
        net.use_int8(use)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            outputs.append(net(image))
        loss = (outputs[-1] - target).square().mean()
        gradients.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, net.parameters())])
        )
    assert 0 < (outputs[1] - outputs[0]).abs().max() < 0.02
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98
