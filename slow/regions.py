"""Styles in regions: guided Gram matrices (Gatys et al., arXiv 1611.07865).

Every region has statistics of its own, weighted means over positions, and a style of its own. The
weights are the masks, averaged over the area that a position of a layer stands for. Multiplying
features by a mask would square its weights. Here they are not squared: where two regions meet
softly, their weights add up to 1, and no gap is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from media import resize
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss, layer_guides
from models.style import Statistics
from models.vgg import VGG19Features


@dataclass(frozen=True)
class Region:
    """A part of the result, and where its style comes from.

    Args:
        mask: (1, 1, H, W) float32 in [0, 1], of any size: where it lies in the content image.
            Pixels that no region covers stay as they are; regions that overlap share their pixels.
        style_blend: a weight for each style image; only their ratios count.
        style_masks: for each style image what to take from it, as `mask`, or None for all of it.

    Raises:
        ValueError: a weight is negative, or none is positive.
    """

    mask: Tensor
    style_blend: tuple[float, ...]
    style_masks: tuple[Tensor | None, ...]

    def __post_init__(self) -> None:
        if not (min(self.style_blend) >= 0 and 0 < sum(self.style_blend) < float("inf")):
            raise ValueError(
                f"style_blend {list(self.style_blend)} must be 0 or more, and one above 0"
            )
        shares = tuple(weight / sum(self.style_blend) for weight in self.style_blend)
        object.__setattr__(self, "style_blend", shares)


class RegionalLoss(PerceptualLoss):
    """The perceptual loss with a style for each region, weighted by the region's area.

    Each pixel is drawn to its region's style as strongly as if it were the whole image's. Content
    errors are relative to the mean energy of the styles of all regions.

    Args:
        settings: layers and weights.
        style: style images, each (1, 3, H, W) RGB in [0, 1], of any size each.
        regions: at least one.
        vgg: a loss network for these settings.

    Raises:
        ValueError: a style image is too small for the layers, or a mask is 0 everywhere.
    """

    def __init__(
        self,
        settings: LossSettings,
        style: Sequence[Tensor],
        regions: Sequence[Region],
        *,
        vgg: VGG19Features,
    ) -> None:
        masks = _share_overlaps([region.mask.to(style[0].device) for region in regions])
        areas = masks.mean((1, 2, 3)).tolist()
        if min(areas) == 0:
            raise ValueError(f"the mask of region {1 + areas.index(0)} is 0 everywhere")
        means = [
            sum(area * region.style_blend[k] for area, region in zip(areas, regions, strict=True))
            for k in range(len(style))
        ]
        super().__init__(settings, style, style_blend=means, vgg=vgg)
        parts = [
            PerceptualLoss(
                settings,
                style,
                style_blend=region.style_blend,
                style_masks=[
                    _fit_mask(m, s) for m, s in zip(region.style_masks, style, strict=True)
                ],
                vgg=vgg,
            )
            for region in regions
        ]
        self.masks = masks
        self.style_targets = {
            layer: tuple(
                torch.stack(values)
                for values in zip(*(part.style_targets[layer] for part in parts), strict=True)
            )
            for layer in settings.style_layers
        }
        self.energies = {
            layer: sum(a * part.energies[layer] for a, part in zip(areas, parts, strict=True))
            / sum(areas)
            for layer in settings.content_layers
        }
        self.style_error_of = {
            layer: _weigh_by_area([part.style_error_of[layer] for part in parts], areas)
            for layer in settings.style_layers
        }

    def guides(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """By layer (R, 1, h, w), each region's weight of each position."""
        masks = F.interpolate(self.masks, size, mode="area")
        return layer_guides(masks, self.settings.style_layers)


def keep_content_outside(
    regions: Sequence[Region], content: Tensor, picture: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """A function that turns a painting into an image, and shows the content where no region is.

    Beyond the reach of its features, the loss does not ask for changes there, but the optimiser's
    steps may still make some.

    Args:
        regions: what is painted.
        content: (1, 3, H, W) RGB in [0, 1].
        picture: from a painting, of any size, to an RGB image (1, 3, h, w) in [0, 1].
    """
    masks = _share_overlaps([region.mask.to(content.device) for region in regions])
    covered = masks.sum(0, keepdim=True)

    def make(painting: Tensor) -> Tensor:
        inside = picture(painting)
        size = inside.shape[-2:]
        share = F.interpolate(covered, size, mode="bilinear", antialias=True)
        return resize(content, size).lerp(inside, share)

    return make


def _weigh_by_area(
    errors: Sequence[Callable[[Statistics], Tensor]], areas: Sequence[float]
) -> Callable[[Statistics], Tensor]:
    """The sum of the regions' errors, each weighted by its area."""

    def error(statistics: Statistics) -> Tensor:
        return sum(
            area * error_of(tuple(values[number, None] for values in statistics))
            for number, (error_of, area) in enumerate(zip(errors, areas, strict=True))
        )

    return error


def _share_overlaps(masks: Sequence[Tensor]) -> Tensor:
    """Masks (R, 1, H, W) in the size of the largest, divided where their sum is above 1."""
    size = max((mask.shape[-2:] for mask in masks), key=lambda size: size.numel())
    masks = torch.cat([F.interpolate(mask, size, mode="bilinear") for mask in masks])
    return masks / masks.sum(0, keepdim=True).clamp(min=1)


def _fit_mask(mask: Tensor | None, image: Tensor) -> Tensor | None:
    """A mask in the size of its image."""
    return (
        None
        if mask is None
        else F.interpolate(mask.to(image.device), image.shape[-2:], mode="area")
    )
