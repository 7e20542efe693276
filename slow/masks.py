"""Regions from mask files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from media import Picture, as_float, read_mask, to_pil
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

    Masks are white inside and black outside. What they mean goes by their number:

        content masks   styles      regions
        none or one     any         one, with all styles blended; a style mask for each style
        several         one         one for each mask, all in this style; a style mask for each
        several         as many     one for each style; a style mask for each; no --style-blend
        one in colours  any         one for each colour but black; style masks in these colours

    Style masks may always be left out; the regions in colours are then several masks, in the order
    of their colours from the top left. With or without a mask, what is transparent in a style
    picture does not count.

    Args:
        content_masks: mask files for the content image, of its proportions; none for all of it.
        style_masks: mask files for the style images, of their proportions; none for all of them.
        content: as it is to be painted.
        styles: as they are used.
        style_blend: a weight for each style, where they are blended; empty for equal ones.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a mask is no image, of other proportions than its picture, or black all over, or
            their number does not fit; or it shows only what is transparent.
    """
    if any(_flagged(CONTENT_FLAG, is_colored, path) for path in content_masks):
        if len(content_masks) > 1:
            raise ValueError(f"{CONTENT_FLAG}: one in colours is for all regions; give no other")
        segments = _flagged(CONTENT_FLAG, read_segments, content_masks[0], content)
        if style_masks:
            return _regions_by_color(segments, style_masks, styles, style_blend)
        masks = [as_float(mask) for mask in segments.values()]
    else:
        masks = [_read_mask(CONTENT_FLAG, path, content) for path in content_masks]
    if len(masks) <= 1:
        mask = masks[0] if masks else torch.ones(1, 1, 1, 1)
        return [_blended_region(mask, style_masks, styles, style_blend)]
    if len(styles) == 1:
        return _regions_of_one_style(masks, style_masks, styles[0])
    return _regions_of_one_style_each(masks, style_masks, styles, style_blend)


def _blended_region(
    mask: Tensor,
    style_masks: Sequence[Path],
    styles: Sequence[Picture],
    style_blend: Sequence[float],
) -> Region:
    """One region, in all styles together."""
    parts = _read_style_masks(style_masks, styles)
    return Region(mask, tuple(style_blend) or (1.0,) * len(styles), parts)


def _regions_of_one_style(
    masks: Sequence[Tensor], style_masks: Sequence[Path], style: Picture
) -> list[Region]:
    """Several regions, each with a part of the same style."""
    parts = _read_style_masks(style_masks, [style] * len(masks))
    return [Region(mask, (1.0,), (part,)) for mask, part in zip(masks, parts, strict=True)]


def _regions_of_one_style_each(
    masks: Sequence[Tensor],
    style_masks: Sequence[Path],
    styles: Sequence[Picture],
    style_blend: Sequence[float],
) -> list[Region]:
    """As many regions as styles, in the same order."""
    if len(masks) != len(styles):
        raise ValueError(
            f"{CONTENT_FLAG}: {len(masks)} regions go with one style or {len(masks)}, "
            f"not with {len(styles)}"
        )
    if style_blend:
        raise ValueError(f"--style-blend: with a {CONTENT_FLAG} for each style none are blended")
    parts = _read_style_masks(style_masks, styles)
    return [
        Region(mask, tuple(float(k == number) for k in range(len(styles))), parts)
        for number, mask in enumerate(masks)
    ]


def _regions_by_color(
    masks: dict[str, Tensor],
    style_masks: Sequence[Path],
    styles: Sequence[Picture],
    style_blend: Sequence[float],
) -> list[Region]:
    """A region for each colour, with the parts of the styles that have the same colour."""
    if len(style_masks) != len(styles):
        raise ValueError(f"{STYLE_FLAG}: one in colours is needed for each of {len(styles)} styles")
    parts = []
    for path, style in zip(style_masks, styles, strict=True):
        segments = _flagged(STYLE_FLAG, read_segments, path, style, colors=masks)
        parts.append({c: _hide_transparent(as_float(part), style) for c, part in segments.items()})
    blend = style_blend or (1.0,) * len(styles)
    regions = []
    for color, mask in masks.items():
        # A style without this colour has no part in the region.
        weights = [b if part[color].any() else 0.0 for b, part in zip(blend, parts, strict=True)]
        if not any(weights):
            raise ValueError(
                f"{STYLE_FLAG}: {color} is in the {CONTENT_FLAG}, but in none of these"
            )
        taken = [part[color] if part[color].any() else None for part in parts]
        regions.append(Region(as_float(mask), tuple(weights), tuple(taken)))
    return regions


def _read_style_masks(
    paths: Sequence[Path], styles: Sequence[Picture]
) -> tuple[Tensor | None, ...]:
    """A mask for each style picture, or None where all of the picture counts."""
    if not paths:
        return tuple(opacity_mask(style) for style in styles)
    if len(paths) != len(styles):
        raise ValueError(f"{STYLE_FLAG}: {len(styles)} are needed or none, not {len(paths)}")
    return tuple(_read_style_mask(path, style) for path, style in zip(paths, styles, strict=True))


def _read_style_mask(path: Path, style: Picture) -> Tensor:
    mask = _hide_transparent(_read_mask(STYLE_FLAG, path, style), style)
    if not mask.any():
        raise ValueError(f"{STYLE_FLAG} {path} shows only what is transparent in the picture")
    return mask


def _hide_transparent(mask: Tensor, style: Picture) -> Tensor:
    """A style mask without what is transparent; 0 if nothing else is left but soft borders."""
    opacity = opacity_mask(style)
    if opacity is None:
        return mask
    visible = mask * opacity
    is_empty = 2 * visible.max() <= mask.max() * opacity.max()
    return torch.zeros_like(mask) if is_empty else visible


def opacity_mask(style: Picture) -> Tensor | None:
    """The opacity of a style picture as its mask (1, 1, H, W) in [0, 1]; None if it is opaque."""
    if style.is_opaque:
        return None
    # Read like the file of a mask that has the size of these pixels.
    unscaled = Picture(style.pixels, style.alpha)
    return as_float(read_mask(to_pil(style.pixels, like=style), unscaled))


def _read_mask(flag: str, path: Path, picture: Picture) -> Tensor:
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
