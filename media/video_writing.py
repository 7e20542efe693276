"""Frames to videos: parts that are written one after the other, then joined, with the sound."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from media.files import replacing
from media.formats import check_video_format
from media.video import BT709, Frame, Outline, errors_naming, open_video, pyav

# FFmpeg's names for each suffix that can be written: container, codec, and the codec's options.
# Without frames that refer to later ones, which would tie a part of a video to the next.
_H264 = ("libx264", {"preset": "medium", "bf": "0"})
_VP9 = ("libvpx-vp9", {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"})
_FORMATS = {
    ".mp4": ("mp4", *_H264),
    ".m4v": ("mp4", *_H264),
    ".mov": ("mov", *_H264),
    ".mkv": ("matroska", *_H264),
    ".webm": ("webm", *_VP9),
}
# Sound that is kept as it is in each container, because players know it there; and the codec for
# other sound.
_PLAYED = ("aac", "ac3", "alac", "eac3", "mp3")
_SOUND = {
    "mp4": (_PLAYED, "aac"),
    "mov": (_PLAYED, "aac"),
    "matroska": ((*_PLAYED, "flac", "opus", "vorbis"), "aac"),
    "webm": (("opus", "vorbis"), "libopus"),
}
_PART = "nut"  # a container that keeps times exactly as they are
_LIMITED = 1  # FFmpeg's number of the range from 16 to 235
_KEPT = ("title", "artist", "comment", "copyright", "creation_time", "location")  # of a source


class PartWriter:
    """Writes a part of a video, for `join_parts`.

    Args:
        path: file to write.
        like: the whole video's path, whose suffix chooses the codec.
        outline: of the video that is painted.
        crf: constant rate factor, 0 (lossless) to 51 (worst).
        note: text to keep in the file, see `read_note`.
    """

    def __init__(self, path: Path, like: Path, outline: Outline, *, crf: int, note: str) -> None:
        self.path = path
        self.outline = outline
        self.codec, self.options = _FORMATS[like.suffix.lower()][1:]
        self.options = self.options | {"crf": str(crf)}
        self.num_frames = 0
        self.stream = None
        with errors_naming(path):
            self.container = pyav().open(str(path), "w", format=_PART)
        self.container.metadata["comment"] = note

    def add(self, frame: Frame) -> None:
        """Write a frame, later than those before it; OSError if there is no room for it.

        Height and width must be even for these codecs: an odd last row or column is left out.
        """
        height, width = (side // 2 * 2 for side in frame.pixels.shape[-2:])
        rgb = frame.pixels[0, :, :height, :width].permute(1, 2, 0).contiguous().numpy()
        with errors_naming(self.path):
            if self.stream is None:
                self._begin(frame, height, width)
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
    with errors_naming(path), pyav().open(str(path)) as container:
        return container.metadata.get("comment", "")


def count_frames(path: Path) -> int:
    """How many frames a part has; OSError or ValueError if it cannot be read."""
    with open_video(path) as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


def join_parts(parts: Sequence[Path], source: Path, target: Path, *, exists_ok: bool) -> None:
    """Make a video of parts and of the sound of another one, completely or not at all.

    The sound is copied as it is, or encoded anew where the target's format does not take it. Title
    and the like are kept; subtitles are not.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the target's suffix is unknown, or a file is no video.
        FileExistsError: the target exists, and exists_ok is false.
    """
    check_video_format(target)
    av = pyav()
    with ExitStack() as stack:
        file = stack.enter_context(replacing(target, exists_ok=exists_ok))
        stack.enter_context(errors_naming(target))
        name = _FORMATS[target.suffix.lower()][0]
        options = {"movflags": "faststart"} if name in ("mp4", "mov") else {}
        output = stack.enter_context(av.open(file.name, "w", format=name, options=options))
        sound = stack.enter_context(av.open(str(source), metadata_errors="replace"))
        output.metadata.update({k: v for k, v in sound.metadata.items() if k in _KEPT})
        first = stack.enter_context(av.open(str(parts[0])))
        video = output.add_stream_from_template(first.streams.video[0])
        voices = {stream.index: _voice(output, stream) for stream in sound.streams.audio}
        packets = [_picture_packets(parts, video)]
        if voices:
            packets.append(_sound_packets(sound, voices))
        for packet in heapq.merge(*packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)


def _voice(output: Any, stream: Any) -> tuple[Any, bool]:
    """A stream for this one's sound, and whether it is to be encoded anew."""
    kept, other = _SOUND[output.format.name]
    if stream.codec_context.name in kept:
        return output.add_stream_from_template(stream), False
    voice = output.add_stream(other, rate=48_000)
    voice.codec_context.layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    return voice, True


def _picture_packets(parts: Sequence[Path], stream: Any) -> Iterator[Any]:
    """The pictures of all parts, as packets of one stream."""
    for part in parts:
        with open_video(part) as (container, one):
            for packet in container.demux(one):
                if packet.size:
                    packet.stream, packet.dts = stream, packet.pts  # no frame waits for another
                    yield packet


def _sound_packets(sound: Any, voices: dict[int, tuple[Any, bool]]) -> Iterator[Any]:
    """The sound, as packets of the new streams; damaged pieces are left out."""
    for packet in sound.demux(*sound.streams.audio):
        voice, is_encoded_anew = voices[packet.stream.index]
        if not is_encoded_anew:
            packet.stream = voice
            pieces = [packet] if packet.size else []
        else:
            pieces = _encode_sound(packet, voice)
        yield from (piece for piece in pieces if piece.dts is not None)


def _encode_sound(packet: Any, voice: Any) -> Iterator[Any]:
    """A packet's sound in another codec; an empty one is the end."""
    try:
        pieces = packet.decode()
    except pyav().error.InvalidDataError:
        return
    for piece in pieces:
        yield from voice.encode(piece)
    if not packet.size:
        yield from voice.encode()
