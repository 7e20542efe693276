"""A convolution with trainable weights in 8-bit integers: its output and both of its gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.int8 import ZERO, Int8Kernel, Levels
from models.winograd import mirrored

# Products of 8-bit integers that are summed up in 32 bits at a time.
MOST_PRODUCTS = 2**17


def learned_int8_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (B, I, H, W) without padding with trainable weights (O, I, kH, kW) in float32; the
    image may be in bfloat16, and the output is like it. O is 2 or more: PyTorch 2.14 multiplies a
    single row wrongly.
    """
    return _LearnedConv.apply(x, weight)


class _LearnedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.levels = Levels.of(x)
        numbers = ctx.levels.numbers(x)
        ctx.save_for_backward(numbers, _sums(x) / x[:, 0].numel(), weight)
        return Int8Kernel.on(ctx.levels, weight, dtype=x.dtype).convolve(numbers)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        numbers, mean, weight = ctx.saved_tensors
        levels, grad_levels = ctx.levels, Levels.of(grad, signed=True)
        grad_numbers = grad_levels.numbers(grad)
        padding = weight.shape[2] - 1, weight.shape[3] - 1
        kernel = Int8Kernel.on(grad_levels, mirrored(weight), padding=padding, dtype=grad.dtype)
        grad_x = kernel.convolve(grad_numbers)

        products, grad_sum = _correlation(numbers, grad_numbers)
        # Rounding drops small gradients. Where they share a sign, as after a normalisation, their
        # sum is lost too. So the part due to the inputs' mean is computed from the sum before
        # rounding.
        mean = mean / levels.step
        sum_before = _sums(grad) / grad_levels.step
        of_sums = torch.outer(grad_sum, ZERO - levels.zero - mean) + torch.outer(sum_before, mean)
        steps = torch.outer(grad_levels.step, levels.step)
        return grad_x, (products + of_sums[..., None, None]) * steps[..., None, None]


def _correlation(numbers: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the weights in units of the steps, as if ZERO was the number of 0.

    Args:
        numbers: of the input, (B, I, H, W) uint8, channels-last.
        grad: those of the output's gradient, (B, O, H - kH + 1, W - kW + 1).

    Returns:
        (O, I, kH, kW) float32; and the sums of the output's gradient, (O,).
    """
    _, channels, height, width = numbers.shape
    out, rows, columns = grad.shape[1], height - grad.shape[2] + 1, width - grad.shape[3] + 1
    # The gradient gets the input's size, so that the distance of a weight's two factors in memory
    # is the same everywhere; what wraps around is multiplied by 0.
    grad = F.pad(_signed(grad), (0, 0, 0, columns - 1, rows - 1, 0)).flatten(0, 2)
    grad_sum = _product(grad, torch.ones_like(grad[:, :1]))[:, 0]
    grad = F.pad(grad, (0, 0, 0, (rows - 1) * width))
    numbers = _signed(numbers).flatten(0, 2)
    # All weights at once: the gradient at each of a kernel's rows, upwards, with the input at each
    # of its columns.
    positions = len(numbers) - columns + 1
    products = _product(
        grad.as_strided((positions, rows, out), (out, width * out, 1)),
        numbers.as_strided((positions, columns, channels), (channels, channels, 1)),
    )
    products = products.view(rows, out, columns, channels)
    return products.flip(0).permute(1, 3, 0, 2), grad_sum


def _sums(x: Tensor) -> Tensor:
    """Of the channels, (C,) float32. Those of bfloat16 are added up in float32 and rounded once,
    which takes less than half of the time that it would without.
    """
    return x.sum((0, 2, 3)).float()


def _signed(numbers: Tensor) -> Tensor:
    """(B, C, H, W) uint8 around ZERO -> (B, H, W, C) int8 around 0."""
    return numbers.bitwise_xor(ZERO).view(torch.int8).permute(0, 2, 3, 1)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """(N, ...), (N, ...) int8 -> float32, for all pairs of a column each their sum over N."""
    parts = zip(x.split(MOST_PRODUCTS), y.split(MOST_PRODUCTS), strict=True)
    return sum(
        torch._int_mm(a.flatten(1).contiguous().T, b.flatten(1).contiguous()).float()
        for a, b in parts
    )
