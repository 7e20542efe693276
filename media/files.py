"""Writing a file completely or not at all."""

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    # Short, for the name itself may be of full length; random, for processes on several hosts and
    # threads may write into one folder.
    temporary = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
