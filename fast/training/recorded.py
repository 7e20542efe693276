"""Losses and gradients of a batch as one CUDA graph."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

WARM_UPS = 2  # passes before the recording, in which libraries get all that they need


class RecordedLosses:
    """A function of a batch that is recorded on the GPU and replayed with each further batch.

    The kernels of a small batch, more than a thousand, take longer to launch one by one than to
    compute.

    Args:
        losses: takes a batch on the GPU, leaves gradients in the weights and returns a tensor; the
            same kernels with every batch of a shape, and none that the CPU waits for.
        weights: those with gradients.
    """

    def __init__(self, losses: Callable[[Tensor], Tensor], weights: Iterable[Tensor]) -> None:
        self.losses = losses
        self.weights = list(weights)
        self.batch: Tensor | None = None

    def __call__(self, batch: Tensor) -> Tensor:
        if self.batch is None or batch.shape != self.batch.shape:
            self._record(batch)
        self.batch.copy_(batch)
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient
        return self.values.clone()

    def _record(self, batch: Tensor) -> None:
        """Record for the shape of this batch; only the last recording is kept."""
        self.graph = self.gradients = self.values = None  # its memory is free then
        self.batch = batch.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forget_gradients()
                self.losses(self.batch)
        torch.cuda.current_stream().wait_stream(stream)
        self._forget_gradients()
        self.graph = torch.cuda.CUDAGraph()
        # The thread that pins the memory of batches goes on meanwhile.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.values = self.losses(self.batch)
        self.gradients = [weight.grad for weight in self.weights]

    def _forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None
