"""A painted video in the making: finished parts of it, from which a stopped run goes on."""

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from media import Frame, Outline, PartWriter, count_frames, join_parts, read_note
from media.files import replacing

FRAMES = 48  # in a part: what a killed run loses at most


class Parts:
    """The parts of a video, in a folder beside it until they are joined.

    Args:
        target: the whole video.
        source: the video that is painted.
        outline: of the source.
        crf: constant rate factor, see PartWriter.
        note: how it is painted; parts with another note are not gone on with.

    Raises:
        OSError: the folder cannot be made or a part not be read.
        ValueError: there are parts with another note.
    """

    def __init__(self, target: Path, source: Path, outline: Outline, *, crf: int, note: str):
        self.target, self.source, self.outline = target, source, outline
        self.crf, self.note = crf, note
        self.folder = folder_for(target)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths = sorted(self.folder.glob("*.nut"))
        for path in self.paths:
            if read_note(path) != note:
                raise ValueError(
                    f"{self.folder} was painted otherwise; begin anew with --force instead of "
                    "--resume"
                )
        self.num_frames = sum(count_frames(path) for path in self.paths)
        self.writer: PartWriter | None = None
        self.stack = ExitStack()

    def add(self, frame: Frame) -> None:
        """Write the next frame; OSError if there is no room for it."""
        if self.writer is None:
            self._begin()
        try:
            self.writer.add(frame)
        except BaseException:
            self.writer = None
            self.stack.__exit__(*sys.exc_info())  # without the part
            raise
        self.num_frames += 1
        if self.writer.num_frames == FRAMES:
            self.finish()

    def _begin(self) -> None:
        path = self.folder / f"{self.num_frames:08}.nut"
        file = self.stack.enter_context(replacing(path))
        self.writer = PartWriter(
            Path(file.name), self.target, self.outline, crf=self.crf, note=self.note
        )
        self.stack.callback(self.writer.close)
        self.paths.append(path)

    def finish(self) -> None:
        """Finish the part that was begun last, if it is not finished yet."""
        self.writer = None
        self.stack.close()
        if not self.paths:
            self.folder.rmdir()

    def join(self, *, exists_ok: bool) -> None:
        """Make the whole video, with the source's sound, and delete the parts."""
        join_parts(self.paths, self.source, self.target, exists_ok=exists_ok)
        shutil.rmtree(self.folder)


def folder_for(target: Path) -> Path:
    """Where a video's parts are."""
    return target.with_name(target.name + ".parts")
