"""Patterns that repeat with a network's own grid, such as a weave over dark areas (Odena et al.,
Deconvolution and Checkerboard Artifacts, 2016, doi 10.23915/distill.00003).

Nearest up-sampling does not bring them about by itself, as transposed convolutions do, but a
network may learn to paint them: the style loss likes fine strokes wherever they are.
"""

import torch.nn.functional as F
from torch import Tensor

CELLS = 4  # of the grid along each side of a tile


def checkerboard_loss(painting: Tensor, period: int) -> Tensor:
    """Variance of a pattern that repeats with a grid.

    In each tile the mean at each place of a grid cell is taken over the cells. Patterns of the grid
    are alike in tiles that touch at a corner; strokes and outlines, also those along the axes, on
    average are not, and so the product of two such means leaves the pattern's square. Of rows and
    columns that do not fill a tile nothing is seen.

    Args:
        painting: (B, 3, H, W) RGB in [0, 1].
        period: of the grid in px, TransformerNet.period.

    Returns:
        float32 scalar; 0 for images of less than two cells a side.
    """
    cells = min(CELLS, *(side // (2 * period) for side in painting.shape[-2:]))
    if not cells:
        return painting.new_zeros(())
    tile = cells * period
    height, width = (side - side % tile for side in painting.shape[-2:])
    painting = painting[..., :height, :width]
    shading = F.interpolate(F.avg_pool2d(painting, period), scale_factor=period, mode="bilinear")
    split = cells, period
    detail = (painting - shading).unflatten(3, (-1, *split)).unflatten(2, (-1, *split))
    # (B, 3, tile, cell, place, tile, cell, place) -> (B, 3, tile, place, tile, place)
    means = detail.mean((3, 6))
    upper, lower = means[:, :, :-1], means[:, :, 1:]
    falling = upper[..., :-1, :] * lower[..., 1:, :]
    rising = upper[..., 1:, :] * lower[..., :-1, :]
    # An image or a channel below 0, by chance, is not to make up for another one.
    return (falling + rising).mean((2, 3, 4, 5)).div(2).clamp(min=0).mean()
