"""Computing on an image band by band, so that little of it is float32 at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from media import as_bytes, as_float

BAND_PIXELS = 1 << 19


def bandwise(function: Callable[..., Tensor], *images: Tensor, halo: int = 0) -> Tensor:
    """Apply a function to bands of rows; it may look `halo` px up and down.

    Args:
        function: takes float32 bands in [0, 1], returns one of RGB, which is clamped.
        images: (B, C, H, W), float32 in [0, 1] or uint8; H and W are the same for all.
        halo: rows above and below that a row of the result depends on.

    Returns:
        (B, 3, H, W) like the first image: uint8 or float32, on its device.
    """
    first = images[0]
    height, width = first.shape[-2:]
    rows = max(1, BAND_PIXELS // width)
    result = torch.empty_like(first)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start, stop = max(0, top - halo), min(bottom + halo, height)
        band = function(*(as_float(image[..., start:stop, :]) for image in images))
        band = band[..., top - start : bottom - start, :].clamp(0, 1)
        result[..., top:bottom, :] = as_bytes(band) if first.dtype == torch.uint8 else band
    return result
