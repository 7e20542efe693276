"""Running a trained network on images."""

import torch
from torch import Tensor

from models.transformer_net import TransformerNet


@torch.inference_mode()
def stylize(net: TransformerNet, image: Tensor) -> Tensor:
    """Stylize images in one forward pass.

    Args:
        net: trained network; computes in its own device and precision.
        image: (B, 3, H, W) float32 RGB in [0, 1] on the network's device.

    Returns:
        (B, 3, H, W) float32 RGB in [0, 1].
    """
    return net(image).clamp(0, 1)
