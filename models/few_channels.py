"""Convolutions of few input or output channels, such as those of photos, on a GPU.

cuDNN computes 3 channels as slowly as 32 or 64, or leaves the matrix units. So some neighbouring
pixels of a row are computed as one with as many times more channels, from a kernel that is shifted
for each of them; in memory, channels-last, they are neighbours anyway.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.fused_conv import fused_conv
from models.regroup import from_blocks, sum_of_shares

FEW = 8  # channels
MULTIPLE = 8  # of input channels, for the matrix units
OUTPUT_MULTIPLE = 64  # of output channels
PIXELS = 4  # that are computed as one
ROWS = 3  # of a kernel that share output channels


class ConvFromFew:
    """A convolution of an input of few channels: the columns of the shifted kernel become channels.

    Args:
        kernel: (O, C, rows, columns).
        bias: (O,).
        stride: along rows and columns; 1 for a ReLU.
        padding: zeros around the input, in px.
    """

    def __init__(
        self,
        kernel: Tensor,
        bias: Tensor | None = None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: int = 0,
    ) -> None:
        self.out, _, _, self.columns = kernel.shape
        self.row_stride, self.stride = stride
        self.padding = padding
        kernel = shifted(kernel, stride=self.stride)
        self.read = kernel.shape[3]  # columns of the input for PIXELS of the output
        kernel = kernel.permute(0, 3, 1, 2).flatten(1, 2).unsqueeze(3)
        self.lacking = -kernel.shape[1] % MULTIPLE
        self.kernel = _channels_last(F.pad(kernel, (0, 0, 0, 0, 0, self.lacking)))
        self.bias = None if bias is None else bias.repeat(PIXELS)

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """(B, C, H, W) to (B, O, H', W'); with a ReLU it has no gradient."""
        padded = x.shape[3] + 2 * self.padding
        width = (padded - self.columns) // self.stride + 1
        step = PIXELS * self.stride
        lacking = max(0, (width - 1) // PIXELS * step + self.read - padded)
        if self.padding or lacking:  # F.pad copies in any case
            x = F.pad(x, (self.padding, self.padding + lacking, self.padding, self.padding))
        # The channels of each column are neighbours in memory.
        x = x.permute(0, 2, 3, 1).unfold(2, self.read, step).transpose(3, 4).flatten(3)
        x = F.pad(x, (0, self.lacking)).permute(0, 3, 1, 2)
        if relu:
            x = fused_conv(x, self.kernel, self.bias, relu=True)
        else:
            x = F.conv2d(x, self.kernel, self.bias, (self.row_stride, 1))
        return _channels_last(from_blocks(x, self.out)[..., :width])


class ConvToFew:
    """A convolution of stride 1 with few output channels.

    Each kernel row, or each group of ROWS rows of a tall kernel, gets output channels of its own;
    sum_of_shares adds them up.

    Args:
        kernel: (O, C, rows, columns).
        padding: zeros around the input, in px.
    """

    def __init__(self, kernel: Tensor, *, padding: int = 0) -> None:
        self.out, _, rows, self.columns = kernel.shape
        self.together = ROWS if rows > ROWS and rows % ROWS == 0 else 1
        kernel = kernel.unflatten(2, (-1, self.together)).movedim(2, 0)
        self.shares = len(kernel)
        kernel = shifted(kernel.flatten(0, 1))  # (n * shares * O, C, together, read)
        # Zeros before a row come in whole blocks of pixels.
        before = -padding % PIXELS
        kernel = F.pad(kernel, (before, -(before + kernel.shape[3]) % PIXELS))
        kernel = kernel.unflatten(3, (-1, PIXELS)).movedim(4, 1).flatten(1, 2)
        unused = -len(kernel) % OUTPUT_MULTIPLE
        self.kernel = _channels_last(F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, unused)))
        self.padding, self.block_padding = padding, -(-padding // PIXELS)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, O, H', W')."""
        width = x.shape[3] + 2 * self.padding - self.columns + 1
        blocks = max(-(-x.shape[3] // PIXELS), self.kernel.shape[3] - 2 * self.block_padding)
        if blocks * PIXELS > x.shape[3]:
            x = F.pad(x, (0, blocks * PIXELS - x.shape[3]))
        x = x.permute(0, 2, 3, 1).unflatten(2, (-1, PIXELS)).flatten(3)
        x = x.permute(0, 3, 1, 2)  # (B, n * C, H, W / n)
        x = F.conv2d(x, self.kernel, padding=(self.padding, self.block_padding))
        x = sum_of_shares(x, self.shares, self.out, rows=self.together, pixels=PIXELS)
        return x[..., :width]


def shifted(kernel: Tensor, *, pixels: int = PIXELS, stride: int = 1) -> Tensor:
    """(O, ..., columns) -> (pixels * O, ..., columns + (pixels - 1) * stride): a kernel for each of
    so many neighbouring pixels of a row, for the part of the input that all of them see.
    """
    reach = (pixels - 1) * stride
    windows = F.pad(kernel, (reach, reach)).unfold(-1, kernel.shape[-1] + reach, stride)
    return windows.movedim(-2, 0).flip(0).flatten(0, 1)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
