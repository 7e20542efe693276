"""Small videos for the tests, written by PyAV alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

NTSC = Fraction(30_000, 1001)


def make_clip(
    path: Path,
    frames: Sequence[Tensor],
    *,
    rate: Fraction = NTSC,
    codec: str = "libx264",
    sound: str | None = "aac",
    times: Sequence[int] | None = None,
    turned: int = 0,
    language: str | None = None,
    layout: str = "stereo",
    **settings: Any,
) -> Path:
    """Write frames, (1, 3, H, W) float32 in [0, 1] each, and a tone of 440 Hz.

    Args:
        rate: frames a second; with times, ticks a second.
        times: of the frames in ticks; one after the other by default.
        turned: degrees by which a player turns the picture counterclockwise.
        language: of the sound, in three letters.
        layout: of the sound's channels.
        settings: of the codec, such as its sample_aspect_ratio.
    """
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "A clip"
        height, width = frames[0].shape[-2:]
        options = {"crf": "4"} if codec == "libx264" else {}
        video = container.add_stream(codec, rate=rate, options=options)
        video.width, video.height = width, height
        video.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        video.codec_context.time_base = 1 / rate
        for name, value in settings.items():
            setattr(video.codec_context, name, value)
        if turned:
            video.set_display_rotation(turned)
        voice = container.add_stream(sound, rate=48_000) if sound else None
        if voice:
            voice.codec_context.layout = layout
            voice.metadata.update({"language": language} if language else {})
        for number, frame in enumerate(frames):
            rgb = (255 * frame[0].permute(1, 2, 0)).round().byte().contiguous().numpy()
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            picture.pts, picture.time_base = times[number] if times else number, 1 / rate
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if voice:
            last = times[-1] + 1 if times else len(frames)
            seconds = np.arange(int(last / rate * 48_000)) / 48_000
            wave = np.sin(2 * np.pi * 440 * seconds).astype(np.float32)
            tone = av.AudioFrame.from_ndarray(
                np.stack([wave, wave]), format="fltp", layout="stereo"
            )
            tone.sample_rate, tone.pts = 48_000, 0
            container.mux(voice.encode(tone))
            container.mux(voice.encode())
    return path


def sound_of(path: Path) -> tuple[str, float]:
    """The codec of a video's sound, and how many seconds of it can be decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = list(container.decode(stream))
        return stream.codec_context.name, sum(p.samples for p in pieces) / pieces[0].sample_rate
