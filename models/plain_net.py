"""A TransformerNet in plain operations, one after the other: for export, and to measure against."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.grain import add_grain
from models.layers import ConvLayer, UpsampleConvLayer
from models.transformer_net import TransformerNet


class PlainNet(nn.Module):
    """The same function as a TransformerNet, with its weights.

    Without what makes that one fast: no up-sampling in phases, no Winograd form, no operation that
    only PyTorch has.
    """

    def __init__(self, net: TransformerNet) -> None:
        super().__init__()
        self.net = net.to(memory_format=torch.contiguous_format)

    def forward(self, image: Tensor) -> Tensor:
        """Stylize images.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], H and W 5 or more.

        Returns:
            (B, 3, H, W) RGB around [0, 1], with H and W rounded up to multiples of 4 times the
            stem's stride; what is too much is to be cut off.
        """
        net, x = self.net, add_grain(image, self.net.noise)
        for layer in net.encoder:
            x = F.relu(_conv_norm(x, layer))
        for block in net.trunk:
            x = x + _conv_norm(F.relu(_conv_norm(x, block.conv1)), block.conv2)
        for layer in net.decoder:
            x = F.relu(_up_conv_norm(x, layer))
        x = F.conv2d(_reflect(x, net.padding), net.to_rgb.weight, net.to_rgb.bias)
        return net.to_image(x)


def _conv_norm(x: Tensor, layer: ConvLayer) -> Tensor:
    x = F.conv2d(_reflect(x, layer.padding), layer.conv.weight, stride=layer.conv.stride)
    return F.instance_norm(x, weight=layer.norm.weight, bias=layer.norm.bias, eps=layer.norm.eps)


def _up_conv_norm(x: Tensor, layer: UpsampleConvLayer) -> Tensor:
    if layer.transposed:
        weight = layer.conv.weight.transpose(0, 1)
        x = F.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    else:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.conv2d(_reflect(x, 1), layer.conv.weight)
    return F.instance_norm(x, weight=layer.norm.weight, bias=layer.norm.bias, eps=layer.norm.eps)


def _reflect(x: Tensor, padding: int) -> Tensor:
    return F.pad(x, (padding,) * 4, mode="reflect")
