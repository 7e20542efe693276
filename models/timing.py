"""Which way of computing is the fastest on this processor."""

import math
import time
from collections.abc import Callable


def best_seconds(*calls: Callable[[], object]) -> list[float]:
    """The shortest time of each of some calls. In turns, for another program may slow down any."""
    best = [math.inf] * len(calls)
    for _ in range(6):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best
