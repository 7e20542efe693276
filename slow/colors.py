"""Whose colours the painting has: the style's or the content's (Gatys et al., arXiv 1606.05897)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from media import resize
from media.colors import (
    keep_colors,
    luma,
    match_histogram,
    match_luma,
    match_mean_and_covariance,
)

COLORS = ("style", "luminance", "match", "histogram")


def match_colors(
    content: Tensor, style: Sequence[Tensor], colors: str
) -> tuple[Tensor, list[Tensor], Callable[[Tensor], Tensor]]:
    """Prepare the images for the transfer, and make the function that gives a painting its colours.

    With "luminance" all images become grey: only the brightness is transferred. The style images
    first get the mean and the spread of the content's brightness. With "match" and "histogram" they
    first get the content's colours.

    Args:
        content: (1, 3, H, W) RGB in [0, 1].
        style: style images of the same kind, of any size each.
        colors: one of COLORS.

    Returns:
        The content image, the style images, and a function from a painting of any size to an RGB
        image (1, 3, h, w) in [0, 1]. In "luminance" images and painting have one channel.
    """
    if colors == "luminance":
        styles = [match_luma(image, content) for image in style]

        def colored(painting: Tensor) -> Tensor:
            photo = resize(content, painting.shape[-2:])
            return keep_colors(painting.expand(-1, 3, -1, -1), photo).clamp(0, 1)

        return luma(content), styles, colored
    match = {"match": match_mean_and_covariance, "histogram": match_histogram}.get(colors)
    styles = [match(image, content) for image in style] if match else list(style)
    return content, styles, lambda painting: painting.clamp(0, 1)
