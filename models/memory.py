"""How much memory there is, how much is taken, and how to keep it fast."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")
LARGE_TENSOR = 2**23  # bytes, see keep_pages


def keep_pages(*, large: bool = True) -> None:
    """Let freed memory stay with the process (glibc only), with or without that of large tensors.

    By default glibc maps large tensors afresh, and the kernel zeroes each page when it is first
    touched; on the CPU this can take as long as the convolutions. But kept memory becomes
    fragmented: if all of it stays, a process grows to two or three times what it uses.
    """
    m_trim_threshold, m_mmap_threshold, m_mmap_max, m_arena_max = -1, -3, -4, -8
    options = {
        m_trim_threshold: 2**31 - 1,
        m_mmap_threshold: LARGE_TENSOR,
        m_mmap_max: 0 if large else 2**16,
        m_arena_max: 1,
    }
    for option, value in options.items():
        _call_libc("mallopt", option, value)


def release_pages() -> None:
    """Give the system back what has been freed and kept (glibc only)."""
    _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> None:
    """Call a function that glibc has; elsewhere do nothing."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL(None), name)(*arguments)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken: what the system calls available, and no more than the control
    group (a container's limit) leaves.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available, allowed = psutil.virtual_memory().available, _control_group_memory()
    return available if allowed is None else min(available, allowed)


def taken_memory(device: torch.device) -> int:
    """Bytes that this process has taken: its resident memory, or its share of a GPU's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def peak_memory() -> int | None:
    """The most bytes of resident memory that this process ever had; None if the system does not
    tell.
    """
    # Linux: ru_maxrss survives exec, so it would include the launcher's peak.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of any device was not enough."""
    message = str(error).lower()
    # The CPU's allocator raises a bare RuntimeError, with one text or another.
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(
        text in message for text in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _control_group_memory() -> int | None:
    """Bytes that the limit of a control group leaves; None without one."""
    for folder, limit, used, cache in (
        ("", "memory.max", "memory.current", "inactive_file"),  # version 2
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        place = CONTROL_GROUP / folder
        try:
            most, taken = (int((place / name).read_text()) for name in (limit, used))
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        # Files that the kernel keeps in memory count as used, but give way.
        return max(0, most - taken + _statistic(place / "memory.stat", cache))
    return None


def _statistic(path: Path, name: str) -> int:
    """A number in a file with a name and a number in each line; 0 if it is not there."""
    try:
        return int(dict(line.split() for line in path.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0
