"""The perceptual loss shared by the slow and the fast path: content, style, total variation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.loss_settings import LossSettings
from models.style import STYLE_LOSSES, Statistics
from models.tiles import Tile, split
from models.vgg import VGG19Features, stride

TARGET_TILE = 512  # px; the targets of larger images are computed tile by tile


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels, rows plus columns.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].

    Returns:
        float32 scalar; 0 for a flat image.
    """
    rows = (image[:, :, 1:] - image[:, :, :-1]).float()
    columns = (image[:, :, :, 1:] - image[:, :, :, :-1]).float()
    return sum(d.square().mean() for d in (rows, columns) if d.numel())


@dataclass(frozen=True)
class LossTerms:
    """Float32 scalars: the weighted sum to minimise, and its terms before weighting; and by layer,
    without gradient, the errors whose means the content and the style term are.
    """

    total: Tensor
    content: Tensor
    style: Tensor
    tv: Tensor
    content_errors: dict[str, Tensor]
    style_errors: dict[str, Tensor]


class PerceptualLoss(nn.Module):
    """Distance of an image from the content of one picture and the style of others.

    Gatys et al. (arXiv 1508.06576) minimise it over the pixels of one image, Johnson et al. (arXiv
    1603.08155) over the weights of a network. Departures: every term is a mean over elements and
    layers instead of a sum, unless the settings ask for one. Each layer's is divided by the energy
    (mean square) that the style image has there, its Gram matrix for the style and its features for
    the content, which a painting of this style comes to have too. Without this, relu3_3 alone makes
    up nearly all of the style loss, and the deep layers, which see swirls and stars, next to none.

    Everything that it needs of an image is a mean over positions, so that it can be put together
    from parts of the image: `means` of them, and `terms` of their sum.

    Args:
        settings: layers and weights.
        style: style images, each (1, 3, H, W) RGB in [0, 1], of any size each.
        style_blend: a weight for each style image; equal by default. Their statistics and energies
            are averaged.
        style_masks: for each style image the weights of its pixels, (1, 1, H, W) of its size, or
            None; the style is taken from where they are large.
        dtype: precision of the network's convolutions; statistics and losses are float32.
        vgg: a loss network for these settings, to be shared; a new one by default.

    Raises:
        ValueError: a style image is too small for the layers, or the blend does not fit the images.
    """

    def __init__(
        self,
        settings: LossSettings,
        style: Sequence[Tensor],
        *,
        style_blend: Sequence[float] | None = None,
        style_masks: Sequence[Tensor | None] | None = None,
        dtype: torch.dtype = torch.float32,
        vgg: VGG19Features | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.vgg = vgg or loss_network(settings, dtype=dtype, device=style[0].device)
        self.style_loss = STYLE_LOSSES[settings.style_loss]
        masks = style_masks or [None] * len(style)
        self._set_targets(style, style_blend or [1.0] * len(style), masks)

    @torch.no_grad()
    def _set_targets(
        self, style: Sequence[Tensor], blend: Sequence[float], masks: Sequence[Tensor | None]
    ) -> None:
        if len(blend) != len(style) or not (min(blend) >= 0 and 0 < sum(blend) < float("inf")):
            raise ValueError(f"style_blend {list(blend)} does not fit {len(style)} style images")
        self.style_targets: dict[str, Statistics] = {}
        self.energies = dict.fromkeys(self.settings.content_layers, 0.0)
        layers = {*self.settings.style_layers, *self.settings.content_layers}
        for image, share, mask in zip(style, blend, masks, strict=True):
            if not share:
                continue
            guides = {} if mask is None else layer_guides(mask, layers)
            for tile in split(image.shape[-2:], TARGET_TILE, self.vgg.layers):
                self._add_targets(image, tile, share / sum(blend), guides)
        self.style_error_of = {
            layer: self.style_loss.error_from(target)
            for layer, target in self.style_targets.items()
        }

    def _add_targets(
        self, image: Tensor, tile: Tile, share: float, guides: dict[str, Tensor]
    ) -> None:
        """Add one tile's statistics and energies to those of all style images."""
        for layer, features in self.vgg.by_layer(tile.crop(image)):
            features = tile.inside(features, layer)
            guide = tile.of_whole(guides[layer], layer) if guides else None
            part = share * tile.share(layer)
            if layer in self.settings.style_layers:
                statistics = self.style_loss.statistics(features, guide)
                so_far = self.style_targets.get(layer, (0.0,) * len(statistics))
                self.style_targets[layer] = tuple(
                    a + part * b.mean(0) for a, b in zip(so_far, statistics, strict=True)
                )
            if layer in self.energies:
                squares = features.float().square()
                energy = (squares if guide is None else squares * guide).mean()
                self.energies[layer] = self.energies[layer] + part * energy

    @torch.no_grad()
    def content_targets(self, content: Tensor) -> dict[str, Tensor]:
        """Features of a content image (B, 3, H, W), RGB in [0, 1], to compare with."""
        layers = self.settings.content_layers
        tiles = split(content.shape[-2:], TARGET_TILE, layers)
        if len(tiles) == 1:
            return self.vgg(content, layers)
        targets = {}
        for tile in tiles:
            features = self.vgg(tile.crop(content), layers)
            for layer, values in features.items():
                if layer not in targets:
                    whole = [side // stride(layer) for side in tile.size]
                    targets[layer] = values.new_empty((*values.shape[:2], *whole)).contiguous(
                        memory_format=torch.channels_last
                    )
                tile.of_whole(targets[layer], layer).copy_(tile.inside(values, layer))
        return targets

    def guides(self, size: tuple[int, int]) -> dict[str, Tensor]:
        """By layer, the weights (R, 1, h, w) that the positions of an image of this size have in
        the style's statistics; here none.
        """
        return {}

    def means(
        self,
        image: Tensor,
        content_targets: dict[str, Tensor],
        guides: dict[str, Tensor],
        tile: Tile | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Statistics]]:
        """All that the loss needs of an image, by layer: means over its positions.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], or the crop of a tile.
            content_targets: from content_targets, for the whole image.
            guides: from guides, for the whole image.
            tile: the part whose positions count.

        Returns:
            Errors of the content layers, relative to the style's energy, float32 scalars; and what
            the style loss needs of the style layers, (B, ...) each, or (R, ...) with guides.
        """
        errors, statistics = {}, {}
        for layer, features in self.vgg.by_layer(image):
            inside, target, guide = features, content_targets.get(layer), guides.get(layer)
            if tile is not None:
                inside = tile.inside(features, layer)
                target = None if target is None else tile.of_whole(target, layer)
                guide = None if guide is None else tile.of_whole(guide, layer)
            if target is not None:
                num_elements = content_targets[layer][0].numel()  # with those of other tiles
                errors[layer] = self._content_error(layer, inside, target, num_elements)
            if layer in self.style_targets:
                statistics[layer] = self.style_loss.statistics(inside, guide)
        return errors, statistics

    def _content_error(
        self, layer: str, features: Tensor, target: Tensor, num_elements: int
    ) -> Tensor:
        difference = features - target
        if self.settings.content_loss == "l1":
            error = difference.float().abs().mean() / self.energies[layer].sqrt()
        else:
            error = _MeanSquare.apply(difference) / self.energies[layer]
        return num_elements * error if self.settings.content_reduction == "sum" else error

    def terms(
        self, content_errors: dict[str, Tensor], statistics: dict[str, Statistics], tv: Tensor
    ) -> LossTerms:
        """The loss from what `means` returns and the total variation of an image."""
        weights = self.settings
        content = torch.stack(list(content_errors.values())).mean()
        style_errors = {
            layer: self.style_error_of[layer](statistics[layer]) for layer in weights.style_layers
        }
        shares = weights.style_layer_weights or [1.0] * len(style_errors)
        style = sum(s * e for s, e in zip(shares, style_errors.values(), strict=True)) / sum(shares)
        total = (
            weights.content_weight * content + weights.style_weight * style + weights.tv_weight * tv
        )
        by_layer = (
            {layer: error.detach() for layer, error in errors.items()}
            for errors in (content_errors, style_errors)
        )
        return LossTerms(total, content, style, tv, *by_layer)

    def forward(self, image: Tensor, content_targets: dict[str, Tensor]) -> LossTerms:
        """Mean loss of images (B, 3, H, W), RGB in [0, 1], of the size of the content images."""
        guides = self.guides(image.shape[-2:])
        means = self.means(image, content_targets, guides)
        # Without a weight it needs no gradient.
        tv = total_variation(image if self.settings.tv_weight else image.detach())
        return self.terms(*means, tv)


class _MeanSquare(torch.autograd.Function):
    """Mean of squares, in float32 at least, without another tensor of their size."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return torch.linalg.vector_norm(x, dtype=dtype).square() / x.numel()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        factor = grad * (2 / x.numel())
        if x.dtype == torch.float16:  # which does not hold so small a factor
            return (x.float() * factor).to(x.dtype)
        return x * factor


def layer_guides(masks: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
    """Weights of a layer's positions from those of the pixels.

    Args:
        masks: (R, 1, H, W), not negative, none of them 0 everywhere.
        layers: layer names.

    Returns:
        By layer (R, 1, h, w): averages over the pixels that a position stands for, scaled to a mean
        of 1.
    """
    guides = {}
    for layer in layers:
        guide = F.avg_pool2d(masks, stride(layer))
        # The last rows and columns, too few for another position, may be all that a mask has.
        whole = F.interpolate(masks, guide.shape[-2:], mode="area")
        guide = torch.where(guide.amax((2, 3), keepdim=True) > 0, guide, whole)
        guides[layer] = guide / guide.mean((2, 3), keepdim=True).clamp(min=1e-12)
    return guides


def loss_network(
    settings: LossSettings,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> VGG19Features:
    """The network whose features these settings compare."""
    return VGG19Features(
        settings.content_layers + settings.style_layers,
        weights=settings.vgg,
        pooling=settings.pooling,
        padding=settings.padding,
        dtype=dtype,
        device=device,
    )
