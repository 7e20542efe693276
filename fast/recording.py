"""CUDA graphs."""

from collections.abc import Callable

import torch
from torch import Tensor


class Recording:
    """A function of a tensor that is recorded on the GPU and replayed with others of its shape.

    Many small kernels take longer to launch one by one than to compute.

    Args:
        function: takes a tensor on the GPU and returns one; the same kernels with every tensor of
            the example's shape, and none that the CPU waits for.
        example: its values do not matter.
        warm_ups: calls before the recording, in which libraries get all that they need. The
            recording itself computes nothing.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], example: Tensor, *, warm_ups: int = 2
    ) -> None:
        self.input = example.clone()
        with torch.cuda.device(example.device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(warm_ups):
                    function(self.input)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # Other threads, such as the one that pins the memory of batches, go on meanwhile.
            with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
                self.output = function(self.input)

    def __call__(self, x: Tensor) -> Tensor:
        """The function's result, until the next call overwrites it."""
        self.input.copy_(x)
        self.graph.replay()
        return self.output
