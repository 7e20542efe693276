"""Regions from mask files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from media import Picture, as_float, read_mask
from media.segments import is_colored, read_segments
from slow.regions import Region

CONTENT_FLAG, STYLE_FLAG = "--content-mask", "--style-mask"


def read_regions(
    content_masks: Sequence[Path],
    style_masks: Sequence[Path],
    content: Picture,
    styles: Sequence[Picture],
    style_blend: Sequence[float] = (),
) -> list[Region]:
    """Where which style goes, and what is taken from it.

    White is inside and black outside. One content mask is for all styles together; several are one
    for each style, or all for the only one. Style masks are one for each style, or with one style
    one for each content mask. A content mask in colours has a region for each of its colours but
    black; style masks, one for each style, then say by the same colours what is taken for which
    region, and without them each colour has its style, from the top left on.

    Args:
        content_masks: mask files for the content image, of its file's size; none for all of it.
        style_masks: mask files for the style images, of their sizes; none for all of them.
        content: as it is to be painted.
        styles: as they are used.
        style_blend: a weight for each style, where they go together; empty for equal ones.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a mask is no image, of another size than its picture, or black all over, or
            their number does not fit.
    """
    blend = tuple(style_blend) or (1.0,) * len(styles)
    if any(_flagged(CONTENT_FLAG, is_colored, path) for path in content_masks):
        if len(content_masks) > 1:
            raise ValueError(f"{CONTENT_FLAG}: one in colours is for all regions; give no other")
        masks = _flagged(CONTENT_FLAG, read_segments, content_masks[0], content)
        if style_masks:
            return _by_color(masks, style_masks, styles, blend)
        where = [as_float(mask) for mask in masks.values()]
    else:
        where = [_read(CONTENT_FLAG, path, content) for path in content_masks]
        where = where or [torch.ones(1, 1, 1, 1)]

    num_regions, num_styles = len(where), len(styles)
    if num_regions > 1 and num_styles > 1:
        if num_regions != num_styles:
            raise ValueError(
                f"{CONTENT_FLAG}: {num_regions} regions go with one style or {num_regions}, "
                f"not with {num_styles}"
            )
        if style_blend:
            raise ValueError(
                f"--style-blend: with a {CONTENT_FLAG} for each style none are blended"
            )
    num_pairs = max(num_regions, num_styles)
    if style_masks and len(style_masks) != num_pairs:
        raise ValueError(f"{STYLE_FLAG}: {num_pairs} are needed or none, not {len(style_masks)}")
    parts = [
        _read(STYLE_FLAG, path, styles[min(number, num_styles - 1)])
        for number, path in enumerate(style_masks)
    ] or [None] * num_pairs
    if num_regions == 1:
        return [Region(where[0], blend, tuple(parts))]
    if num_styles == 1:
        return [Region(mask, (1.0,), (part,)) for mask, part in zip(where, parts, strict=True)]
    return [
        Region(mask, tuple(float(k == number) for k in range(num_styles)), tuple(parts))
        for number, mask in enumerate(where)
    ]


def _by_color(
    masks: dict[str, Tensor],
    style_masks: Sequence[Path],
    styles: Sequence[Picture],
    blend: Sequence[float],
) -> list[Region]:
    """A region for each colour, with the parts of the styles that have the same one."""
    if len(style_masks) != len(styles):
        raise ValueError(f"{STYLE_FLAG}: one in colours is needed for each of {len(styles)} styles")
    parts = [
        _flagged(STYLE_FLAG, read_segments, path, style, colors=masks)
        for path, style in zip(style_masks, styles, strict=True)
    ]
    regions = []
    for color, mask in masks.items():
        # A style without this colour has no part in the region.
        weights = [b if part[color].any() else 0.0 for b, part in zip(blend, parts, strict=True)]
        if not any(weights):
            raise ValueError(
                f"{STYLE_FLAG}: {color} is in the {CONTENT_FLAG}, but in none of these"
            )
        taken = [as_float(part[color]) if part[color].any() else None for part in parts]
        regions.append(Region(as_float(mask), tuple(weights), tuple(taken)))
    return regions


def _read(flag: str, path: Path, picture: Picture) -> Tensor:
    mask = _flagged(flag, read_mask, path, picture)
    if not mask.any():
        raise ValueError(f"{flag} {path} is black all over")
    return as_float(mask)


def _flagged(flag: str, read: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call, and put the flag before the message of a ValueError."""
    try:
        return read(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{flag} {error}") from error
