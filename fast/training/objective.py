"""What a network is trained for: photos painted in the style of one picture."""

from pathlib import Path

import torch

from media import as_float, read_image
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss


def read_objective(
    style: Path,
    settings: LossSettings,
    style_size: int,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> PerceptualLoss:
    """The perceptual loss of a style picture, of which transparent parts do not count.

    Args:
        style: image file.
        settings: layers and weights.
        style_size: longer side in px to scale it to.
        device: where to compute.
        dtype: precision of the loss network's convolutions.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: it is no image, too thin for the layers, or transparent all over.
    """
    picture = read_image(style, long_side=style_size)
    image, opacity = picture.rgb.to(device), None
    if picture.alpha is not None:
        opacity = as_float(torch.tensor(picture.alpha)[None, None]).to(device)
        if not opacity.any():
            raise ValueError(f"--style {style} is transparent all over")
        # What lies hidden may be black: without an edge that the layers would see.
        mean = (opacity * image).mean((2, 3), keepdim=True) / opacity.mean()
        image = mean.lerp(image, opacity)
    try:
        return PerceptualLoss(settings, [image], style_masks=[opacity], dtype=dtype)
    except ValueError as error:
        raise ValueError(f"--style {style}: {error}") from error
