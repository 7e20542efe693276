"""What "style" and "content" mean: the perceptual loss shared by the slow and the fast path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
    """Mean squared difference of neighbouring pixels, of 255 grey levels, rows plus columns.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].

    Returns:
        float32 scalar; 0 for a flat image.
    """
    rows = (image[:, :, 1:] - image[:, :, :-1]).float()
    columns = (image[:, :, :, 1:] - image[:, :, :, :-1]).float()
    return 255**2 * sum(d.square().mean() for d in (rows, columns) if d.numel())


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What to compare and how much it counts. All losses are means, so that a weight means the
    same at any size.

    Args:
        vgg: loss network, "original" or "torchvision".
        content_layers: layers whose features are compared with the content image's.
        style_layers: layers whose Gram matrices are compared with the style image's.
        content_weight: factor of the content loss.
        style_weight: factor of the style loss.
        tv_weight: factor of the total variation; smooths grain.

    Raises:
        ValueError: unknown layer, negative weight, or nothing left to minimise.
    """

    vgg: str = "original"
    content_layers: tuple[str, ...] = ("relu3_3", "relu4_2")
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_weight: float = 1.0
    style_weight: float = 80.0
    tv_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("content_layers", "style_layers"):
            object.__setattr__(self, name, check_layers(getattr(self, name)))
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
    and layers instead of a sum.

    Args:
        settings: layers and weights.
        style: style images, each (1, 3, H, W) RGB in [0, 1], of any size each.
        style_blend: a weight for each style image; equal by default. Their Gram matrices are
            averaged.
        dtype: precision of the network's convolutions, float32 or bfloat16; Gram matrices and
            losses are float32.

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
        if dtype == torch.float16:
            raise ValueError(
                "the loss network's features exceed float16; choose bfloat16 or float32"
            )
        self.settings = settings
        self.vgg = VGG19Features(
            settings.content_layers + settings.style_layers,
            weights=settings.vgg,
            dtype=dtype,
            device=style[0].device,
        )
        for layer, gram in self._style_targets(style, style_blend or [1.0] * len(style)).items():
            self.register_buffer(f"gram_{layer}", gram, persistent=False)

    @torch.no_grad()
    def _style_targets(self, style: Sequence[Tensor], blend: Sequence[float]) -> dict[str, Tensor]:
        if len(blend) != len(style) or not (min(blend) >= 0 and 0 < sum(blend) < float("inf")):
            raise ValueError(f"style_blend {list(blend)} does not fit {len(style)} style images")
        targets = dict.fromkeys(self.settings.style_layers, 0.0)
        for image, share in zip(style, blend, strict=True):
            for layer, features in self.vgg(image, self.settings.style_layers).items():
                targets[layer] = targets[layer] + gram_matrix(features) * (share / sum(blend))
        return targets

    @torch.no_grad()
    def content_targets(self, content: Tensor) -> dict[str, Tensor]:
        """Features of a content image (B, 3, H, W), RGB in [0, 1], to compare with."""
        return self.vgg(content, self.settings.content_layers)

    def forward(self, image: Tensor, content_targets: dict[str, Tensor]) -> LossTerms:
        """Loss of an image (B, 3, H, W), RGB in [0, 1], of the size of the content image."""
        features = self.vgg(image)
        content = _mean(
            F.mse_loss(features[layer].float(), target.float())
            for layer, target in content_targets.items()
        )
        style = _mean(
            (gram_matrix(features[layer]) - self.get_buffer(f"gram_{layer}")).square().mean()
            for layer in self.settings.style_layers
        )
        tv = total_variation(image)
        weights = self.settings
        total = (
            weights.content_weight * content + weights.style_weight * style + weights.tv_weight * tv
        )
        return LossTerms(total, content, style, tv)


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
