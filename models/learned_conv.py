"""A convolution with trainable weights in 8-bit integers: its output and both of its gradients."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.int8 import ZERO, Int8Kernel, Levels
from models.winograd import mirrored

# Products of 8-bit integers that are summed up in 32 bits at a time.
MOST_PRODUCTS = 2**17


def learned_int8_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (B, I, H, W) without padding with trainable weights (O, I, kH, kW), all float32."""
    return _LearnedConv.apply(x, weight)


class _LearnedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.levels = Levels.of(x)
        numbers = ctx.levels.numbers(x)
        ctx.save_for_backward(numbers, x.mean((0, 2, 3)), weight)
        return Int8Kernel.on(ctx.levels, weight).convolve(numbers)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        numbers, mean, weight = ctx.saved_tensors
        levels, grad_levels = ctx.levels, Levels.of(grad, signed=True)
        grad_numbers = grad_levels.numbers(grad)
        padding = weight.shape[2] - 1, weight.shape[3] - 1
        kernel = Int8Kernel.on(grad_levels, mirrored(weight), padding=padding)
        grad_x = kernel.convolve(grad_numbers)

        products, grad_sum = _correlation(numbers, grad_numbers)
        # Rounding leaves small gradients out that have one sign nearly everywhere, as after a
        # normalisation, and their sum with them: the share of the inputs' means is computed of the
        # exact sum.
        mean = mean / levels.step
        exact_sum = grad.sum((0, 2, 3)) / grad_levels.step
        of_sums = torch.outer(grad_sum, ZERO - levels.zero - mean) + torch.outer(exact_sum, mean)
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
    rows, columns = height - grad.shape[2] + 1, width - grad.shape[3] + 1
    # The gradient gets the input's size, so that the distance of a weight's two factors in memory
    # is the same everywhere; what wraps around is multiplied by 0.
    grad = F.pad(_signed(grad), (0, 0, 0, columns - 1, 0, rows - 1)).flatten(0, 2)
    numbers = _signed(numbers).flatten(0, 2)
    pixels = len(grad) - (rows - 1) * width - columns + 1
    # All weights of a kernel's row at once.
    shape = len(numbers) - columns + 1, columns * channels
    numbers = numbers.as_strided(shape, (channels, 1)).contiguous()
    grad = grad[:pixels]
    of_rows = torch.stack([_product(grad, numbers[row * width :][:pixels]) for row in range(rows)])
    # (kH, O, kW * I) -> (O, I, kH, kW)
    products = of_rows.unflatten(2, (columns, channels)).permute(1, 3, 0, 2)
    return products, _product(grad, torch.ones_like(grad[:, :1]))[:, 0]


def _signed(numbers: Tensor) -> Tensor:
    """(B, C, H, W) uint8 around ZERO -> (B, H, W, C) int8 around 0."""
    return numbers.bitwise_xor(ZERO).view(torch.int8).permute(0, 2, 3, 1)


def _product(x: Tensor, y: Tensor) -> Tensor:
    """(N, O), (N, I) int8 -> (O, I) float32, sums over N."""
    parts = zip(x.split(MOST_PRODUCTS), y.split(MOST_PRODUCTS), strict=True)
    return sum(torch._int_mm(a.T, b).float() for a, b in parts)
