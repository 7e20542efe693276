"""Convolutions of inputs with few channels, such as photos, on a GPU."""

import torch.nn.functional as F
from torch import Tensor

MULTIPLE = 8  # of channels, for the matrix units


def has_few_channels(x: Tensor) -> bool:
    """Whether cuDNN computes its convolutions slowly: with 3 channels the 9x9 one of a transformer
    network takes it ten times as long as with 32 of them.
    """
    return x.is_cuda and x.shape[1] < MULTIPLE


def columns_as_channels(x: Tensor, kernel: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Input and kernel of the same convolution with a kernel of one column.

    Args:
        x: (B, C, H, W), padded; best channels-last.
        kernel: (O, C, rows, columns).
        stride: along the columns, which the result needs no more.

    Returns:
        (B, N, H, W') channels-last and (O, N, rows, 1); N is at least C * columns, with zeros after
        those.
    """
    columns = kernel.shape[3]
    # The channels of each column are neighbours in memory.
    x = x.permute(0, 2, 3, 1).unfold(2, columns, stride).transpose(3, 4).flatten(3)
    kernel = kernel.permute(0, 3, 1, 2).flatten(1, 2).unsqueeze(3)
    lacking = -x.shape[3] % MULTIPLE
    x = F.pad(x, (0, lacking)).permute(0, 3, 1, 2)
    return x, F.pad(kernel, (0, 0, 0, 0, 0, lacking))
