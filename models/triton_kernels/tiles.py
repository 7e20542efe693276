"""What the kernels share: a tile is some pixels with all of their channels."""

import torch
import triton
from torch import Tensor

TILE = 2048  # values
WARPS = 2  # of a program: with 4 a step of training on an H100 takes 2 % longer
PROGRAMS = 1024  # of all images of a batch together


def tile_size(channels: int) -> tuple[int, int]:
    """Pixels and channels of a tile, powers of 2."""
    columns = triton.next_power_of_2(channels)
    return max(1, TILE // columns), columns


def new_map(x: Tensor, *shape: int) -> Tensor:
    """An empty feature map of x's type, channels-last."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def num_pixels(x: Tensor) -> int:
    """Of each image of a batch."""
    return x.shape[2] * x.shape[3]


def tiles_of_image(x: Tensor) -> tuple[tuple[int, int], int, tuple[int, int]]:
    """Programs (images, parts of an image), the tiles of each, and their size."""
    tile = tile_size(x.shape[1])
    tiles = triton.cdiv(num_pixels(x), tile[0])
    steps = triton.cdiv(tiles, max(1, PROGRAMS // x.shape[0]))
    return (x.shape[0], triton.cdiv(tiles, steps)), steps, tile


def tiles_of_rows(x: Tensor) -> tuple[tuple[int, int], tuple[int, int]]:
    """Programs (rows of all images, tiles of a row), and the tiles' size."""
    pixels, columns = tile_size(x.shape[1])
    return (x.shape[0] * x.shape[2], triton.cdiv(x.shape[3], pixels)), (pixels, columns)
