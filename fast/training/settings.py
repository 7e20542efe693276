"""All that decides what a trained network becomes, beside the losses and the pictures."""

import math
from dataclasses import dataclass

import torch

from models.device import dtype_of_maps

SIZE_STEP = 32  # px by which the crops grow at once
LARGEST_SIZE = 8192  # px

# Accelerate's names, and one of ours.
MIXED_PRECISIONS = {
    torch.float32: "no",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int8: "int8",
}


def accelerate_name(precision: str) -> str:
    """What accelerate has to be told for one of MIXED_PRECISIONS: it decides the type of the
    feature maps only.
    """
    return MIXED_PRECISIONS[dtype_of_maps(torch.int8)] if precision == "int8" else precision


def dtype_of(precision: str) -> torch.dtype:
    """The type that one of MIXED_PRECISIONS computes in; float32 for any other."""
    names = {name: dtype for dtype, name in MIXED_PRECISIONS.items()}
    return names.get(precision, torch.float32)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Network, data and schedule of a training.

    Args:
        steps: optimiser steps.
        batch_size: crops in a batch, in each process; 1 needs the fewest images, more keep a GPU
            busy.
        accumulation: batches whose gradients make one step.
        image_size: side of the square crops at the end in px; of larger ones a step takes longer
            and teaches more about large photos.
        first_size: side of the crops at the first step in px; they grow, slowly at first.
        style_size: longer side of the style image in px; larger means larger strokes.
        learning_rate: longest step of a convolution's weights, as a share of their length; steps
            grow over warmup_steps, then shrink to 0. Rarely needs changing.
        warmup_steps: steps until the learning rate is at its highest, but at most a tenth of all.
        width: channels of the network's first layer.
        num_blocks: residual blocks of the network.
        stem_stride: of the network's first convolution, 1 or 2; with 2 it works at half the size,
            and paints in a third of the time.
        checkerboard: weight of patterns that repeat with the network's grid of 4 px (8 with a
            stem_stride of 2), such as a weave over dark areas.
        stability: weight of the painting's change when the photo moves by some px and gets noise.
            With 10 paintings change half as much and videos flicker less; a step takes a third
            longer.
        seed: of the weights and of the order and crops of the photos.

    Raises:
        ValueError: a value is out of range.
    """

    steps: int = 10_000
    batch_size: int = 1
    accumulation: int = 1
    image_size: int = 384
    first_size: int = 256
    style_size: int = 384
    learning_rate: float = 0.03
    warmup_steps: int = 100
    width: int = 32
    num_blocks: int = 5
    stem_stride: int = 1
    checkerboard: float = 300.0
    stability: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name, most in (("steps", 10**9), ("width", 1024), ("num_blocks", 1000)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be from 1 to {most}, not {getattr(self, name)}")
        for name in ("image_size", "first_size", "style_size"):
            if not 32 <= getattr(self, name) <= LARGEST_SIZE:
                raise ValueError(
                    f"{name} must be from 32 to {LARGEST_SIZE} px, not {getattr(self, name)}"
                )
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, not {self.stem_stride}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2^63 - 1, not {self.seed}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be 0 or more, not {self.warmup_steps}")
        for name in ("checkerboard", "stability"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")

    def images_per_step(self, num_processes: int) -> int:
        """Crops that make one step, in all processes."""
        return self.batch_size * self.accumulation * num_processes


def share_of_work(settings: TrainingSettings, step: int) -> float:
    """Share of a training's pixels that its first steps have, 0 to 1; see crop_size."""
    first = min(settings.first_size, settings.image_size)
    growth = settings.image_size - first

    def pixels(progress: float) -> float:
        """Of all crops up to there: the integral of (first + growth * x^2)^2."""
        terms = first**2, 2 * first * growth / 3 * progress**2, growth**2 / 5 * progress**4
        return progress * sum(terms)

    return pixels(step / settings.steps) / pixels(1)


def crop_size(settings: TrainingSettings, images_per_step: int, item: int) -> int:
    """Side of an item's crop in px: from first_size to image_size with the square of the time."""
    first = min(settings.first_size, settings.image_size)
    progress = item // images_per_step / settings.steps
    lacking = (settings.image_size - first) * (1 - progress**2)
    return max(first, settings.image_size - SIZE_STEP * round(lacking / SIZE_STEP))
