"""A painted video in the making: finished parts of it, from which a stopped run goes on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from media import Frame, Outline, PartWriter, claimed, count_frames, join_parts, read_note
from media.files import replacing

FRAMES = 48  # in a part: what a killed run loses at most


@contextmanager
def parts_of(
    target: Path,
    source: Path,
    outline: Outline,
    *,
    crf: int,
    note: str,
    anew: bool = False,
) -> Iterator["Parts"]:
    """The parts of a video, in a folder beside it until they are joined; no other run may work on
    them meanwhile, and in the end what is painted is kept.

    Args:
        target: the whole video.
        source: the video that is painted.
        outline: of the source.
        crf: constant rate factor, see PartWriter.
        note: how it is painted, ASCII; parts with another note are not gone on with.
        anew: delete the parts of earlier runs.

    Raises:
        OSError: the folder cannot be made, or a part not be read.
        ValueError: there are parts with another note, or another run is painting this video.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with claimed(target), ExitStack() as stack:
        parts = Parts(target, source, outline, crf=crf, note=note)
        parts.folder.mkdir(exist_ok=True)
        stack.callback(_remove_if_empty, parts.folder)
        stack.callback(parts.finish)
        if anew:
            parts.delete()
        parts.find()
        yield parts


class Parts:
    """The parts of a video; made by parts_of, which keeps other runs away."""

    def __init__(
        self, target: Path, source: Path, outline: Outline, *, crf: int, note: str
    ) -> None:
        self.target, self.source, self.outline = target, source, outline
        self.crf, self.note = crf, note
        self.folder = folder_for(target)
        self.paths: list[Path] = []
        self.num_frames = 0
        self.writer: PartWriter | None = None
        self.writing = ExitStack()  # of one part
        self.has_failed = False

    def find(self) -> None:
        """The parts from the first frame on up to a gap."""
        for path in sorted(self.folder.glob("*.nut")):
            if read_note(path) != self.note:
                raise ValueError(
                    f"{self.folder} was painted otherwise; begin anew by --force instead of "
                    "--resume"
                )
            if path.name != _name(self.num_frames):
                break
            self.paths.append(path)
            self.num_frames += count_frames(path)

    def add(self, frame: Frame, paint: Callable[[], Tensor]) -> None:
        """Write the painting of the next frame; OSError if there is no room for it.

        After an error, the painting's too, nothing more is written: there would be a gap.
        """
        if self.has_failed:
            return
        try:
            painted = replace(frame, pixels=paint())
        except BaseException:
            self.has_failed = True  # what is written stays
            raise
        try:
            if self.writer is None:
                self._begin()
            self.writer.add(painted)
            self.num_frames += 1
            if self.writer.num_frames == FRAMES:
                self.finish()
        except BaseException:
            self.has_failed, self.writer = True, None
            self.writing.__exit__(*sys.exc_info())  # without the part
            raise

    def _begin(self) -> None:
        self.path = self.folder / _name(self.num_frames)
        file = self.writing.enter_context(replacing(self.path))
        self.writer = PartWriter(
            Path(file.name), self.target, self.outline, crf=self.crf, note=self.note
        )
        self.writing.callback(self.writer.close)

    def finish(self) -> None:
        """Finish the part that was begun last, if it is not finished yet."""
        if self.writer:
            self.writer = None
            self.writing.close()
            self.paths.append(self.path)

    def join(self, *, exists_ok: bool) -> None:
        """Make the whole video, with the source's sound, and delete the parts."""
        self.finish()
        join_parts(self.paths, self.source, self.target, exists_ok=exists_ok)
        self.delete()

    def delete(self) -> None:
        """All parts, and what a killed run has left of one."""
        for pattern in ("*.nut", ".*.part"):
            for path in self.folder.glob(pattern):
                path.unlink()


def folder_for(target: Path) -> Path:
    """Where a video's parts are."""
    return target.with_name(target.name + ".parts")


def has_parts(target: Path) -> bool:
    """Whether there are parts of a video from which a run could go on."""
    return any(folder_for(target).glob("*.nut"))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _name(first_frame: int) -> str:
    return f"{first_frame:08}.nut"
