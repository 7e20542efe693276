"""Larger or smaller strokes: the network sees the photo at another size than it is painted in."""

from numbers import Real
from typing import Literal

from torch import Tensor

from fast.bandwise import bandwise
from media import resize
from media.colors import luma

MIN_STROKE, MAX_STROKE = 0.1, 10.0  # times the usual size
AUTO = "auto"
USUAL_SIDE = 800  # px: up to this longer side networks paint strokes as large as they have learned

Stroke = float | Literal["auto"]


def check_stroke(stroke: Stroke) -> None:
    """ValueError unless strokes can be painted in this size."""
    is_number = isinstance(stroke, Real)  # NumPy's, too
    if stroke != AUTO and not (is_number and MIN_STROKE <= stroke <= MAX_STROKE):
        raise ValueError(
            f"--stroke {stroke}: must be {AUTO} or from {MIN_STROKE:g} to {MAX_STROKE:g}"
        )


def stroke_for(photo: Tensor, stroke: Stroke) -> float:
    """How many times as large as usual strokes are. AUTO is the photo's longer side divided by
    USUAL_SIDE, within 1 and MAX_STROKE: reduced to that side, photos of all sizes look alike.
    """
    if stroke != AUTO:
        return stroke
    return min(max(1.0, max(photo.shape[-2:]) / USUAL_SIDE), MAX_STROKE)


def seen_size(height: int, width: int, stroke: float) -> tuple[int, int]:
    """Height and width in px of what the network sees, for strokes that many times as large."""
    return max(1, round(height / stroke)), max(1, round(width / stroke))


def restore_detail(painting: Tensor, seen: Tensor, photo: Tensor) -> Tensor:
    """A painting of a smaller photo, brought to the size of the photo with the photo's detail.

    What was lost of the photo's brightness when it was made smaller is added to the enlarged
    painting, as the finest level of a Laplacian pyramid. A painting of a larger photo is only made
    smaller.

    Args:
        painting: (B, 3, h, w) RGB, float32 in [0, 1] or uint8.
        seen: (B, 3, h, w), the resized photo that was painted.
        photo: (B, 3, H, W).

    Returns:
        (B, 3, H, W), of the painting's kind.
    """
    size = photo.shape[-2:]
    resized = resize(painting, size)
    if painting.shape[-2] >= size[0] and painting.shape[-1] >= size[1]:
        return resized
    return bandwise(
        lambda p, x, blurred: p + luma(x) - luma(blurred), resized, photo, resize(seen, size)
    )
