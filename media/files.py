"""Writing a file completely or not at all."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file open for writing under a temporary name; at the end it is flushed to disk and renamed
    into place, after an error it is deleted.
    """
    # Short, for the name itself may be of full length; random, for processes on several hosts and
    # threads may write into one folder.
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    with replacing(path) as file:
        file.write(data)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
