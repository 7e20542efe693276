"""Writing a file completely or not at all, and by one process at a time."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None


@contextmanager
def replacing(path: Path, *, exists_ok: bool = True) -> Iterator[BinaryIO]:
    """A file open for writing under a temporary name; at the end it is flushed to disk and renamed
    into place, after an error it is deleted.

    Raises:
        FileExistsError: the file has appeared meanwhile, and exists_ok is false.
    """
    # Short, because the name itself may have the full length; random, because threads, and
    # processes on several hosts, may write into one folder.
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if exists_ok or not _link(temporary, path):
            os.replace(temporary, path)
    except OSError as error:
        # A full disk names no file.
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, data: bytes | memoryview, *, exists_ok: bool = True) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place.

    Raises:
        FileExistsError: the file exists, and exists_ok is false.
    """
    with replacing(path, exists_ok=exists_ok) as file:
        file.write(data)


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name, which unlike renaming replaces nothing; False where the file
    system has no links.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        return False
    return True


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Meanwhile nobody else claims the same file, as far as system and disk have locks.

    A file `.NAME.lock` beside it is locked; that ends with this process, however it ends.

    Raises:
        OSError: there can be no file.
        ValueError: somebody else has claimed it.
    """
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("a") as file:
        if not _lock(file):
            raise ValueError(f"{path} is being made by another run")
        try:
            yield
        finally:
            with suppress(OSError):
                lock.unlink()


def _lock(file: TextIO) -> bool:
    """Lock an open file; False if somebody else has, or has just ended and removed it. True where
    there are no locks: on Windows, and on some disks of networks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return os.fstat(file.fileno()).st_nlink > 0


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
