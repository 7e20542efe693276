"""Mixing two images of the same scene: a photo and its painting, or two paintings."""

import torch.nn.functional as F
from torch import Tensor

from fast.bandwise import bandwise

RADIUS = 5  # px: half the side of the square within which contrast is measured


def mix(first: Tensor, second: Tensor, amount: float) -> Tensor:
    """Mix two images without the veil that lies over a plain average.

    Strokes and edges of the two rarely coincide, so that an average has less contrast than either
    image. Here the details are strengthened, place by place and at most by 2, until their contrast
    is the average of the two contrasts.

    Args:
        first, second: (B, 3, H, W) RGB, float32 in [0, 1] or uint8.
        amount: 0 gives the first image, 1 the second.

    Returns:
        An image of the first one's kind.
    """

    def mixed(first: Tensor, second: Tensor) -> Tensor:
        bases = _mean(first), _mean(second)
        details = first - bases[0], second - bases[1]
        detail = details[0].lerp(details[1], amount)
        wanted = _contrast(details[0]).lerp(_contrast(details[1]), amount)
        gain = (wanted / (_contrast(detail) + 1e-3)).clamp(1, 2)
        return bases[0].lerp(bases[1], amount) + gain * detail

    return bandwise(mixed, first, second, halo=2 * RADIUS)


def composite(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """One image where a mask is 1, another one where it is 0.

    Args:
        mask: (1, 1, H, W), float32 in [0, 1] or uint8.
        inside, outside: (B, 3, H, W) RGB of the same kinds.

    Returns:
        An image of the inner one's kind.
    """
    return bandwise(lambda i, o, m: o + m * (i - o), inside, outside, mask)


def _mean(image: Tensor) -> Tensor:
    """Of the square around each pixel, as far as it lies in the image."""
    return F.avg_pool2d(image, 2 * RADIUS + 1, 1, RADIUS, count_include_pad=False)


def _contrast(detail: Tensor) -> Tensor:
    """(B, 1, H, W): root mean square within the square around each pixel."""
    return _mean(detail.square().mean(1, keepdim=True)).sqrt()
