"""Images one after the other, as a GIF."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from media.files import replacing
from media.pil import to_pil

LAST_MILLISECONDS = 2000  # that the last frame stays


def write_animation(path: Path, frames: Sequence[Tensor], *, frames_per_second: float) -> None:
    """Write a GIF that repeats for ever and stays on the last frame for two seconds.

    Args:
        path: of the GIF.
        frames: (1, 3, H, W) RGB in [0, 1], all of one size.
        frames_per_second: 50 at most.

    Raises:
        OSError: the file cannot be written.
    """
    images = [to_pil(frame) for frame in frames]
    # The last frame has the most colours; one palette for all keeps them from flickering.
    palette = images[-1].quantize(256)
    images = [image.quantize(palette=palette) for image in images]
    duration = round(1000 / frames_per_second)
    durations = [duration] * (len(images) - 1) + [LAST_MILLISECONDS]
    with replacing(path) as file:
        images[0].save(
            file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0
        )
