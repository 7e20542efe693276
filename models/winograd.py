"""3x3 convolution by Winograd's minimal filtering: a quarter of the multiplications.

On CPUs without fast bfloat16 the loss network's time is all multiplications in float32; from 128
channels on this form runs 1.2 to 3 times as fast as the direct one (python -m
benchmarks.convolution).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

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

# Numbers in the transformed space at a time: it takes 2.25 times the memory of the image.
STRIP = 2**23


def pays(device: torch.device | str, dtype: torch.dtype, weight: Tensor) -> bool:
    """Whether this form is the faster one for a convolution of stride 1 with these weights."""
    _, in_channels, *kernel_size = weight.shape
    on_cpu = torch.device(device).type == "cpu" and dtype == torch.float32
    return on_cpu and kernel_size == [3, 3] and in_channels >= 128


def winograd_kernel(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) as the 36 matrices (36, I, O) that `winograd_conv3x3` multiplies by."""
    return torch.einsum("xa,yb,oiab->xyio", _KERNEL, _KERNEL, weight).flatten(0, 1).contiguous()


def mirrored(weight: Tensor) -> Tensor:
    """The weights (I, O, kH, kW) of the convolution that gives the input's gradient."""
    return weight.flip(2, 3).transpose(0, 1)


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
    padded, result = _padded(x, padding), _new_output(x, kernel.shape[2], padding)
    strip = 4 * max(1, STRIP // (9 * padded[:, 0].numel()))  # rows
    for top in range(0, result.shape[2], strip):
        products = _transformed(padded[:, top : top + strip + 2]) @ kernel
        _from_products(products, bias, result[:, :, top : top + strip])
    return result


def learned_winograd_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve (B, I, H, W) without padding with trainable weights (O, I, 3, 3)."""
    return _LearnedWinogradConv.apply(x, weight)


class _LearnedWinogradConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        transformed = _transformed(_padded(x, padding=0))
        ctx.save_for_backward(transformed, weight)
        result = _new_output(x, weight.shape[0], padding=0)
        _from_products(transformed @ winograd_kernel(weight), None, result)
        return result

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        transformed, weight = ctx.saved_tensors
        grad_x = winograd_conv3x3(grad, winograd_kernel(mirrored(weight)), padding=2)
        # The weights' gradient, in the transformed space: 36 products instead of one for each
        # pixel and tap.
        grad_kernel = transformed.mT @ _to_products(grad)  # (36, I, O)
        grad_kernel = grad_kernel.unflatten(0, (6, 6))
        grad_weight = torch.einsum("xa,yb,xyio->oiab", _KERNEL, _KERNEL, grad_kernel)
        return grad_x, grad_weight


def _new_output(x: Tensor, channels: int, padding: int) -> Tensor:
    """Room for the output, channels-last.

    A tensor of its own and no view: autograd takes long ways round a view that is changed in place,
    as by the ReLU that follows.
    """
    batch, _, height, width = x.shape
    size = (batch, channels, height + 2 * padding - 2, width + 2 * padding - 2)
    return torch.empty(size, memory_format=torch.channels_last)


def _num_blocks(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of 4x4 blocks that cover the output."""
    return -(-height // 4), -(-width // 4)


def _padded(x: Tensor, padding: int) -> Tensor:
    """(B, I, H, W) -> (B, 4 * rows of blocks + 2, 4 * columns of blocks + 2, I)."""
    batch, channels, height, width = x.shape
    rows, columns = _num_blocks(height + 2 * padding - 2, width + 2 * padding - 2)
    padded = x.new_empty(batch, 4 * rows + 2, 4 * columns + 2, channels)
    padded[:, padding : padding + height, padding : padding + width] = x.permute(0, 2, 3, 1)
    for border in (padded[:, :padding], padded[:, padding + height :]):
        border.zero_()
    for border in (padded[:, :, :padding], padded[:, :, padding + width :]):
        border.zero_()
    return padded


def _transformed(padded: Tensor) -> Tensor:
    """(B, 4 * rows + 2, 4 * columns + 2, I) -> (36, blocks, I)."""
    batch, height, width, channels = padded.shape
    b, h, w, c = padded.stride()
    shape = (6, 6, batch, height // 4, width // 4, channels)
    blocks = padded.as_strided(shape, (h, w, b, 4 * h, 4 * w, c), padded.storage_offset())
    return (_INPUT_2D @ blocks.reshape(36, -1)).view(36, -1, channels)


def _from_products(x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """(36, blocks, O) into (B, O, H, W), channels-last or rows of it; changes x."""
    batch, channels, height, width = out.shape
    rows, columns = _num_blocks(height, width)
    if bias is not None:
        x[_ALL_ONES] += bias
    x = (_OUTPUT_2D @ x.view(36, -1)).view(4, 4, batch, rows, columns, channels)
    x = x.permute(2, 5, 3, 0, 4, 1)  # (B, O, rows, 4, columns, 4)
    if (4 * rows, 4 * columns) == (height, width):
        out.unflatten(2, (rows, 4)).unflatten(4, (columns, 4)).copy_(x)
    else:
        out.copy_(x.flatten(4, 5).flatten(2, 3)[:, :, :height, :width])


def _to_products(grad: Tensor) -> Tensor:
    """The transpose of `_from_products`: (B, O, H, W) -> (36, blocks, O)."""
    batch, channels, height, width = grad.shape
    rows, columns = _num_blocks(height, width)
    grad = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, 4 * columns - width, 0, 4 * rows - height))
    grad = grad.reshape(batch, rows, 4, columns, 4, channels).permute(2, 4, 0, 1, 3, 5)
    return (_OUTPUT_2D.T @ grad.reshape(16, -1)).view(36, -1, channels)
