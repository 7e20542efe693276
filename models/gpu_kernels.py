"""Whether the kernels of models/triton_kernels, whose import needs Triton, can be used."""

import warnings
from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F

from models.memory import is_out_of_memory


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
