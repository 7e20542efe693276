"""Videos to frames, by PyAV, FFmpeg's libraries for Python."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from media.images import scaled_size

VIDEO_HINT = 'pip install -e ".[video]"'
USUAL_RATE = Fraction(25)  # frames a second, where a file does not say
BT709, _UNKNOWN = 1, 2  # FFmpeg's numbers of colour spaces
_HDR = (16, 18)  # transfer functions of HDR10 and HLG
_HD = 720  # px: higher frames of unknown colour space are taken for BT.709, as players do


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Args:
        pixels: (1, 3, H, W) uint8 RGB, upright; H and W are even.
        time: in ticks.
        tick: seconds.
        pixel_aspect: width of a pixel, divided by its height.
    """

    pixels: Tensor
    time: int
    tick: Fraction
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class Outline:
    """What a video's file says of it.

    Args:
        num_frames: about how many; None if it is not known.
        rate: frames a second, in the mean.
    """

    num_frames: int | None
    rate: Fraction


@cache
def pyav() -> ModuleType:
    """The package av; ValueError if it is missing."""
    try:
        import av
    except ImportError as error:
        raise ValueError(f"videos need PyAV: {VIDEO_HINT}") from error
    return av


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Errors of FFmpeg name the file."""
    try:
        yield
    except pyav().FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise ValueError(f"{path}: {error.strerror or error}") from error


def open_container(path: Path, mode: str = "r", **options: Any) -> Any:
    """A file for reading ("r") or writing ("w"), to be closed."""
    # The whole path, because FFmpeg takes what is before a colon for a protocol.
    return pyav().open(os.path.abspath(path), mode, metadata_errors="replace", **options)


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open file and its video stream, the best if there are several.

    Raises:
        OSError: the file cannot be read.
        ValueError: there is no video in it.
    """
    with errors_naming(path), open_container(path) as container:
        stream = container.streams.best("video")
        if stream is None or stream.disposition & pyav().stream.Disposition.attached_pic:
            raise ValueError(f"{path}: there is no video in this file")
        if stream.codec_context is None:
            raise ValueError(f"{path}: there is no decoder for this video")
        yield container, stream


def read_outline(path: Path) -> Outline:
    """What a video's file says of it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no video, or PyAV is missing.
    """
    with open_video(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        num_frames = stream.frames
        if not num_frames and container.duration:
            num_frames = round(container.duration / pyav().time_base * rate)
        return Outline(num_frames or None, rate)


def read_frames(path: Path, *, long_side: int | None = None) -> Iterator[Frame]:
    """The frames of a video, one after the other, upright.

    What is damaged is left out, with a warning at the end. An odd last row or column is left out,
    too: no common codec takes it. Colours are read by the file's own matrix and range, without tone
    mapping.

    Args:
        path: video file, in any format that FFmpeg knows.
        long_side: of the frames in px; their own by default.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no video, or no frame of it can be read, or PyAV is missing.
    """
    num_damaged, last = 0, None
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        size = scaled_size((stream.codec_context.width, stream.codec_context.height), long_side)
        tick, aspect = stream.time_base, stream.sample_aspect_ratio or Fraction(1)
        step = round(1 / (stream.average_rate or USUAL_RATE) / tick)  # where no times are given
        for packet in container.demux(stream):
            try:
                pictures = packet.decode()
            except pyav().error.InvalidDataError:
                num_damaged += 1
                continue
            for picture in pictures:
                if last is None and picture.color_trc in _HDR:
                    warnings.warn(f"{path} is in HDR; its colours will look pale", stacklevel=2)
                time = picture.pts
                if time is None or (last is not None and time <= last):
                    time = 0 if last is None else last + max(1, step)
                last = time
                turned = picture.rotation % 180 == 90
                yield Frame(_pixels(picture, size), time, tick, 1 / aspect if turned else aspect)
    if last is None:
        raise ValueError(f"{path}: no frame of this video can be read")
    if num_damaged:
        warnings.warn(f"{path}: {num_damaged} damaged pieces were left out", stacklevel=2)


def _pixels(picture: Any, size: tuple[int, int]) -> Tensor:
    """A decoded frame as (1, 3, H, W) uint8 RGB, of this width and height before it is turned."""
    unknown_hd = picture.colorspace == _UNKNOWN and picture.height >= _HD
    rgb = picture.reformat(
        *size,
        format="rgb24",
        src_colorspace=BT709 if unknown_hd else None,
        interpolation="LANCZOS",
    ).to_ndarray()
    rgb = np.rot90(rgb, round(picture.rotation / 90))
    rgb = rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2]
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]
