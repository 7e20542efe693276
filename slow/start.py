"""What a scale begins with: content and style images in its size, and for the first scale an image
to optimise.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from media import resize
from media.images import scaled_size
from models.loss_settings import LossSettings
from models.vgg import stride
from slow.settings import SlowSettings, scales

# Standard deviation of the noise to start from, around a medium grey. White noise of full contrast
# would still be visible after hundreds of steps: the features hardly react to the finest grain.
NOISE = 0.02


def resize_long_side(image: Tensor, size: int) -> Tensor:
    """An image (1, C, H, W) with a longer side of this many px, as by media.resize."""
    return resize(image, scaled_size(image.shape[-2:], size))


def coarsest_stride(loss: LossSettings) -> int:
    """Px of the image for each position of the deepest layer: no image may be smaller."""
    return max(map(stride, loss.content_layers + loss.style_layers))


def style_size(style: Tensor, settings: SlowSettings, size: int) -> int:
    """Longer side of a style image at a scale: in proportion, but never enlarged.

    Where it is too small for a scale, the smaller scales have already laid out large strokes.
    """
    return min(max(style.shape[-2:]), max(1, round(settings.style_scale * size)))


def drop_thin_scales(
    settings: SlowSettings, loss: LossSettings, images: Sequence[Tensor]
) -> SlowSettings:
    """The same settings without the scales at which a picture, the content image or one of the
    style images after it, would be too thin for the loss network.
    """
    needed = coarsest_stride(loss)
    least = 0.0
    for number, image in enumerate(images):
        shorter, longer = sorted(image.shape[-2:])
        scale = 1 if number == 0 else settings.style_scale
        least = max(least, needed * longer / shorter / scale)
    if not settings.min_size or least <= settings.min_size:
        return settings
    return replace(settings, min_size=min(settings.size, math.ceil(least)))


def check_sizes(
    paths: Sequence[Path],
    images: Sequence[Tensor],
    settings: SlowSettings,
    loss: LossSettings,
    *,
    remedy: str,
) -> None:
    """ValueError if a picture is too small for the loss network at the smallest scale that
    drop_thin_scales leaves.

    Args:
        paths: of the pictures, for the message.
        images: the content image, then the style images.
        settings, loss: of the run.
        remedy: what to do about it, for the message.
    """
    needed = coarsest_stride(loss)
    size = scales(drop_thin_scales(settings, loss, images))[0].size
    for number, (path, image) in enumerate(zip(paths, images, strict=True)):
        longer = size if number == 0 else style_size(image, settings, size)
        side = min(resize_long_side(image, longer).shape[-2:])
        if side < needed:
            raise ValueError(
                f"{path} is too small: {side} px at the smallest scale, where the layers need "
                f"{needed} px; {remedy}"
            )


def start_image(
    content: Tensor, style: Sequence[Tensor], settings: SlowSettings, init: Tensor | None
) -> Tensor:
    """The first image (1, 3, H, W), of the size of the content image: a copy, with one plane after
    the other in memory, because L-BFGS works on flat vectors.
    """
    size = content.shape[-2:]
    if init is None and settings.init == "style":
        init = style[0]
    if init is not None:
        return resize(init.to(content), size).clamp(0, 1).contiguous()
    if settings.init == "content":
        return content.clone(memory_format=torch.contiguous_format)
    if settings.init == "noise":
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(content.shape, generator=generator)
        return (0.5 + NOISE * noise).to(content.device)
    raise ValueError(f"unknown init '{settings.init}'; choose content, noise, style or an image")
