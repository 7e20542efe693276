"""How fast a device multiplies at best, and how many multiplications there are."""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.device import pick_precision


def operations(compute: Callable[[], object]) -> float:
    """Multiplications and additions of a function."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large matrix product in the precision that is chosen here."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = pick_precision("auto", device)
    matrix = torch.randn(size, size, device=device).to(dtype)
    product = torch._int_mm if dtype == torch.int8 else torch.mm
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(matrix, matrix)[0, 0].item()  # waits until it is there
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
