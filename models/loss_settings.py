"""Which layers of the loss network are compared, how, and how much each term counts."""

from dataclasses import dataclass

from models.style import STYLE_LOSSES
from models.vgg import PADDINGS, POOLINGS, check_layers

# Layers that hold the content: the earlier, the more of its detail is kept.
CONTENT_PRESETS = {
    "fine": ("relu2_2", "relu3_3"),
    "balanced": ("relu3_3", "relu4_2"),
    "bold": ("relu4_2",),
}

CHOICES = {
    "pooling": POOLINGS,
    "padding": PADDINGS,
    "content_loss": ("l2", "l1"),
    "content_reduction": ("mean", "sum"),
    "style_loss": tuple(STYLE_LOSSES),
}


def weight_of_strength(strength: float) -> float:
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
        pooling: of the loss network, "max", "average" or "l2".
        padding: of the loss network's first layer, "zeros" or "replicate"; with zeros the style
            comes to know of a dark frame.
        content_layers: layers whose features are compared with the content image's, or "fine"
            (relu2_2, relu3_3), "balanced" (relu3_3, relu4_2) or "bold" (relu4_2).
        content_loss: how they are compared, "l2" (squares) or "l1" (absolute values).
        content_reduction: of a layer's errors, "mean" or "sum", which grows with the image and
            needs a content weight some million times smaller.
        style_layers: layers whose statistics are compared with the style image's.
        style_loss: which statistics are compared: "gram", the papers'; "gram+mean+std"; or
            "wasserstein", the distance of Gaussians, which takes a little longer.
        style_layer_weights: a weight for each style layer; equal by default.
        content_weight: factor of the content loss.
        style_weight: factor of the style loss.
        tv_weight: factor of the total variation; smooths grain from about 1 on.

    Raises:
        ValueError: unknown layer, negative weight, or nothing left to minimise.
    """

    vgg: str = "original"
    pooling: str = "max"
    padding: str = "zeros"
    content_layers: tuple[str, ...] = CONTENT_PRESETS["balanced"]
    content_loss: str = "l2"
    content_reduction: str = "mean"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    style_loss: str = "gram"
    style_layer_weights: tuple[float, ...] = ()
    content_weight: float = 1.0
    style_weight: float = weight_of_strength(0.5)
    tv_weight: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"unknown {name} '{getattr(self, name)}'; choose {', '.join(allowed)}"
                )
        content_layers = self.content_layers
        if len(content_layers) == 1:
            content_layers = CONTENT_PRESETS.get(content_layers[0], content_layers)
        object.__setattr__(self, "content_layers", check_layers(content_layers, "content_layers"))
        object.__setattr__(self, "style_layers", check_layers(self.style_layers, "style_layers"))
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
