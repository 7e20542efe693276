"""Work in threads, in order: the next result is computed while the caller uses the last one."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TypeVar

import torch

LOCK = threading.Lock()

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_ahead(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    most: int = 1,
    finish: bool = False,
) -> Iterator[Result]:
    """Results in the items' order, up to `most` ahead of the caller.

    After Ctrl-C, what has been begun is still finished and given, if `finish` says so.
    """
    pending: deque[Future[Result]] = deque()

    def next_result() -> Result:
        result = pending[0].result()  # still pending if Ctrl-C comes before it is there
        pending.popleft()
        return result

    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) > most:
                yield next_result()
        while pending:
            yield next_result()
    except KeyboardInterrupt:
        while finish and pending:
            yield next_result()
        raise


def ahead_of(executor: Executor, items: Iterator[Item]) -> Iterator[Item]:
    """The same items, none of them None; the next one is made while the caller uses the last."""
    made = map_ahead(executor, lambda _: next(items, None), count())
    return takewhile(lambda item: item is not None, made)


@contextmanager
def reader_and_writer() -> Iterator[tuple[Executor, Executor]]:
    """A thread for reading and one for writing, beside the caller's that paints."""
    # torch fixes a thread's number of cores when first asked; ask before painting lowers it for new
    # threads.
    fix = torch.get_num_threads
    with (
        ThreadPoolExecutor(1, initializer=fix) as reader,
        ThreadPoolExecutor(1, initializer=fix) as writer,
    ):
        yield reader, writer


@dataclass(frozen=True)
class Workers:
    """Threads that work on the parts of one thing.

    Args:
        num: how many.
        executor: the threads; without them the caller's thread does the work.
        progress: called after each result with its share of all results of a map.
    """

    num: int = 1
    executor: Executor | None = None
    progress: Callable[[float], None] | None = None

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results in the items' order, computed in inference mode."""
        function = torch.inference_mode(function)
        if self.executor is None:
            results = map(function, items)
        else:
            results = map_ahead(self.executor, function, items, most=self.num)
        for result in results:
            yield result
            if self.progress:
                self.progress(1 / len(items))


@contextmanager
def one_core_each(num: int, progress: Callable[[float], None] | None = None) -> Iterator[Workers]:
    """Workers that compute on one processor core each; a single one is the caller's thread, with
    all cores.

    Several threads in one operation wait for each other at its end, and fetch from each other's
    caches what the operation before has left there.
    """
    if num == 1:
        yield Workers(progress=progress)
        return

    # torch's number of threads holds for the calling thread and for all that start later. One
    # caller at a time: several would only compete for the cores.
    with LOCK, ThreadPoolExecutor(num, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        num_threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)  # here too: its idle threads would spin
            yield Workers(num, threads, progress)
        finally:
            torch.set_num_threads(num_threads)
