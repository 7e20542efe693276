import pytest
import torch
import torch.nn.functional as F

from models.instance_norm import InstanceNorm
from models.transformer_net import RowConv2d, TransformerNet, UpsampleConvLayer
from tests.conftest import assert_same_gradients


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (13, 22), (33, 47)])
def test_output_has_exactly_the_size_of_the_input(size):
    net = TransformerNet(width=4, num_blocks=1)
    result = net(torch.rand(2, 3, *size))
    assert result.shape == (2, 3, *size)
    assert result.isfinite().all()


def test_autocast_decides_on_the_type_of_all_feature_maps():
    net, types = TransformerNet(width=4, num_blocks=1), set()
    for name, module in net.named_modules():
        if not list(module.children()) and name != "to_rgb":
            module.register_forward_hook(lambda _, inputs, out: types.update((out.dtype,)))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    assert types == {torch.bfloat16}


def test_width_and_blocks_change_the_network():
    small, large = TransformerNet(width=4, num_blocks=1), TransformerNet(width=8, num_blocks=3)
    assert len(large.trunk) == 3
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())


def test_classic_network_has_johnsons_parameters_less_the_biases_that_normalisation_removes():
    assert sum(p.numel() for p in TransformerNet().parameters()) == 1_679_235 - 1_600


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


def test_layout_of_the_input_does_not_matter():
    net = TransformerNet(width=4, num_blocks=1).eval()
    image = torch.rand(1, 3, 20, 28)
    torch.testing.assert_close(net(image), net(image.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"width": 0}, "1 or more"),
        ({"num_blocks": 0}, "1 or more"),
        ({"margin": -1}, "from 0 to 64 px"),
        ({"margin": 10**9}, "from 0 to 64 px"),
    ],
)
def test_impossible_network_is_refused(wrong, what):
    with pytest.raises(ValueError, match=what):
        TransformerNet(**wrong)
