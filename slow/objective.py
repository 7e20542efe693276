"""What the optimisation minimises, as a function of the image alone."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.losses import LossTerms, PerceptualLoss, total_variation
from models.style import Statistics
from models.tiles import Tile, split

# Takes an image (1, 3, H, W) that requires a gradient, sets its .grad, and returns the loss.
Objective = Callable[[Tensor], LossTerms]


def tiled_objective(loss: PerceptualLoss, content: Tensor, side: int) -> Objective:
    """The loss and its gradient, in the memory of one tile. The size of the tiles changes the
    result only by rounding.

    All that the loss needs of an image are means over positions, which are sums over tiles. A first
    pass computes them without gradients. The gradient with respect to them is a small matrix for
    each layer. From it, a second pass computes the gradient of each tile's pixels; where tiles
    overlap, these gradients are added. (Galerne et al., arXiv 2212.13459, also make two passes, but
    drop the gradient of the overlap, which therefore has to be larger.) The last tile is passed
    only once, so a single tile, the whole image, needs only one pass.

    Args:
        loss: with the targets of the style.
        content: (1, 3, H, W) float32 RGB in [0, 1], of the image's size.
        side: longest side of a tile in px, without its halo. If it is at least the image's own, the
            image is computed as a whole, which is fastest.
    """
    tiles = split(content.shape[-2:], side, loss.vgg.layers)
    targets, guides = loss.content_targets(content), loss.guides(content.shape[-2:])

    *others, last = tiles

    def evaluate(image: Tensor) -> LossTerms:
        pixels = image.detach()
        means = None
        with torch.no_grad():
            for tile in others:
                parts = _tile_means(loss, tile, tile.crop(pixels), targets, guides)
                means = _add(means, parts)
        crop = last.crop(pixels).requires_grad_(True)
        parts = _tile_means(loss, last, crop, targets, guides)
        means = [mean.detach() for mean in _add(means, parts)]

        smooth = pixels.detach().requires_grad_(loss.settings.tv_weight > 0)
        for mean in means:
            mean.requires_grad_(True)
        terms = loss.terms(*_unpack(loss, means), total_variation(smooth))
        terms.total.backward()

        image.grad = torch.zeros_like(pixels) if smooth.grad is None else smooth.grad
        gradients = [mean.grad for mean in means]
        _pass_back(parts, gradients)
        last.crop(image.grad).add_(crop.grad)
        for tile in others:
            crop = tile.crop(pixels).requires_grad_(True)
            _pass_back(_tile_means(loss, tile, crop, targets, guides), gradients)
            tile.crop(image.grad).add_(crop.grad)
        return terms

    return evaluate


def _tile_means(
    loss: PerceptualLoss,
    tile: Tile,
    crop: Tensor,
    targets: dict[str, Tensor],
    guides: dict[str, Tensor],
) -> list[Tensor]:
    """A tile's share of each content error, and of each of the style statistics."""
    errors, statistics = loss.means(crop, targets, guides, tile)
    by_layer = [
        *((layer, (errors[layer],)) for layer in loss.settings.content_layers),
        *((layer, statistics[layer]) for layer in loss.settings.style_layers),
    ]
    return [tile.share(layer) * value for layer, values in by_layer for value in values]


def _add(means: list[Tensor] | None, parts: list[Tensor]) -> list[Tensor]:
    """Add one tile's means to those of the tiles before it, if there are any."""
    return parts if means is None else [m + p for m, p in zip(means, parts, strict=True)]


def _pass_back(parts: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """As torch.autograd.backward, which imports sympy to check gradients: a second and 30 MB."""
    products = [(part * gradient).sum() for part, gradient in zip(parts, gradients, strict=True)]
    torch.stack(products).sum().backward()


def _unpack(
    loss: PerceptualLoss, parts: Sequence[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Statistics]]:
    """Content errors and style statistics by layer, from a list as `_tile_means` makes it."""
    parts = iter(parts)
    errors = {layer: next(parts) for layer in loss.settings.content_layers}
    statistics = {
        layer: tuple(next(parts) for _ in loss.style_targets[layer])
        for layer in loss.settings.style_layers
    }
    return errors, statistics
