"""Writing a file completely or not at all, and by one process at a time."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

_claims: set[Path] = set()  # of this process, which its own locks would not keep out


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
def claimed(path: Path, *, flag: str = "-o") -> Iterator[None]:
    """Meanwhile nobody else claims the same file, as far as system and disk have locks.

    A file `.NAME.lock` beside it is locked; that ends with this process, however it ends, even if
    worker processes live on for a while.

    Args:
        path: the file.
        flag: that has named it, for the error.

    Raises:
        OSError: there can be no file.
        ValueError: somebody else has claimed it.
    """
    lock = path.absolute().with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        is_free = lock not in _claims
        if is_free and fcntl:
            is_free = _lock(stack.enter_context(lock.open("a")))
        if not is_free:
            raise ValueError(f"{flag} {path}: another run is writing it")
        _claims.add(lock)
        try:
            yield
        finally:
            _claims.remove(lock)
            with suppress(OSError):
                lock.unlink()


def _lock(file: TextIO) -> bool:
    """Lock an open file; False if another process has, or has just ended and removed it. True on
    disks without locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
    return os.fstat(file.fileno()).st_nlink > 0


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits; OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
