"""Patterns that repeat with a network's own grid (Odena et al., Deconvolution and Checkerboard
Artifacts, 2016): a weave over dark areas, dots in a sky.

Nearest up-sampling does not bring them about by itself, as transposed convolutions do, but a
network may well learn them: the style loss likes strokes wherever they are.
"""

import torch
from torch import Tensor

REPEATS = 8  # of the grid in a window, along each side: strokes change their direction beyond


def checkerboard_loss(painting: Tensor, period: int) -> Tensor:
    """How different the places in the grid's cells are, more than by chance.

    In each window the mean at each place of a cell is taken over the cells. The variance of these
    means, less that which strokes without a grid would have, is averaged over windows and channels.

    Args:
        painting: (B, 3, H, W) RGB in [0, 1].
        period: of the grid in px, TransformerNet.stride.

    Returns:
        float32 scalar; 0 for images of less than two cells a side.
    """
    repeats = min(REPEATS, *(side // period for side in painting.shape[-2:]))
    if repeats < 2:
        return painting.new_zeros(())
    height, width = (side - side % (repeats * period) for side in painting.shape[-2:])
    windows = painting[..., :height, :width]
    # (B, 3, window, cell, place, window, cell, place)
    cells = windows.unflatten(3, (-1, repeats, period)).unflatten(2, (-1, repeats, period))
    detail = cells - cells.mean((4, 7), keepdim=True)
    places = detail.mean((3, 6))  # (B, 3, window, place, window, place)
    within_places = detail.square().mean((3, 4, 6, 7)) - places.square().mean((3, 5))
    by_chance = within_places / (repeats**2 - 1)
    between_places = _level(_level(places, 3), 5).square().mean((3, 5))
    # A window below it is not to make up for another one.
    return (between_places - by_chance).clamp(min=0).mean()


def _level(places: Tensor, dim: int) -> Tensor:
    """Without the slope along a dimension, 3 or 5: even shading has the same in each cell."""
    period = places.shape[dim]
    ramp = torch.arange(period, device=places.device) - (period - 1) / 2
    ramp = (ramp / ramp.norm()).view(-1, *[1] * (5 - dim))
    slope = (places * ramp).sum(dim, keepdim=True).mean(8 - dim, keepdim=True)
    return places - slope * ramp
