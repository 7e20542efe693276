"""Sharing out photos among the processes of `accelerate launch` or `torchrun`, on all hosts."""

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

Item = TypeVar("Item")


class Processes:
    """The processes of this run; a single one unless a launcher has started several.

    Args:
        on_cpu: compute on the CPU even where there are GPUs.
    """

    def __init__(self, *, on_cpu: bool) -> None:
        self.state = None
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            from accelerate import PartialState  # takes a second that a single process saves

            # A finished process waits for the others, for days if need be.
            self.state = PartialState(cpu=on_cpu, timeout=timedelta(days=30))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reports for all."""
        return self.state is None or self.state.is_main_process

    @property
    def device(self) -> str | None:
        """This process's device; None for a single process, which may choose."""
        return None if self.state is None else str(self.state.device)

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of the main one's items. Those of other processes are ignored,
        because a folder may look different to each of them.
        """
        if self.state is None:
            return list(items)
        from accelerate.utils import broadcast_object_list

        shared = [items]
        broadcast_object_list(shared)
        return list(shared[0])[self.state.process_index :: self.state.num_processes]

    def sum(self, counts: Sequence[int]) -> list[int]:
        """The sums over all processes; waits until all have called it."""
        if self.state is None:
            return list(counts)
        from accelerate.utils import gather_object

        return [sum(column) for column in zip(*gather_object([tuple(counts)]), strict=True)]
