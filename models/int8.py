"""Convolution of 8-bit integers: on CPUs with VNNI four times as fast as in float32.

It serves where it does no harm that can be seen: in prediction, for gradients, and for the loss
network's features in training.
"""

from dataclasses import dataclass
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from models.timing import best_seconds

LARGEST = 255  # of the numbers
ZERO = 128  # the number of 0 among values of both signs
SMALLEST_STEP = 1e-30  # its inverse is still a number
PART = 2**18  # values that are rounded at a time, in the processor's cache


@dataclass(frozen=True)
class Levels:
    """Values as whole numbers from 0 to 255, channel by channel.

    Args:
        step: (C,), the distance of two values that have neighbouring numbers.
        zero: the number of the value 0.
    """

    step: Tensor
    zero: int

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> "Levels":
        """The finest levels for values from `low` to `high`, each (C,)."""
        if (low >= 0).all():
            step, zero = high / LARGEST, 0
        else:
            step, zero = torch.maximum(-low, high) / (LARGEST - ZERO), ZERO
        # A channel that is 0 throughout could have any step, but a large one would make its weights
        # large among the others, which are rounded together.
        return cls(step.clamp(min=1e-6 * step.max().item() or 1.0), zero)


class Int8Kernel:
    """The weights of a convolution of 8-bit integers.

    Args:
        weight: (O, I, kH, kW) float32 on the CPU; each output channel is rounded to 8 bits.
        zero: the number of 0 in the input.
        stride: in px.
        padding: zeros around the image in px.
    """

    def __init__(self, weight: Tensor, *, zero: int, stride: int = 1, padding: int = 0) -> None:
        self.zero, self.stride, self.padding = zero, [stride] * 2, [padding] * 2
        scale = weight.abs().amax((1, 2, 3)) / 127
        self.scale = torch.where(scale == 0, 1.0, scale)  # not a number stays so
        numbers = (weight / self.scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zero_points = torch.zeros_like(self.scale, dtype=torch.int32)
        self.packed = torch.ops.onednn.qconv_prepack(
            numbers, self.scale, 1.0, zero, self.stride, self.padding, [1, 1], 1, None
        )

    @classmethod
    def on(cls, levels: Levels, weight: Tensor, *, stride: int = 1) -> "Int8Kernel":
        """For an input of numbers among these levels."""
        return cls(weight * levels.step.view(1, -1, 1, 1), zero=levels.zero, stride=stride)

    def convolve(self, numbers: Tensor, step: float = 1.0, bias: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            numbers: (B, I, H, W) from 0 to 255, channels-last; fractions are cut off.
            step: of the numbers.
            bias: (O,) or None.

        Returns:
            (B, O, h, w) float32, channels-last.
        """
        return torch.ops.onednn.qconv2d_pointwise(
            numbers.to(torch.uint8),
            step,
            self.zero,
            self.packed,
            self.scale,
            self.zero_points,
            bias,
            self.stride,
            self.padding,
            [1, 1],  # dilation
            1,  # group
            1.0,  # of the output: no scale, no zero point
            0,
            torch.float32,
            "none",  # no function after it
            [],
            "",
        )


def quantize(x: Tensor, *, zero: int = ZERO) -> tuple[Tensor, float]:
    """Round a tensor's values to whole numbers, with one step for all channels.

    Args:
        x: (B, C, H, W) float32, best channels-last.
        zero: the number of 0: ZERO, or 0 for values that are never negative.

    Returns:
        Numbers, (B, C, H, W) uint8 channels-last; and the step.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    largest = x.amax().item()
    if zero:
        largest = max(largest, -x.amin().item())
    step = max(largest / (LARGEST - zero), SMALLEST_STEP) if largest else 1.0
    numbers, half_up = torch.empty_like(x, dtype=torch.uint8), torch.tensor(zero + 0.5)
    flat_x, flat_numbers = (t.permute(0, 2, 3, 1).view(-1) for t in (x, numbers))
    for values, part in zip(flat_x.split(PART), flat_numbers.split(PART), strict=True):
        part.copy_(torch.add(half_up, values, alpha=1 / step))
    return numbers, step


@cache
def is_exact(device: torch.device) -> bool:
    """Whether it can be computed there; the sums of older processors overflow."""
    if device.type != "cpu":
        return False
    image, weight = _example()
    try:
        sums = Int8Kernel(weight, zero=0).convolve(image)
    except (AttributeError, NotImplementedError, RuntimeError):  # not in this build of PyTorch
        return False
    return bool((sums - weight[0].numel() * LARGEST).abs().max() < 1)


@cache
def pays(device: torch.device) -> bool:
    """Whether it is far faster there than float32, also than by Winograd's method."""
    if not is_exact(device):
        return False
    image, weight = _example()
    kernel, float_image = Int8Kernel(weight, zero=0), image.float()
    integers, floats = best_seconds(
        partial(kernel.convolve, image), partial(F.conv2d, float_image, weight)
    )
    return integers < 0.4 * floats


def _example() -> tuple[Tensor, Tensor]:
    """An image of the largest numbers, and a kernel that adds them up."""
    image = torch.full((1, 128, 48, 48), LARGEST, dtype=torch.uint8)
    image = image.to(memory_format=torch.channels_last)
    return image, torch.ones(128, 128, 3, 3).to(memory_format=torch.channels_last)
