"""Frames to videos: parts that are written one after the other, then joined, with the sound."""

import heapq
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from media.files import replacing
from media.formats import VIDEO_FORMATS, check_video_format
from media.video import (
    BT709,
    Frame,
    Outline,
    errors_naming,
    open_container,
    open_video,
    pyav,
)

# Sound that is kept as it is in each container, because players know it there; and the codec for
# other sound.
_PLAYED = ("aac", "ac3", "alac", "eac3", "mp3")
_SOUND = {
    "mp4": (_PLAYED, "aac"),
    "mov": (_PLAYED, "aac"),
    "matroska": ((*_PLAYED, "flac", "opus", "vorbis"), "aac"),
    "webm": (("opus", "vorbis"), "libopus"),
}
_SOUND_RATE = 48_000  # samples a second, of sound that is encoded anew
_GAP = 0.1  # seconds: shorter ones in such sound are closed
_PART = "nut"  # a container that keeps times exactly as they are
_LIMITED = 1  # FFmpeg's number of the range from 16 to 235
_KEPT = ("title", "artist", "comment", "copyright", "creation_time", "location")  # of a source


class PartWriter:
    """Writes a part of a video, for `join_parts`.

    Args:
        path: file to write.
        like: the whole video's path, whose suffix chooses the codec.
        outline: of the video that is painted.
        crf: constant rate factor, 0 (best) to 51 (worst).
        note: text to keep in the file, see `read_note`.
    """

    def __init__(self, path: Path, like: Path, outline: Outline, *, crf: int, note: str) -> None:
        self.path = path
        self.outline = outline
        self.codec, self.options = VIDEO_FORMATS[like.suffix.lower()][1:]
        self.options = self.options | {"crf": str(crf)}
        self.num_frames = 0
        self.stream = None
        with errors_naming(path):
            self.container = open_container(path, "w", format=_PART)
        self.container.metadata["comment"] = note

    def add(self, frame: Frame) -> None:
        """Write a frame, later than those before it and of their size.

        An odd last row or column is left out.

        Raises:
            OSError: there is no room for it.
            ValueError: it is less than 2 px high or wide, or not of the size of those before.
        """
        height, width = (side // 2 * 2 for side in frame.pixels.shape[-2:])
        if not height or not width:
            raise ValueError("a video's frames must be of 2x2 px at least")
        rgb = frame.pixels[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
        with errors_naming(self.path):
            if self.stream is None:
                self._begin(frame, height, width)
            elif (height, width) != (self.stream.height, self.stream.width):
                raise ValueError(
                    f"a frame of {width}x{height} px among those of "
                    f"{self.stream.width}x{self.stream.height}"
                )
            picture = pyav().VideoFrame.from_ndarray(rgb, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace=BT709)
            picture.pts, picture.time_base = frame.time, frame.tick
            self.container.mux(self.stream.encode(picture))
            self.num_frames += 1

    def _begin(self, frame: Frame, height: int, width: int) -> None:
        self.stream = self.container.add_stream(self.codec, self.outline.rate, self.options)
        context = self.stream.codec_context
        context.height, context.width = height, width
        context.pix_fmt = "yuv420p"
        context.time_base = frame.tick
        context.sample_aspect_ratio = frame.pixel_aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = _LIMITED

    def close(self) -> None:
        """Write what the encoder still holds."""
        with errors_naming(self.path):
            try:
                if self.stream:
                    self.container.mux(self.stream.encode())
            finally:
                self.container.close()


def read_note(path: Path) -> str:
    """The note of a part; OSError or ValueError if it is none."""
    with errors_naming(path), open_container(path) as container:
        return container.metadata.get("comment", "")


def count_frames(path: Path) -> int:
    """How many frames a part has; OSError or ValueError if it cannot be read."""
    with open_video(path) as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


def join_parts(parts: Sequence[Path], source: Path, target: Path, *, exists_ok: bool) -> None:
    """Make a video of parts and of the sound of another one, completely or not at all.

    The sound is copied as it is, or encoded anew where the target's format does not take it; from a
    place on where it cannot be read any more it is left out, with a warning. Where its times go
    back it goes on after what is there. Title and the like are kept; subtitles are not. A start
    later than 0 becomes 0.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the target's suffix is unknown, or a file is no video.
        FileExistsError: the target exists, and exists_ok is false.
    """
    check_video_format(target)
    with ExitStack() as stack:
        file = stack.enter_context(replacing(target, exists_ok=exists_ok))
        original, pictures = stack.enter_context(open_video(source))
        stack.enter_context(errors_naming(target))
        name = VIDEO_FORMATS[target.suffix.lower()][0]
        options = {"movflags": "faststart"} if name in ("mp4", "mov") else {}
        temporary = Path(file.name)
        output = stack.enter_context(open_container(temporary, "w", format=name, options=options))
        output.metadata.update({k: v for k, v in original.metadata.items() if k in _KEPT})
        with open_video(parts[0]) as (_, first):
            video = output.add_stream_from_template(first)
        packets = [_picture_packets(parts, video, pictures)]
        voices = {
            stream.index: _Voice(output, stream)
            for stream in original.streams.audio
            if stream.codec_context is not None  # else there is no decoder for it
        }
        if voices:
            packets.append(_sound_packets(original, source, voices))
        start = max(0, Fraction(original.start_time or 0, pyav().time_base))
        num_damaged = 0
        for packet in heapq.merge(*packets, key=lambda packet: packet.dts * packet.time_base):
            ticks = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks
            try:
                output.mux(packet)
            except pyav().error.InvalidDataError:
                if packet.stream is video:
                    raise
                num_damaged += 1
    if num_damaged:
        warnings.warn(f"{source}: {num_damaged} damaged pieces of sound left out", stacklevel=2)


def _picture_packets(parts: Sequence[Path], stream: Any, original: Any) -> Iterator[Any]:
    """The pictures of all parts, as packets of one stream. The last one is shown as long as the
    original's, if all are there.
    """
    for number, (packet, following) in enumerate(pairwise(chain(_packets(parts), [None])), 1):
        packet.stream, packet.dts = stream, packet.pts  # no frame waits for another
        if following:
            packet.duration = following.pts - packet.pts
        elif number == original.frames and original.duration is not None:
            end = ((original.start_time or 0) + original.duration) * original.time_base
            packet.duration = max(1, round(end / packet.time_base) - packet.pts)
        yield packet


def _packets(parts: Sequence[Path]) -> Iterator[Any]:
    for part in parts:
        with open_video(part) as (container, stream):
            yield from (packet for packet in container.demux(stream) if packet.size)


def _sound_packets(original: Any, path: Path, voices: dict[int, "_Voice"]) -> Iterator[Any]:
    """The sound, as packets of the new streams."""
    try:
        streams = [stream for stream in original.streams.audio if stream.index in voices]
        for packet in original.demux(*streams):
            yield from voices[packet.stream.index].packets(packet)
    except pyav().FFmpegError as error:
        warnings.warn(f"{path}: some sound is left out: {error.strerror}", stacklevel=2)


class _Voice:
    """A stream of sound: copied, or encoded anew.

    Args:
        output: the container to be written.
        source: stream of the original.
    """

    def __init__(self, output: Any, source: Any) -> None:
        kept, other = _SOUND[output.format.name]
        self.is_copied = source.codec_context.codec.canonical_name in kept
        if self.is_copied:
            self.stream = output.add_stream_from_template(source)
        else:
            self.stream = output.add_stream(other, rate=_SOUND_RATE)
            channels = source.codec_context.channels
            self.layout = {1: "mono", 6: "5.1"}.get(channels, "stereo")
            self.stream.codec_context.layout = self.layout
        self.stream.metadata.update(source.metadata)  # the language
        self.end: int | None = None  # of the last packet
        self.shift = 0  # of times that have gone back
        self.setup, self.resampler = None, None
        self.next: int | None = None  # time of the next sample that is encoded

    def packets(self, packet: Any) -> Iterator[Any]:
        """What a packet of the source, empty at the end, becomes."""
        if self.is_copied:
            packets = [packet] if packet.size else []
        else:
            packets = self._encoded(packet)
        for new in packets:
            if new.dts is None or new.pts is None:
                continue
            if self.end is not None and new.dts + self.shift < self.end - new.duration // 2:
                self.shift = self.end - new.dts
            new.pts, new.dts = new.pts + self.shift, new.dts + self.shift
            self.end, new.stream = new.dts + max(1, new.duration or 0), self.stream
            yield new

    def _encoded(self, packet: Any) -> Iterator[Any]:
        try:
            pieces = packet.decode()
        except pyav().error.InvalidDataError:
            return
        for piece in pieces:
            for samples in self._resampled(piece):
                samples.pts, samples.time_base = self.next, Fraction(1, _SOUND_RATE)
                self.next += samples.samples
                yield from self.stream.encode(samples)
        if not packet.size:
            yield from self.stream.encode()

    def _resampled(self, piece: Any) -> list[Any]:
        """Its samples, of one rate and layout whatever theirs is."""
        setup = piece.format.name, piece.layout.name, piece.sample_rate
        if setup != self.setup:  # a broadcast may change in the middle
            kind = self.stream.codec_context.format
            self.resampler = pyav().AudioResampler(kind, self.layout, _SOUND_RATE)
            self.setup = setup
        time = round((piece.time or 0) * _SOUND_RATE)
        if self.next is None or time - self.next > _GAP * _SOUND_RATE:
            self.next = time
        return self.resampler.resample(piece)
