"""How a training goes on: its losses, its speed, and how long the photos are waited for."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Item = TypeVar("Item")


# In the order in which they are reported: the loss and what it is the weighted sum of.
TERMS = ("loss", "content", "style", "tv", "checkerboard", "instability")


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """One step, its loss terms and the speed since the last report.

    Args:
        step: number from 1.
        loss: weighted sum of the terms.
        content, style, tv, checkerboard, instability: the terms before weighting; without a
            stability weight the last is 0.
        images_per_second: of all processes.
        loading: share of the time spent waiting for photos; near 0 unless the device is starved.
    """

    step: int
    loss: float
    content: float
    style: float
    tv: float
    checkerboard: float
    instability: float
    images_per_second: float
    loading: float


class Clock:
    """Measures speed, and how long the photos are waited for.

    Args:
        images_per_step: in all processes.
        step: where the training goes on.
    """

    def __init__(self, images_per_step: int, step: int) -> None:
        self.images_per_step = images_per_step
        self.last_report, self.last_step = time.perf_counter(), step
        self.waited = 0.0

    def watch(self, loader: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each comes counts as waiting."""
        start = time.perf_counter()
        for item in loader:
            self.waited += time.perf_counter() - start
            yield item
            start = time.perf_counter()

    def is_due(self) -> bool:
        """Whether the last report is more than a second old."""
        return time.perf_counter() - self.last_report > 1

    def progress(self, step: int, losses: Tensor) -> TrainingProgress:
        """A report with the values of TERMS; the next one covers what comes after it."""
        now = time.perf_counter()
        elapsed = now - self.last_report
        steps = step - self.last_step
        progress = TrainingProgress(
            step=step,
            **dict(zip(TERMS, losses.tolist(), strict=True)),
            images_per_second=steps * self.images_per_step / elapsed,
            loading=min(1.0, self.waited / elapsed),
        )
        self.last_report, self.last_step, self.waited = now, step, 0.0
        return progress
