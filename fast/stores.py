"""Where a feature map waits for the next layer: in memory, or in a temporary file."""

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Store(Protocol):
    """A feature map (H, W, C), read and written by bands of rows, by several threads at once.

    To overwrite a map, write the same bands again.
    """

    def read(self, top: int, rows: int) -> Iterator[tuple[int, Tensor]]:
        """Rows in one or more parts: the first one's number, and (rows, W, C)."""

    def write(self, top: int, values: Tensor) -> None:
        """Keep rows (rows, W, C) from `top` on; the caller must not change them afterwards."""


class MemoryStore:
    """In the device's memory, as the bands that were written: nothing is copied."""

    def __init__(self) -> None:
        self.bands: dict[int, Tensor] = {}

    def read(self, top: int, rows: int) -> Iterator[tuple[int, Tensor]]:
        for first, band in self.bands.items():
            start, stop = max(top, first), min(top + rows, first + len(band))
            if start < stop:
                yield start, band[start - first : stop - first]

    def write(self, top: int, values: Tensor) -> None:
        self.bands[top] = values


class FileStore:
    """In a nameless temporary file, which disappears with the process.

    Args:
        shape: H, W, C.
        like: a tensor whose dtype and device the values have.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, shape: tuple[int, int, int], like: Tensor) -> None:
        self.shape, self.like = shape, like
        self.row_bytes = math.prod(shape[1:]) * like.element_size()
        # Not mapped: that would count as memory.
        self.file = tempfile.TemporaryFile(buffering=0, dir=_folder_on_disk())
        self.lock = threading.Lock()  # its position serves one thread at a time

    def read(self, top: int, rows: int) -> Iterator[tuple[int, Tensor]]:
        values = torch.empty((rows, *self.shape[1:]), dtype=self.like.dtype)
        content = memoryview(values.view(torch.uint8).numpy()).cast("B")
        with self.lock:
            self.file.seek(top * self.row_bytes)
            while content:
                content = content[self.file.readinto(content) :]
        yield top, values.to(self.like.device)

    def write(self, top: int, values: Tensor) -> None:
        content = memoryview(values.contiguous().cpu().view(torch.uint8).numpy()).cast("B")
        with self.lock:
            self.file.seek(top * self.row_bytes)
            while content:  # a single call writes 2 GB at most
                content = content[self.file.write(content) :]


def _folder_on_disk() -> str | None:
    """A folder for temporary files; None for the one that the environment names, or the usual one.

    /tmp lies in memory on many Linux systems, /var/tmp on the disk.
    """
    is_named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return None if is_named or not os.access("/var/tmp", os.W_OK | os.X_OK) else "/var/tmp"
