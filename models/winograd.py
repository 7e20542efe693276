"""3x3 convolution by Winograd's minimal filtering: a quarter of the multiplications.

On CPUs without fast bfloat16 the loss network's time is all multiplications in float32; from 128
channels on this form runs 1.2 to 3 times as fast as the direct one (python -m
benchmarks.convolution).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# F(4x4, 3x3) of Lavin & Gray (arXiv 1509.09308): a 4x4 block of the output from a 6x6 block of the
# input.
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
_KERNEL = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float32,
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float32,
)
# Both dimensions at once: 36 input values -> 36 products -> 16 output values.
_INPUT_2D = torch.kron(_INPUT, _INPUT)
_OUTPUT_2D = torch.kron(_OUTPUT, _OUTPUT)
_ALL_ONES = 7  # the product that adds 1 to each of the 16 output values


def pays(device: torch.device | str, dtype: torch.dtype, weight: Tensor) -> bool:
    """Whether this form is the faster one for a convolution of stride 1 with these weights."""
    _, in_channels, *kernel_size = weight.shape
    on_cpu = torch.device(device).type == "cpu" and dtype == torch.float32
    return on_cpu and kernel_size == [3, 3] and in_channels >= 128


def winograd_kernel(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) as the 36 matrices (36, I, O) that `winograd_conv3x3` multiplies by."""
    return torch.einsum("xa,yb,oiab->xyio", _KERNEL, _KERNEL, weight).flatten(0, 1).contiguous()


def mirrored_kernel(weight: Tensor) -> Tensor:
    """The kernel of the gradient: a convolution with the mirrored, transposed weights."""
    return winograd_kernel(weight.flip(2, 3).transpose(0, 1))


def winograd_conv3x3(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, *, padding: int
) -> Tensor:
    """A 3x3 convolution of stride 1; 2e-6 relative error beside the direct one.

    Args:
        x: (B, I, H, W) float32 on the CPU, best channels-last.
        kernel: (36, I, O) from `winograd_kernel`.
        bias: (O,) or None.
        padding: zeros around the image in px.

    Returns:
        (B, O, H + 2 * padding - 2, W + 2 * padding - 2), channels-last.
    """
    return _from_products(_transform_input(x, padding) @ kernel, bias, _output_size(x, padding))


class FrozenWinogradConv(nn.Module):
    """A 3x3 convolution with padding 1 and frozen weights; gradients reach its input."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", winograd_kernel(weight), persistent=False)
        self.register_buffer("gradient_kernel", mirrored_kernel(weight), persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _FrozenWinogradConv.apply(x, self.kernel, self.gradient_kernel, self.bias)


class _FrozenWinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, kernel: Tensor, gradient_kernel: Tensor, bias: Tensor) -> Tensor:
        ctx.gradient_kernel = gradient_kernel
        return winograd_conv3x3(x, kernel, bias, padding=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return winograd_conv3x3(grad, ctx.gradient_kernel, padding=1), None, None, None


def learned_winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (B, I, H, W) without padding with trainable weights (O, I, 3, 3)."""
    return _LearnedWinogradConv.apply(x, weight)


class _LearnedWinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        transformed = _transform_input(x, padding=0)
        ctx.save_for_backward(transformed, weight)
        return _from_products(transformed @ winograd_kernel(weight), None, _output_size(x, 0))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        transformed, weight = ctx.saved_tensors
        grad_x = winograd_conv3x3(grad, mirrored_kernel(weight), padding=2)
        # The weights' gradient, in the transformed space: 36 products instead of one for each
        # pixel and tap.
        grad_kernel = transformed.mT @ _to_products(grad)  # (36, I, O)
        grad_kernel = grad_kernel.unflatten(0, (6, 6))
        return grad_x, torch.einsum("xa,yb,xyio->oiab", _KERNEL, _KERNEL, grad_kernel)


def _output_size(x: Tensor, padding: int) -> tuple[int, int, int]:
    batch, _, height, width = x.shape
    return batch, height + 2 * padding - 2, width + 2 * padding - 2


def _num_blocks(size: tuple[int, int, int]) -> tuple[int, int]:
    """Rows and columns of 4x4 blocks that cover the output."""
    return -(-size[1] // 4), -(-size[2] // 4)


def _transform_input(x: Tensor, padding: int) -> Tensor:
    """(B, I, H, W) -> (36, blocks, I)."""
    batch, channels, height, width = x.shape
    rows, columns = _num_blocks(_output_size(x, padding))
    below, right = 4 * rows + 2 - padding - height, 4 * columns + 2 - padding - width
    if padding or below or right or not x.is_contiguous(memory_format=torch.channels_last):
        x = _zero_pad(x, (padding, below), (padding, right))
    b, c, h, w = x.stride()
    blocks = x.as_strided((6, 6, batch, rows, columns, channels), (h, w, b, 4 * h, 4 * w, c))
    return (_INPUT_2D @ blocks.reshape(36, -1)).view(36, -1, channels)


def _zero_pad(x: Tensor, above_below: tuple[int, int], left_right: tuple[int, int]) -> Tensor:
    """A padded copy, channels-last; only the border is filled with zeros."""
    (above, below), (left, right) = above_below, left_right
    batch, channels, height, width = x.shape
    size = (batch, channels, above + height + below, left + width + right)
    padded = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    padded[:, :, above : above + height, left : left + width] = x
    for border in (padded[:, :, :above], padded[:, :, above + height :]):
        border.zero_()
    for border in (padded[..., :left], padded[..., left + width :]):
        border.zero_()
    return padded


def _from_products(x: Tensor, bias: Tensor | None, size: tuple[int, int, int]) -> Tensor:
    """(36, blocks, O) -> (B, O, H, W) channels-last; changes x."""
    batch, height, width = size
    rows, columns = _num_blocks(size)
    if bias is not None:
        x[_ALL_ONES] += bias
    x = (_OUTPUT_2D @ x.view(36, -1)).view(4, 4, batch, rows, columns, -1)
    x = x.permute(2, 5, 3, 0, 4, 1)  # (B, O, rows, 4, columns, 4)
    # A tensor of its own and no view: autograd takes long ways round a view that is changed in
    # place, as by the ReLU that follows.
    whole = torch.empty(
        (batch, x.shape[1], 4 * rows, 4 * columns), memory_format=torch.channels_last
    )
    whole.unflatten(2, (rows, 4)).unflatten(4, (columns, 4)).copy_(x)
    if (4 * rows, 4 * columns) == (height, width):
        return whole
    return whole[:, :, :height, :width].clone(memory_format=torch.channels_last)


def _to_products(grad: Tensor) -> Tensor:
    """The transpose of `_from_products`: (B, O, H, W) -> (36, blocks, O)."""
    batch, channels, height, width = grad.shape
    rows, columns = _num_blocks((batch, height, width))
    grad = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, 4 * columns - width, 0, 4 * rows - height))
    grad = grad.reshape(batch, rows, 4, columns, 4, channels).permute(2, 4, 0, 1, 3, 5)
    return (_OUTPUT_2D.T @ grad.reshape(16, -1)).view(36, -1, channels)
