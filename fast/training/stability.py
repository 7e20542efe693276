"""How much a painting changes when its photo hardly does: flicker, once the photos are a video."""

from collections.abc import Callable

import torch
from torch import Tensor

NOISE = 2 / 255  # deviation: that of a small sensor in good light


def change_when_moved(
    net: Callable[[Tensor], Tensor],
    image: Tensor,
    painting: Tensor,
    shift: tuple[int, int],
    noise: Tensor,
) -> Tensor:
    """Difference between the moved painting and the painting of the moved photo, with noise.

    Only stills are needed, neither video nor optical flow. The photo moves by losing rows and
    columns at its top and left, so that every pixel has another place in the network's grid.

    Args:
        net: paints an image, in the same size.
        image: (B, 3, H, W) RGB in [0, 1].
        painting: net(image).
        shift: rows and columns in px.
        noise: (B, 3, H, W) standard normal.

    Returns:
        (B, 3, H - rows, W - columns).
    """
    rows, columns = shift
    noisy = (image + NOISE * noise).clamp(0, 1)
    return net(noisy[..., rows:, columns:]) - painting[..., rows:, columns:]


def instability_loss(
    net: Callable[[Tensor], Tensor], image: Tensor, painting: Tensor, *, seed: int, reach: int = 8
) -> Tensor:
    """Mean square of the change for one random shift of the batch; gradients reach both paintings.

    Args:
        net, image, painting: as for change_when_moved.
        seed: of shift and noise.
        reach: largest shift in px.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.randint(0, reach + 1, (2,), generator=generator).tolist()
    noise = torch.randn(image.shape, generator=generator).to(image.device)
    return change_when_moved(net, image, painting, (rows, columns), noise).square().mean()
