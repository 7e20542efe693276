"""Pictures of what the loss network sees: feature maps and Gram matrices."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

GAP = 4  # px between tiles
# Dark blue, purple, red, orange, pale yellow: brightness grows evenly.
COLOR_STOPS = (
    (0.0, 0.0, 0.1),
    (0.35, 0.05, 0.45),
    (0.75, 0.2, 0.3),
    (0.97, 0.6, 0.15),
    (1.0, 1.0, 0.8),
)


def in_false_colors(values: Tensor) -> Tensor:
    """Values (H, W) in [0, 1] as colours (1, 3, H, W), from dark blue by red to pale yellow."""
    stops = torch.tensor(COLOR_STOPS, device=values.device)
    position = values.clamp(0, 1) * (len(stops) - 1)
    lower = position.long().clamp(max=len(stops) - 2)
    share = (position - lower).unsqueeze(-1)
    return torch.lerp(stops[lower], stops[lower + 1], share).permute(2, 0, 1)[None]


def feature_picture(features: Tensor, *, num_maps: int = 48, tile: int = 112) -> Tensor:
    """The feature maps that vary most, the strongest first.

    Args:
        features: (1, C, h, w), not negative; each map is shown relative to its own maximum.
        num_maps: how many, at most.
        tile: longer side of a map in px.

    Returns:
        (1, 3, H, W) RGB in [0, 1]: a grid.
    """
    maps = features[0].float()
    order = maps.flatten(1).std(1).argsort(descending=True, stable=True)[:num_maps]
    maps = maps[order] / maps[order].amax((1, 2), keepdim=True).clamp(min=1e-12)
    height, width = maps.shape[1:]
    size = [max(1, round(side * tile / max(height, width))) for side in (height, width)]
    larger = max(height, width) < tile
    maps = F.interpolate(maps[None], size, mode="nearest" if larger else "area")[0]
    return _grid([in_false_colors(single) for single in maps], columns=8)


def gram_picture(grams: Sequence[Tensor], *, num_channels: int = 96, tile: int = 384) -> Tensor:
    """Gram matrices side by side, on one logarithmic scale of three powers of ten.

    Args:
        grams: (C, C) each; the last decides which channels are shown, the strongest ones first.
        num_channels: how many, at most.
        tile: side of a matrix in px, about.

    Returns:
        (1, 3, H, W) RGB in [0, 1].
    """
    order = grams[-1].diagonal().argsort(descending=True, stable=True)[:num_channels]
    strongest = grams[-1].max().clamp(min=1e-30)
    tiles = []
    for gram in grams:
        shown = (gram[order][:, order] / strongest).clamp(min=1e-3)
        cell = max(1, tile // len(order))
        tiles.append(in_false_colors(1 + shown.log10() / 3).repeat_interleave(cell, 2))
        tiles[-1] = tiles[-1].repeat_interleave(cell, 3)
    return _grid(tiles, columns=len(tiles))


def _grid(tiles: Sequence[Tensor], *, columns: int) -> Tensor:
    """Pictures (1, 3, h, w) of one size in rows, on white."""
    return make_grid(torch.cat(list(tiles)), nrow=columns, padding=GAP, pad_value=1)[None]
