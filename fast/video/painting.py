"""Painting videos: while a frame is painted, the next is read and the last one written."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor

from fast.jobs import Job
from fast.pipeline import PHOTO_ERRORS, Outcome
from fast.video.parts import Parts, folder_for, has_parts, parts_of
from fast.video.steadiness import Steadiness
from fast.workers import ahead_of, map_ahead, reader_and_writer
from media import Frame, as_bytes, check_video_format, pyav, read_frames, read_outline

CRF = 18  # of 0 to 51: brush strokes are all edges; more would smear them
MAX_CRF = 51


def paint_video(
    source: Path | str,
    target: Path | str,
    paint: Callable[[Tensor], Tensor],
    *,
    size: int | None = None,
    steadiness: float = 1.0,
    crf: int = CRF,
    note: str = "",
    resume: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Paint a video, with its sound and the times of its frames.

    Painted parts lie beside the target until all are there: after Ctrl-C, a failure or a kill
    `resume` goes on from them.

    Args:
        source: video file, in any format that FFmpeg knows.
        target: file to write: .mp4, .m4v, .mov and .mkv get H.264, .webm VP9.
        paint: makes of a frame, (1, 3, H, W) uint8 RGB, its painting, uint8 or float in [0, 1]; a
            StyleModel does.
        size: longer side in px; the video's own by default. An odd last row or column is left out.
        steadiness: from 0 to 2, how much a photo may change before its strokes do; 0 paints each
            frame by itself.
        crf: constant rate factor of the encoder, 0 (best) to 51 (worst).
        note: whatever the painting depends on besides; parts with other notes are refused.
        resume: go on from the parts of an earlier run; not with force.
        force: replace the target, and begin anew where there are parts.
        progress: called after each frame with how many are done, and about how many there are.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the source is no video, a setting is out of its range, a file or parts are
            there already, another run paints this video, or PyAV or OpenCV is missing.
    """
    source, target = Path(source), Path(target)
    check_video_format(target)
    check_video_settings(steadiness=steadiness, crf=crf)
    _check_files(source, target, resume=resume, force=force)
    if size is not None and size < 2:
        raise ValueError(f"--size {size}: a video needs 2 px at least")
    outline = read_outline(source)
    note = ascii((source.name, source.stat().st_size, size, steadiness, crf, note))
    with parts_of(target, source, outline, crf=crf, note=note, anew=force) as parts:
        _check_files(source, target, resume=resume, force=force)  # others may just have ended
        tell = progress and (lambda done: progress(done, outline.num_frames))
        _paint_rest(read_frames(source, long_side=size), parts, paint, Steadiness(steadiness), tell)
        parts.join(exists_ok=force)


def _paint_rest(
    frames: Iterator[Frame],
    parts: Parts,
    paint: Callable[[Tensor], Tensor],
    steady: Steadiness,
    progress: Callable[[int], None] | None,
) -> None:
    """Paint the frames that are not in the parts yet."""
    first = parts.num_frames
    if progress:
        progress(first)
    photo = deque(islice(frames, first), maxlen=1)
    if photo:  # strokes go on from the last one
        painting = deque(read_frames(parts.paths[-1]), maxlen=1)
        steady(photo[0].pixels, painting[0].pixels)

    def write(pair: tuple[Frame, Tensor]) -> None:
        frame, painting = pair
        parts.add(frame, lambda: steady(frame.pixels, painting))

    with reader_and_writer() as (reader, writer):
        ahead = ahead_of(reader, frames)
        paintings = ((frame, as_bytes(paint(frame.pixels))) for frame in ahead)
        written = map_ahead(writer, write, paintings)
        for done, _ in enumerate(written, first + 1):
            if progress:
                progress(done)


def check_video_settings(*, steadiness: float, crf: int) -> None:
    """ValueError unless videos can be painted with these settings."""
    pyav()
    Steadiness(steadiness)
    if not 0 <= crf <= MAX_CRF:
        raise ValueError(f"--crf {crf}: must be from 0 to {MAX_CRF}")


def paint_videos(
    jobs: Iterable[Job],
    paint: Callable[[Tensor], Tensor],
    *,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[Job, int, int | None], None] | None = None,
    **settings,
) -> Iterator[Outcome]:
    """Paint videos one after the other; an error of one does not stop the others.

    Args:
        jobs: videos and files.
        paint, resume, force, settings: as for `paint_video`, but files that are there already are
            skipped by resume.
        progress: the same, called with the job, too.

    Yields:
        What became of each job, in their order.
    """
    for job in jobs:
        outcome = Outcome(job)
        if resume and os.path.lexists(job.target):
            outcome.is_skipped = True
            yield outcome
            continue
        try:
            paint_video(
                job.source,
                job.target,
                paint,
                resume=resume,
                force=force,
                progress=progress and partial(progress, job),
                **settings,
            )
        except PHOTO_ERRORS as error:
            outcome.error = error.with_traceback(None)
        yield outcome


def _check_files(source: Path, target: Path, *, resume: bool, force: bool) -> None:
    """ValueError if the source cannot be painted to the target, or if something is there that must
    neither be gone on with nor be replaced.
    """
    if resume and force:
        raise ValueError("--force replaces files and --resume keeps them; give one")
    if source.exists() and not source.is_file():
        raise ValueError(f"{source} is not a file, from which alone videos are read")
    if os.path.lexists(target):
        if os.path.realpath(source) == os.path.realpath(target):
            raise ValueError(f"{target} is the video itself; choose another file")
        if not force:
            raise ValueError(f"{target} exists; replace it by --force or skip it by --resume")
    if has_parts(target) and not (resume or force):
        raise ValueError(
            f"{folder_for(target)} exists; go on from it by --resume or begin anew by --force"
        )
