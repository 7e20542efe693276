"""Colours of a painting or a style, and of a photo (Gatys et al., arXiv 1606.05897)."""

import torch
from torch import Tensor

# Luma and colour differences of ITU-R BT.601, as in JPEG and in the usual colour-keeping tools.
_LUMA = (0.299, 0.587, 0.114)

# Turns of the colour axes along which histograms are matched, one after the other.
NUM_TURNS = 8
NUM_QUANTILES = 513
MAX_SAMPLES = 1 << 18  # that quantiles are taken from


def luma(image: Tensor) -> Tensor:
    """Brightness (B, 1, H, W) of an RGB image (B, 3, H, W), in its range."""
    weights = torch.tensor(_LUMA, device=image.device, dtype=image.dtype).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def keep_colors(painting: Tensor, photo: Tensor) -> Tensor:
    """The painting's brightness with the photo's colours.

    Args:
        painting: (B, 3, H, W) RGB around [0, 1], best not clamped yet.
        photo: (B, 3, H, W) RGB in [0, 1].

    Returns:
        (B, 3, H, W) RGB around [0, 1], not clamped.
    """
    return photo + (luma(painting) - luma(photo))


def match_luma(style: Tensor, photo: Tensor) -> Tensor:
    """The style's brightness, with the mean and the spread of the photo's brightness.

    Args:
        style: (1, 3, H, W) RGB in [0, 1].
        photo: (1, 3, h, w) RGB in [0, 1].

    Returns:
        (1, 1, H, W) in [0, 1].
    """
    values, wanted = luma(style), luma(photo)
    spread = wanted.std() / values.std().clamp(min=1 / 255)
    return ((values - values.mean()) * spread + wanted.mean()).clamp(0, 1)


def match_mean_and_covariance(style: Tensor, photo: Tensor) -> Tensor:
    """The style image with its colours moved by an affine map, so that mean and covariance are the
    photo's.

    The map is S_photo^(1/2) S_style^(-1/2) with symmetric roots, which the authors prefer to a
    Cholesky factor, because a symmetric map turns the colours least.

    Args:
        style: (1, 3, H, W) RGB in [0, 1].
        photo: (1, 3, h, w) RGB in [0, 1].

    Returns:
        (1, 3, H, W) RGB in [0, 1]; colours that the map puts outside are clamped.
    """
    colors, wanted = _pixels(style), _pixels(photo)
    moved = (colors - colors.mean(0)) @ _map(colors, wanted) + wanted.mean(0)
    return _image(moved, style)


def match_histogram(style: Tensor, photo: Tensor) -> Tensor:
    """The style image with the photo's distribution of colours, not only its mean and covariance.

    After the affine map, histograms are matched along the red, green and blue axes, again and again
    in turned axes, which brings the joint distribution nearer each time (Pitie et al., 2007).
    Equal colours stay equal, but near ones may be pulled apart: flat areas of a picture show more
    grain and patches than after the affine map.

    Args:
        style: (1, 3, H, W) RGB in [0, 1].
        photo: (1, 3, h, w) RGB in [0, 1].

    Returns:
        (1, 3, H, W) RGB in [0, 1].
    """
    colors, wanted = _pixels(match_mean_and_covariance(style, photo)), _pixels(photo)
    generator = torch.Generator().manual_seed(0)
    for number in range(NUM_TURNS):
        noise = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        axes = torch.eye(3) if number == 0 else torch.linalg.qr(noise).Q
        axes = axes.to(colors)
        turned, goal = colors @ axes, wanted @ axes
        matched = [_match_values(turned[:, i], goal[:, i]) for i in range(3)]
        colors = torch.stack(matched, dim=1) @ axes.mT
    return _image(colors, style)


def _map(colors: Tensor, wanted: Tensor) -> Tensor:
    """(3, 3): from colours (N, 3) to the covariance of the wanted ones (M, 3)."""
    return _power(colors.mT.cov(), -0.5) @ _power(wanted.mT.cov(), 0.5)


def _power(covariance: Tensor, exponent: float) -> Tensor:
    values, axes = torch.linalg.eigh(covariance)
    # A direction in which a style image hardly varies holds noise, which must not become colour.
    values = values.clamp(min=1e-3 * values.max().item() + 1 / 255**2)
    return axes @ torch.diag(values**exponent) @ axes.mT


def _match_values(values: Tensor, wanted: Tensor) -> Tensor:
    """Values (N,) moved monotonically to have the distribution of others (M,)."""
    levels, goals = _quantiles(values), _quantiles(wanted)
    right = torch.searchsorted(levels, values.contiguous()).clamp(1, NUM_QUANTILES - 1)
    below, above = levels[right - 1], levels[right]
    position = ((values - below) / (above - below).clamp(min=1e-9)).clamp(0, 1)
    return torch.lerp(goals[right - 1], goals[right], position)


def _quantiles(values: Tensor) -> Tensor:
    """(NUM_QUANTILES,) from the lowest to the highest of values (N,)."""
    step = -(-len(values) // MAX_SAMPLES)
    ordered = values[::step].sort().values
    places = torch.linspace(0, len(ordered) - 1, NUM_QUANTILES, dtype=torch.float64)
    return ordered[places.round().long().to(values.device)]


def _pixels(image: Tensor) -> Tensor:
    """(H*W, 3) in float64, for covariances of nearly equal colours; Apple's GPUs have none."""
    image = image.cpu() if image.device.type == "mps" else image
    return image[0].flatten(1).mT.double()


def _image(colors: Tensor, like: Tensor) -> Tensor:
    return colors.mT.reshape(like.shape).to(like).clamp(0, 1)
