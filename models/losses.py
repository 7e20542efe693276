"""What "style" and "content" mean: the perceptual loss shared by the slow and the fast path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.vgg import VGG19Features, check_layers


def gram_matrix(features: Tensor) -> Tensor:
    """Channel correlations of a feature map, divided by its number of elements.

    Gatys et al. (arXiv 1508.06576) sum over positions; dividing by C*H*W, as Johnson et al.
    (arXiv 1603.08155) do, makes the value independent of the image's size.

    Args:
        features: (B, C, H, W), any floating dtype.

    Returns:
        (B, C, C) float32, symmetric.
    """
    _, channels, height, width = features.shape
    flat = (
        features.permute(0, 2, 3, 1).flatten(1, 2).float()
    )  # (B, H*W, C), no copy if channels-last
    # The gradient flows through the right-hand factor only. Adding the transpose, whose value
    # cancels, supplies the other factor's share: the backward pass needs one large product less.
    product = flat.detach().mT @ flat
    product = product + (product.mT - product.detach())
    return product / (channels * height * width)


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


# Layers that hold the content: the earlier, the more of its detail is kept.
CONTENT_PRESETS = {
    "fine": ("relu2_2", "relu3_3"),
    "balanced": ("relu3_3", "relu4_2"),
    "bold": ("relu4_2",),
}


def style_weight(strength: float) -> float:
    """The style weight of a strength between 0 (a tinge) and 1 (little but style), 0.5 the default.

    Because the losses are relative to the style image's own features, a strength looks about the
    same for every painting.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be between 0 and 1, not {strength}")
    return 100.0**strength


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What to compare and how much it counts.

    Content and style are errors relative to the style image's own features, layer by layer: every
    layer counts the same, and a weight means about the same for any style, network and size.

    Args:
        vgg: loss network, "original" or "torchvision".
        content_layers: layers whose features are compared with the content image's, or "fine"
            (relu2_2, relu3_3), "balanced" (relu3_3, relu4_2) or "bold" (relu4_2).
        style_layers: layers whose Gram matrices are compared with the style image's.
        style_layer_weights: a weight for each style layer; equal by default.
        content_weight: factor of the content loss.
        style_weight: factor of the style loss.
        tv_weight: factor of the total variation; smooths grain from about 1 on.

    Raises:
        ValueError: unknown layer, negative weight, or nothing left to minimise.
    """

    vgg: str = "original"
    content_layers: tuple[str, ...] = CONTENT_PRESETS["balanced"]
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    style_layer_weights: tuple[float, ...] = ()
    content_weight: float = 1.0
    style_weight: float = style_weight(0.5)
    tv_weight: float = 0.0

    def __post_init__(self) -> None:
        content_layers = self.content_layers
        if len(content_layers) == 1:
            content_layers = CONTENT_PRESETS.get(content_layers[0], content_layers)
        object.__setattr__(self, "content_layers", check_layers(content_layers))
        object.__setattr__(self, "style_layers", check_layers(self.style_layers))
        layer_weights = tuple(self.style_layer_weights)  # a checkpoint has it as a list
        object.__setattr__(self, "style_layer_weights", layer_weights)
        if layer_weights:
            if len(layer_weights) != len(self.style_layers):
                raise ValueError(
                    f"style_layer_weights has {len(layer_weights)} values for "
                    f"{len(self.style_layers)} style layers"
                )
            if not (min(layer_weights) >= 0 and 0 < sum(layer_weights) < float("inf")):
                raise ValueError(f"style_layer_weights {list(layer_weights)} must be positive")
        for name in ("content_weight", "style_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.content_weight == 0 and self.style_weight == 0:
            raise ValueError("content_weight and style_weight cannot both be 0")


@dataclass(frozen=True)
class LossTerms:
    """Float32 scalars: the weighted sum to minimise, and its terms before weighting."""

    total: Tensor
    content: Tensor
    style: Tensor
    tv: Tensor


class PerceptualLoss(nn.Module):
    """Distance of an image from the content of one picture and the style of others.

    Gatys et al. (arXiv 1508.06576) minimise it over the pixels of one image, Johnson et al.
    (arXiv 1603.08155) over the weights of a network. Departures: every term is a mean over elements
    and layers instead of a sum. Each layer's is divided by the energy (mean square) that the style
    image has there, its Gram matrix for the style and its features for the content, which a
    painting of this style comes to have too; undivided, relu3_3 alone makes up nearly all of the
    style loss, and the deep layers, which know of swirls and stars, next to nothing.

    Args:
        settings: layers and weights.
        style: style images, each (1, 3, H, W) RGB in [0, 1], of any size each.
        style_blend: a weight for each style image; equal by default. Their Gram matrices and
            energies are averaged.
        dtype: precision of the network's convolutions; Gram matrices and losses are float32.

    Raises:
        ValueError: a style image is too small for the layers, or the blend does not fit the images.
    """

    def __init__(
        self,
        settings: LossSettings,
        style: Sequence[Tensor],
        *,
        style_blend: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.vgg = VGG19Features(
            settings.content_layers + settings.style_layers,
            weights=settings.vgg,
            dtype=dtype,
            device=style[0].device,
        )
        self._set_targets(style, style_blend or [1.0] * len(style))

    @torch.no_grad()
    def _set_targets(self, style: Sequence[Tensor], blend: Sequence[float]) -> None:
        if len(blend) != len(style) or not (min(blend) >= 0 and 0 < sum(blend) < float("inf")):
            raise ValueError(f"style_blend {list(blend)} does not fit {len(style)} style images")
        grams = dict.fromkeys(self.settings.style_layers, 0.0)
        energies = dict.fromkeys(self.settings.content_layers, 0.0)
        for image, share in zip(style, blend, strict=True):
            features = self.vgg(image)
            share /= sum(blend)
            for layer in grams:
                grams[layer] = grams[layer] + share * gram_matrix(features[layer]).mean(0)
            for layer in energies:
                energies[layer] = energies[layer] + share * features[layer].float().square().mean()
        for layer, gram in grams.items():
            self.register_buffer(f"gram_{layer}", gram, persistent=False)
        for layer, energy in energies.items():
            self.register_buffer(f"energy_{layer}", energy, persistent=False)

    @torch.no_grad()
    def content_targets(self, content: Tensor) -> dict[str, Tensor]:
        """Features of a content image (B, 3, H, W), RGB in [0, 1], to compare with."""
        return self.vgg(content, self.settings.content_layers)

    def forward(self, image: Tensor, content_targets: dict[str, Tensor]) -> LossTerms:
        """Mean loss of images (B, 3, H, W), RGB in [0, 1], of the size of the content images."""
        features = self.vgg(image)
        content = _mean(
            # Not mse_loss, whose gradient is not channels-last and makes all that follows slow.
            (features[layer] - target).float().square().mean() / self.get_buffer(f"energy_{layer}")
            for layer, target in content_targets.items()
        )
        style_errors = [
            _relative_error(gram_matrix(features[layer]), self.get_buffer(f"gram_{layer}"))
            for layer in self.settings.style_layers
        ]
        shares = self.settings.style_layer_weights or [1.0] * len(style_errors)
        style = sum(s * e for s, e in zip(shares, style_errors, strict=True)) / sum(shares)
        tv = total_variation(image)
        weights = self.settings
        total = (
            weights.content_weight * content + weights.style_weight * style + weights.tv_weight * tv
        )
        return LossTerms(total, content, style, tv)


def _relative_error(grams: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of Gram matrices (B, C, C), in units of the target's square."""
    return (grams - target).square().mean() / target.square().mean()


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
