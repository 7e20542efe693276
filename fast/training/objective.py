"""What a network is trained for: photos painted in the style of one picture."""

import torch

from media import Picture, as_float
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss


def make_objective(
    style: Picture,
    settings: LossSettings,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PerceptualLoss:
    """The perceptual loss of a style picture, of which transparent parts do not count.

    Args:
        style: in the size in which its strokes are to be learned.
        settings: layers and weights.
        device: where to compute.
        dtype: precision of the loss network's convolutions.

    Raises:
        ValueError: it is too thin for the layers, or transparent all over.
    """
    image, opacity = style.rgb.to(device), None
    if not style.is_opaque:
        opacity = as_float(torch.tensor(style.alpha)[None, None]).to(device)
        if not opacity.any():
            raise ValueError("it is transparent all over")
        # What lies hidden may be black: without an edge that the layers would see.
        mean = (opacity * image).mean((2, 3), keepdim=True) / opacity.mean()
        image = mean.lerp(image, opacity)
    return PerceptualLoss(settings, [image], style_masks=[opacity], dtype=dtype)
