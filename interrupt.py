"""Ctrl-C, SIGTERM as a job scheduler or `timeout` sends it, and SIGHUP as a terminal does that is
closed: a run ends, and keeps all.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: all is kept as after Ctrl-C, but the exit code is another one."""


class HungUp(KeyboardInterrupt):
    """SIGHUP, likewise."""


# Seconds: a scheduler that signals all processes of a job, and torchrun that passes it on, are one.
ONE_SIGNAL = 1.0
ERRORS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
if hasattr(signal, "SIGHUP"):  # not on Windows
    ERRORS[signal.SIGHUP] = HungUp


def end_silently() -> None:
    """Let Ctrl-C end the process without a word, where it would show a traceback, until cli.run
    takes over: torch takes seconds to import.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_by_errors() -> None:
    """Let these signals raise their errors, but for one that is ignored, as in a shell's background
    jobs.
    """
    for number in ERRORS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


@contextmanager
def deferred(stop: Callable[[KeyboardInterrupt], None] | None) -> Iterator[None]:
    """Within it the first of the signals raises nothing; a later one is an error at once. One that
    is ignored, as in a shell's background jobs, stays so.

    Args:
        stop: called instead, with the error to raise when the time is right; None where another
            process decides when to end, and all of them are ignored.
    """

    first_came: float | None = None

    def handle(number: int, _: Any) -> None:
        nonlocal first_came
        if first_came is None:
            first_came = time.monotonic()
            stop(ERRORS[number]())
        elif time.monotonic() - first_came > ONE_SIGNAL:
            raise ERRORS[number]

    heard = [n for n in ERRORS if signal.getsignal(n) is not signal.SIG_IGN]
    before: dict[int, Any] = {}
    try:
        for number in heard:
            before[number] = signal.signal(number, handle if stop else signal.SIG_IGN)
    except ValueError:  # not in the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_to_main_process(worker: int) -> None:
    """For workers that read data, which must live until all is saved.

    Ctrl-C reaches every process of a terminal, and a scheduler's SIGTERM every one of the job. A
    worker ignores them, but for a SIGTERM from the main process.
    """
    for number in ERRORS.keys() - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # Not os.getppid(), which may be the server that forks the workers.
        main = multiprocessing.parent_process().pid
        threading.Thread(target=_end_by, args=(main,), daemon=True).start()


def _end_by(process: int) -> None:
    """End as soon as this process, and no other, sends a SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


def _raise(number: int, _: Any) -> None:
    raise ERRORS[number]
