"""Where a feature map waits for the next layer: in memory, or in a temporary file."""

import math
import tempfile
from typing import Protocol

import torch
from torch import Tensor


class Store(Protocol):
    """A feature map (H, W, C), read and written by rows."""

    def read(self, top: int, rows: int) -> Tensor:
        """(rows, W, C), to be changed by `write` alone."""

    def write(self, top: int, values: Tensor) -> None:
        """Keep rows (rows, W, C) from `top` on."""


class MemoryStore:
    """In the device's memory.

    Args:
        shape: H, W, C.
        like: a tensor whose dtype and device the values have.
    """

    def __init__(self, shape: tuple[int, int, int], like: Tensor) -> None:
        self.values = like.new_empty(shape)

    def read(self, top: int, rows: int) -> Tensor:
        return self.values[top : top + rows]

    def write(self, top: int, values: Tensor) -> None:
        self.values[top : top + len(values)] = values


class FileStore:
    """In a temporary file that nobody else sees and that goes with the process.

    Args:
        shape: H, W, C.
        like: a tensor whose dtype and device the values have.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, shape: tuple[int, int, int], like: Tensor) -> None:
        self.shape, self.like = shape, like
        self.row_bytes = math.prod(shape[1:]) * like.element_size()
        self.file = tempfile.TemporaryFile(buffering=0)  # not mapped: that would count as memory

    def read(self, top: int, rows: int) -> Tensor:
        values = torch.empty((rows, *self.shape[1:]), dtype=self.like.dtype)
        self.file.seek(top * self.row_bytes)
        content = memoryview(values.view(torch.uint8).numpy()).cast("B")
        while content:
            content = content[self.file.readinto(content) :]
        return values.to(self.like.device)

    def write(self, top: int, values: Tensor) -> None:
        self.file.seek(top * self.row_bytes)
        content = memoryview(values.contiguous().cpu().view(torch.uint8).numpy()).cast("B")
        while content:  # a single call writes 2 GB at most
            content = content[self.file.write(content) :]
