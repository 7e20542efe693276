"""How the slow path searches: sizes, steps, optimiser; and the presets of all its settings."""

import math
from dataclasses import dataclass

from models.loss_settings import LossSettings
from slow.colors import COLORS

OPTIMIZERS = ("lbfgs", "adam")
INITS = ("content", "noise", "style")
MOST_STEPS = 10**6


@dataclass(frozen=True, kw_only=True)
class SlowSettings:
    """Sizes, steps and optimiser of an optimisation.

    Args:
        size: longer side of the result in px.
        min_size: longer side of the smallest scale in px; the image is optimised there first, then
            enlarged and optimised again until it reaches its size; 0 for one scale only. Scales at
            which a picture would be too thin for the loss network are left out.
        scale_factor: largest ratio of one scale's size to the one before it; above 1.
        steps: evaluations of the loss, over all scales.
        decay: evaluations at a scale, divided by those at the next smaller one; above 0.
        style_scale: longer side of the style pictures, relative to size; larger means larger
            strokes. No style picture is enlarged.
        optimizer: "lbfgs" gets further in as many steps, "adam" takes less memory.
        learning_rate: step size, as a multiple of the optimiser's usual one.
        history: steps that L-BFGS remembers, which takes two images each; at most 10 for images of
            a megapixel or more.
        averaging: share of a running average of the images that is kept at each step, 0 for none;
            the average is the result if its loss is lower. Good with adam.
        colors: style: the painting's own; luminance: keep the photo's, paint brightness only;
            match, histogram: recolour the style picture to the photo first, by mean and covariance
            or by the whole distribution.
        init: what to start from: "content", "noise", "style", or an image; on the command line an
            image file or a trained style (.pth). With small scales, noise loses little of the
            content and gives the style more freedom.
        seed: of the noise.

    Raises:
        ValueError: a value is out of range.
    """

    size: int = 512
    min_size: int = 64
    scale_factor: float = 2.0
    steps: int = 900
    decay: float = 3.0
    style_scale: float = 1.0
    optimizer: str = "lbfgs"
    learning_rate: float = 1.0
    history: int = 20
    averaging: float = 0.0
    colors: str = "style"
    init: str = "noise"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "steps", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.steps > MOST_STEPS:
            raise ValueError(f"steps must be {MOST_STEPS} or less, not {self.steps}")
        if self.min_size < 0:
            raise ValueError(f"min_size must be 0 or more, not {self.min_size}")
        for name in ("decay", "style_scale", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if not 1 < self.scale_factor < math.inf:
            raise ValueError(f"scale_factor must be above 1, not {self.scale_factor}")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1, not {self.averaging}")
        if self.optimizer not in OPTIMIZERS:
            allowed = " or ".join(OPTIMIZERS)
            raise ValueError(f"unknown optimizer '{self.optimizer}'; choose {allowed}")
        if self.colors not in COLORS:
            raise ValueError(f"unknown colors '{self.colors}'; choose {', '.join(COLORS)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2^63 - 1, not {self.seed}")


@dataclass(frozen=True)
class Scale:
    """One round of the optimisation.

    Args:
        size: longer side of the image in px.
        steps: evaluations of the loss.
    """

    size: int
    steps: int


def scales(settings: SlowSettings) -> list[Scale]:
    """The rounds from the smallest size to the largest; their steps add up to settings.steps."""
    smallest = min(settings.min_size or settings.size, settings.size)
    num_ratios = math.ceil(math.log(settings.size / smallest, settings.scale_factor) - 1e-9)
    ratio = (settings.size / smallest) ** (1 / max(num_ratios, 1))
    sizes = [round(settings.size / ratio**k) for k in range(num_ratios, -1, -1)]
    sizes = sizes[-settings.steps :]  # fewer steps than scales: leave out the smallest
    shares = [settings.decay**k for k in range(len(sizes))]
    ends = [sum(shares[: k + 1]) / sum(shares) for k in range(len(sizes))]
    # At least one step each, and all of them together.
    spare = settings.steps - len(sizes)
    ends = [0, *(k + 1 + round(end * spare) for k, end in enumerate(ends))]
    steps = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    return [Scale(*pair) for pair in zip(sizes, steps, strict=True)]


# How to search, and what to minimise.
PRESETS: dict[str, tuple[SlowSettings, LossSettings]] = {
    # Chosen by eye. Small scales and noise give large swirls. Compared with Gram matrices, the
    # Wasserstein distance gets the painting's colours and broad shapes at less cost to the content.
    # The total variation removes the fine grid that max pooling leaves. L2 pooling leaves no grid,
    # but loses eyes and other small detail.
    "best": (
        SlowSettings(),
        LossSettings(style_loss="wasserstein", padding="replicate", tv_weight=10.0),
    ),
    # The paper's layers, pooling and Gram matrices, at one scale. Its ratio of content to style,
    # 1e-3 or 1e-4, is for losses that are sums; here it is the usual strength. Optimiser and noise
    # are ours.
    "gatys": (
        SlowSettings(min_size=0, steps=500),
        LossSettings(content_layers=("relu4_2",), pooling="average"),
    ),
}
DEFAULT_PRESET = "best"
