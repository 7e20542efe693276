"""Convolution of 8-bit integers: on CPUs with VNNI four times as fast as in float32.

It serves where it does no harm that can be seen: in prediction, for gradients, and for features in
training.
"""

from copy import copy
from dataclasses import dataclass
from functools import cache, partial
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from models.timing import best_seconds

LARGEST = 255  # of the numbers
ZERO = 128  # the number of 0 among values of both signs
SMALLEST_STEP = 1e-30  # its inverse is still a number
PART = 2**18  # values that are rounded at a time, in the processor's cache
# A float32 of this size has no fraction: the sum with it is rounded, and its last bits, read as an
# integer, are the whole number. To convert a float32 to 8 bits takes five times as long.
TO_WHOLE = 1.5 * 2**23


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
    def between(cls, low: Tensor, high: Tensor, *, signed: bool = False) -> "Levels":
        """The finest levels for values from `low` to `high`, each (C,); with numbers on both sides
        of zero if there are negative values, or `signed`.
        """
        if (low >= 0).all() and not signed:
            step, zero = high / LARGEST, 0
        else:
            step, zero = torch.maximum(-low, high) / (LARGEST - ZERO), ZERO
        # A channel that is 0 throughout could have any step, but a large one would make its weights
        # large among the others, which are rounded together.
        smallest = 1e-6 * step.max().item()
        return cls(step.clamp(min=smallest or 1.0), zero)

    @classmethod
    def of(cls, x: Tensor, *, signed: bool = False) -> "Levels":
        """The finest levels for the values of a tensor (B, C, H, W)."""
        # Over the rows first: vectors of one pixel's channels, if they are few, take long.
        rows = x.permute(0, 2, 3, 1).flatten(0, 1)
        low, high = rows.amin(0).amin(0), rows.amax(0).amax(0)
        return cls.between(low.float(), high.float(), signed=signed)

    def numbers(self, x: Tensor) -> Tensor:
        """(B, C, H, W) float32 or bfloat16 -> the nearest numbers, uint8, channels-last."""
        numbers = torch.empty_like(x, dtype=torch.uint8, memory_format=torch.channels_last)
        shift, inverse = torch.tensor(TO_WHOLE + self.zero), 1 / self.step
        rows = max(1, PART // x.shape[1])
        parts = zip(_pixels(x).split(rows), _pixels(numbers).split(rows), strict=True)
        for values, part in parts:
            part.copy_(torch.addcmul(shift, values.float(), inverse).view(torch.int32))
        return numbers


class Int8Kernel:
    """The weights of a convolution of 8-bit integers.

    Args:
        weight: (O, I, kH, kW) float32 on the CPU; each output channel is rounded to 8 bits.
        zero: the number of 0 in the input.
        stride: in px, down and across.
        padding: zeros above and below the image, and at its sides, in px.
        dtype: of the output, float32 or bfloat16.
    """

    bias: Tensor | None = None
    relu = False

    def __init__(
        self,
        weight: Tensor,
        *,
        zero: int,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.zero, self.stride, self.padding = zero, list(stride), list(padding)
        self.dtype = dtype
        scale = weight.abs().amax((1, 2, 3)) / 127
        self.scale = torch.where(scale == 0, 1.0, scale)  # not a number stays so
        numbers = (weight / self.scale.view(-1, 1, 1, 1)).round().to(torch.int8)
        self.zero_points = torch.zeros_like(self.scale, dtype=torch.int32)
        self.packed = torch.ops.onednn.qconv_prepack(
            numbers, self.scale, 1.0, zero, self.stride, self.padding, [1, 1], 1, None
        )

    @classmethod
    def on(
        cls,
        levels: Levels,
        weight: Tensor,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dtype: torch.dtype = torch.float32,
    ) -> "Int8Kernel":
        """For an input of numbers among these levels."""
        weight = weight * levels.step.view(1, -1, 1, 1)
        return cls(weight, zero=levels.zero, stride=stride, padding=padding, dtype=dtype)

    def normalizing(self, factor: Tensor, summand: Tensor, dtype: torch.dtype) -> "Int8Kernel":
        """The same with an output times a factor plus a summand, each (C,), and after a ReLU.

        The output channels may be a multiple of C. In uint8 the output is rounded, and at most 255.
        """
        kernel, repeats = copy(self), len(self.scale) // len(factor)
        kernel.scale = self.scale * factor.repeat(repeats)
        kernel.bias = summand.repeat(repeats)
        kernel.dtype, kernel.relu = dtype, True
        return kernel

    def convolve(
        self,
        numbers: Tensor,
        step: float = 1.0,
        bias: Tensor | None = None,
        *,
        relu: bool = False,
    ) -> Tensor:
        """Convolve.

        Args:
            numbers: (B, I, H, W) uint8, channels-last.
            step: of the numbers.
            bias: (O,) or None.
            relu: cut off what is negative.

        Returns:
            (B, O, h, w), channels-last.
        """
        return torch.ops.onednn.qconv2d_pointwise(
            numbers,
            step,
            self.zero,
            self.packed,
            self.scale,
            self.zero_points,
            self.bias if bias is None else bias,
            self.stride,
            self.padding,
            [1, 1],  # dilation
            1,  # group
            1.0,  # of the output: no scale, no zero point
            0,
            self.dtype,
            "relu" if relu or self.relu else "none",
            [],
            "",
        )


def quantize(x: Tensor, *, zero: int = ZERO, where: Tensor | None = None) -> tuple[Tensor, float]:
    """Round a tensor's values to whole numbers, with one step for all channels.

    Args:
        x: (B, C, H, W) float32 or bfloat16, best channels-last.
        zero: the number of 0: ZERO, or 0 for values that are never negative.
        where: (B, C, H, W), the values count as 0 where it is not positive, as the gradient of a
            ReLU with this output does; the step is that of all values.

    Returns:
        Numbers, (B, C, H, W) uint8 channels-last; and the step.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    low, high = (value.item() for value in torch.aminmax(_pixels(x)))
    largest = max(high, -low) if zero else high
    step = max(largest / (LARGEST - zero), SMALLEST_STEP) if largest else 1.0
    numbers, shift = torch.empty_like(x, dtype=torch.uint8), torch.tensor(TO_WHOLE + zero)
    masks = repeat(None) if where is None else _chunks(where)
    for values, mask, part in zip(_chunks(x), masks, _chunks(numbers), strict=False):
        if mask is not None:
            values = torch.ops.aten.threshold_backward(values, mask, 0)
        part.copy_(torch.add(shift, values.float(), alpha=1 / step).view(torch.int32))
    return numbers, step


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B * H * W, C), no copy if channels-last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """The values of a channels-last tensor, some at a time."""
    return _pixels(x).view(-1).split(PART)


def cut_off(values: Tensor, *, out: Tensor) -> None:
    """Fill `out`, uint8, with values from 0 to 255 without their fractions.

    The 8 bits of an int8 are the same, and PyTorch converts to it several times as fast.
    """
    out.view(torch.int8).copy_(values)


@cache
def is_exact(device: torch.device) -> bool:
    """Whether it can be computed there: the sums of older processors overflow, and processors with
    matrix units (AMX) leave out parts of kernels that are 12 px wide (oneDNN in PyTorch 2.14).
    """
    if device.type != "cpu":
        return False
    try:
        return all(_sum_is_exact(*_example(*size)) for size in ((128, 3, 3), (16, 9, 12)))
    except (AttributeError, NotImplementedError, RuntimeError):  # not in this build of PyTorch
        return False


def _sum_is_exact(image: Tensor, weight: Tensor) -> bool:
    cut_off(image.float(), out=image)
    sums = Int8Kernel(weight, zero=0).convolve(image)
    return bool((sums - weight[0].numel() * LARGEST).abs().max() < 1)


@cache
def pays(device: torch.device) -> bool:
    """Whether it is far faster there than float32, also than by Winograd's method; where it is
    exact.
    """
    image, weight = _example()
    kernel, float_image = Int8Kernel(weight, zero=0), image.float()
    integers, floats = best_seconds(
        partial(kernel.convolve, image), partial(F.conv2d, float_image, weight)
    )
    return integers < 0.4 * floats


def _example(channels: int = 128, height: int = 3, width: int = 3) -> tuple[Tensor, Tensor]:
    """An image of the largest numbers, and a kernel of a size in px that adds them up."""
    image = torch.full((1, channels, 48, 48), LARGEST, dtype=torch.uint8)
    image = image.to(memory_format=torch.channels_last)
    weight = torch.ones(channels, channels, height, width)
    return image, weight.to(memory_format=torch.channels_last)
