import pytest
import torch

from models.layers import ConvLayer, ResidualBlock, UpsampleConvLayer
from models.transformer_net import TransformerNet


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 4), (13, 22), (33, 47)])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_output_has_exactly_the_size_of_the_input(size, stem_stride):
    net = TransformerNet(width=4, num_blocks=1, stem_stride=stem_stride)
    result = net(torch.rand(2, 3, *size))
    assert result.shape == (2, 3, *size)
    assert result.isfinite().all()


def test_autocast_decides_on_the_type_of_all_feature_maps():
    net, types = TransformerNet(width=4, num_blocks=1), set()
    for module in net.modules():
        if isinstance(module, ConvLayer | UpsampleConvLayer | ResidualBlock):
            module.register_forward_hook(lambda _, inputs, out: types.add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(1, 3, 16, 16)).dtype == torch.float32
    assert types == {torch.bfloat16}


def test_width_and_blocks_change_the_network():
    small, large = TransformerNet(width=4, num_blocks=1), TransformerNet(width=8, num_blocks=3)
    assert len(large.trunk) == 3
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())


def test_classic_network_has_johnsons_parameters_less_the_biases_that_normalisation_removes():
    assert sum(p.numel() for p in TransformerNet().parameters()) == 1_679_235 - 1_600


def test_stem_stride_halves_the_size_of_all_feature_maps():
    sizes = []
    for stem_stride in (1, 2):
        net = TransformerNet(width=4, num_blocks=1, stem_stride=stem_stride)
        net.to_rgb.register_forward_hook(lambda _, inputs, out: sizes.append(out.shape[1:]))
        net(torch.rand(1, 3, 32, 64))
    assert sizes == [(3, 32, 64), (12, 16, 32)]


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
        ({"grain": -1}, "from 0 to 64 grey levels"),
        ({"grain": 10**9}, "from 0 to 64 grey levels"),
        ({"stem_stride": 3}, "must be 1 or 2"),
        ({"stem_stride": 2, "margin": 3}, "divide the margin, 3"),
    ],
)
def test_impossible_network_is_refused(wrong, what):
    with pytest.raises(ValueError, match=what):
        TransformerNet(**wrong)
