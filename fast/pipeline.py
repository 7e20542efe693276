"""Painting many photos: while one is painted, the next is read and the last one written."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from fast.jobs import Job
from fast.workers import map_ahead, reader_and_writer
from media import Picture, decode_image, encode_image, read_image, write_atomically

# Errors of one photo that do not affect the others.
PHOTO_ERRORS = (OSError, ValueError, ArithmeticError, MemoryError, RuntimeError)


@dataclass
class Outcome:
    """What became of a job.

    Args:
        job: photo and file.
        stream: data from standard input or a pipe, until it is decoded.
        picture: the photo, then its painting, until it is written.
        error: why it was not painted, or None.
        is_skipped: the file was there already.
    """

    job: Job
    stream: BinaryIO | None = None
    picture: Picture | None = None
    error: Exception | None = None
    is_skipped: bool = False

    @property
    def is_painted(self) -> bool:
        """Whether there is a painting now that was not there before."""
        return self.error is None and not self.is_skipped


def paint_photos(
    jobs: Iterable[Job],
    paint: Callable[[Picture], Picture],
    *,
    size: int | None = None,
    force: bool = False,
    resume: bool = False,
) -> Iterator[Outcome]:
    """Paint photos one after the other, reading ahead and writing behind in a thread each.

    Three photos at most are in memory. Files are written completely or not at all; those that are
    painted when Ctrl-C is pressed are still written.

    Args:
        jobs: photos and files.
        paint: makes a painting of a photo; called in this thread.
        size: longer side in px that photos are scaled to when they are read.
        force: replace files that exist; otherwise they are errors.
        resume: skip them.

    Yields:
        What became of each job, in their order; an error of one does not stop the others.
    """

    def begin(outcome: Outcome) -> None:
        source, target = outcome.job.source, outcome.job.target
        if target and os.path.lexists(target) and not force:
            skip_or_raise(outcome)
        elif source is None or source.is_fifo():  # such as a shell's <(command)
            # In this thread: Ctrl-C cannot end another one that waits for input.
            outcome.stream = _read_stream(source)

    def skip_or_raise(outcome: Outcome) -> None:
        if not resume:
            target = outcome.job.target
            raise ValueError(f"{target} exists; replace it by --force or skip it by --resume")
        outcome.is_skipped = True

    def read(outcome: Outcome) -> None:
        source, stream = outcome.job.source, outcome.stream
        if stream:
            name = str(source or "standard input")
            outcome.picture = decode_image(stream, name, long_side=size)
            outcome.stream = None
        else:
            outcome.picture = read_image(source, long_side=size)

    def make(outcome: Outcome) -> None:
        outcome.picture = paint(outcome.picture)

    def write(outcome: Outcome) -> None:
        target = outcome.job.target
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(target, outcome.picture, exists_ok=force)
        except FileExistsError:  # it was not there when the photo was read
            skip_or_raise(outcome)
        outcome.picture = None

    with reader_and_writer() as (reader, writer):
        outcomes = (_attempt(begin, Outcome(job)) for job in jobs)
        photos = map_ahead(reader, partial(_attempt, read), outcomes)
        paintings = (_attempt(make, outcome) for outcome in photos)
        yield from map_ahead(writer, partial(_attempt, write), paintings, finish=True)


def _attempt(step: Callable[[Outcome], None], outcome: Outcome) -> Outcome:
    """Do a step of a job unless an earlier one has ended it."""
    if outcome.error is None and not outcome.is_skipped:
        try:
            step(outcome)
        except PHOTO_ERRORS as error:
            outcome.picture = None
            outcome.error = error.with_traceback(None)  # which would keep the photo in memory
    return outcome


def _read_stream(source: Path | None) -> BytesIO:
    """All of a stream, because decoders seek in it."""
    if source:
        return BytesIO(source.read_bytes())
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return BytesIO(sys.stdin.buffer.read())


def _write(target: Path | None, painting: Picture, *, exists_ok: bool) -> None:
    if target is None:
        content = encode_image(Path("standard output.png"), painting.pixels, like=painting)
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        content = encode_image(target, painting.pixels, like=painting)
        write_atomically(target, content, exists_ok=exists_ok)
