"""Where and in which precision to compute."""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from models import int8
from models.timing import best_seconds

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def pick_device(name: str | None = None) -> torch.device:
    """A device that works: the named one, or the first available of CUDA, MPS and CPU.

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
    """Precision of the convolutions: the named one, or for "auto" the fastest here.

    That is bfloat16 with matrix units, else 8-bit integers on CPUs that have instructions for them,
    else bfloat16 where it is faster than float32.

    Raises:
        ValueError: unknown name, or not available on this device.
    """
    if name == "auto":
        if _integers_are_fastest(device):
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
    # No timing: it must be the same in each process, and when a training is resumed.
    return torch.bfloat16 if _cpu_has("amx_tile", "avx512_bf16") else torch.float32


def _cpu_has(*instructions: str) -> bool:
    """Whether PyTorch says that the CPU has any of them."""
    tests = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in instructions)
    return any(test() for test in tests)


def _integers_are_fastest(device: torch.device) -> bool:
    if _cpu_has("amx_tile") or not int8.is_exact(device):
        return False
    # No timing where there are instructions for it: beside other programs it now and then came out
    # otherwise, and the same command gave another painting.
    return _cpu_has("vnni") or int8.pays(device)


@cache  # all of a process's results in one precision, even if another program slows down the timing
def _bfloat16_is_faster(device: torch.device) -> bool:
    """Time it on the CPU: some processors run bfloat16 at half of float32's speed."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False

    # With instructions for it, it is; a timing beside other programs might sometimes say otherwise.
    if _cpu_has("amx_tile", "avx512_bf16"):
        return True

    def convolution(dtype: torch.dtype) -> Callable[[], Tensor]:
        x = torch.ones(1, 128, 48, 48, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.ones(128, 128, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
        return partial(F.conv2d, x, weight)

    halves, floats = best_seconds(convolution(torch.bfloat16), convolution(torch.float32))
    # A clear margin, so that the choice does not change from one start to the next.
    return halves < 0.8 * floats
