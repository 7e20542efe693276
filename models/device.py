"""Where and in which precision to compute, and how to keep memory fast."""

import ctypes
import mmap
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from models import int8
from models.timing import best_seconds

CONTROL_GROUP = Path("/sys/fs/cgroup")
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}
LARGE_TENSOR = 2**23  # bytes, see keep_pages


def pick_device(name: str | None = None) -> torch.device:
    """A device that works: the named one, or CUDA, MPS or CPU, the first there is.

    Raises:
        ValueError: the named device does not exist on this machine.
    """
    if name is None:
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]  # its lists of devices are long
        reason = reason if len(reason) < 120 else "PyTorch does not know it"
        raise ValueError(f"--device {name} cannot be used here: {reason}") from error
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Precision of the convolutions: the named one, or for "auto" the fastest here: bfloat16 with
    matrix units, else 8-bit integers on CPUs that have instructions for them, else bfloat16 where
    it is faster than float32.

    Raises:
        ValueError: unknown name, or not to be had on this device.
    """
    if name == "auto":
        if not _cpu_has("amx_tile") and int8.pays(device):
            return torch.int8
        return torch.bfloat16 if _bfloat16_is_faster(device) else torch.float32
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision '{name}'; choose auto, {', '.join(PRECISIONS)}")
    if name == "int8" and not int8.is_exact(device):
        raise ValueError(
            "--precision int8 needs a CPU on which PyTorch convolves 8-bit integers correctly: one "
            "with VNNI and without AMX"
        )
    return PRECISIONS[name]


def dtype_of_maps(precision: torch.dtype) -> torch.dtype:
    """Type of the feature maps in training and in optimisation: the precision's own; with 8-bit
    integers, which are for CPUs and only convolve, bfloat16 if the CPU has instructions for it.
    """
    if precision != torch.int8:
        return precision
    # No timing: it must be the same in each process, and when a training goes on.
    return torch.bfloat16 if _cpu_has("amx_tile", "avx512_bf16") else torch.float32


def _cpu_has(*instructions: str) -> bool:
    """Whether the CPU has any of them, as far as PyTorch tells."""
    tests = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in instructions)
    return any(test() for test in tests)


def triton_kernels(device: torch.device) -> ModuleType | None:
    """The module of this name where its kernels run; not for torch.compile, which has its own."""
    if device.type != "cuda" or torch.compiler.is_compiling() or not _runs_triton(device):
        return None
    from models import triton_kernels

    return triton_kernels


@cache
def _runs_triton(device: torch.device) -> bool:
    """Whether Triton compiles kernels for a GPU, for which it needs a C compiler, and they run."""
    x = torch.arange(4.0, device=device).view(1, 1, 2, 2)
    try:
        from models.triton_kernels import mirrored_border

        works = torch.equal(mirrored_border(x, padding=1, skipped=1), F.pad(x, (1,) * 4, "reflect"))
        reason = "its results are wrong"
    except Exception as error:  # of Triton, of the compiler, of the driver: of any kind
        if is_out_of_memory(error):
            raise
        works, reason = False, (str(error).splitlines() or [type(error).__name__])[0]
    if not works:
        warnings.warn(f"the GPU is used without Triton, which is slower: {reason}", stacklevel=2)
    return works


@cache  # all of a process's results in one precision, even if another program slows down the timing
def _bfloat16_is_faster(device: torch.device) -> bool:
    """Time it on the CPU: some processors run bfloat16 at half of float32's speed."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False

    # With instructions for it, it is; beside other programs a timing might say otherwise now and
    # then.
    if _cpu_has("amx_tile", "avx512_bf16"):
        return True

    def convolution(dtype: torch.dtype) -> Callable[[], Tensor]:
        x = torch.ones(1, 128, 48, 48, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        return partial(F.conv2d, x, weight)

    halves, floats = best_seconds(convolution(torch.bfloat16), convolution(torch.float32))
    # A clear margin, so that the choice does not change from one start to the next.
    return halves < 0.8 * floats


def keep_pages(*, large: bool = True) -> None:
    """Let freed memory stay with the process (glibc only); that of large tensors, too, or not.

    By default glibc maps large tensors afresh, and the kernel fills them with zeros page by page
    when they are first touched; on the CPU this takes up to as long as the convolutions. What stays
    falls into pieces, though: with all of it a process comes to have two to three times what it
    uses.
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
    """Bytes that can still be taken, at a guess 4 GB where the system does not tell.

    On Linux what the kernel calls available, and no more than the control group (a container's
    limit) leaves.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [_available_memory(), _control_group_memory()]
    return min((value for value in free if value is not None), default=4 * 2**30)


def taken_memory(device: torch.device) -> int:
    """Bytes that this process has taken: its resident memory, or its share of a GPU's."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:  # elsewhere at best the most that it ever had is known
        return peak_memory() or 0


def peak_memory() -> int | None:
    """The most bytes of resident memory that this process ever had; None if the system does not
    tell.
    """
    with suppress(OSError):  # Linux, where the other way counts programs that this one came from
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


def _available_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    except (OSError, StopIteration):
        return None


def _control_group_memory() -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),  # version 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
    ):
        try:
            left = [int((CONTROL_GROUP / name).read_text()) for name in (limit, used)]
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        return max(0, left[0] - left[1])
    return None
