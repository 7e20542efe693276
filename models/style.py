"""What "style" means: statistics of a layer's features over positions, and their distance."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Statistics = tuple[Tensor, ...]


@dataclass(frozen=True)
class StyleLoss:
    """A way to compare the styles of two feature maps.

    Args:
        statistics: features (B, C, H, W) to tensors (B, ...) in float32, each a mean over
            positions: those of a whole image are the means of its parts', by their areas, and
            those of a blend of styles are the means of theirs. With guides (R, 1, H, W), which are
            weights of the positions of one image, to tensors (R, ...).
        error_from: statistics of the style image (without B) to a function that takes an image's
            statistics and returns the mean error of the batch, 0 for the style itself; in such
            units that a style weight is about as strong for each. What depends on the style
            alone is computed once.
    """

    statistics: Callable[[Tensor, Tensor | None], Statistics]
    error_from: Callable[[Statistics], Callable[[Statistics], Tensor]]


def gram_matrix(features: Tensor) -> Tensor:
    """Channel correlations of a feature map, divided by its number of elements.

    Gatys et al. (arXiv 1508.06576) sum over positions; dividing by C*H*W, as Johnson et al.
    (arXiv 1603.08155) do, makes the value independent of the image's size.

    Args:
        features: (B, C, H, W), any floating dtype.

    Returns:
        (B, C, C) float32, symmetric.
    """
    _, channels, height, width = features.shape
    # (B, H*W, C), no copy if channels-last
    flat = features.permute(0, 2, 3, 1).flatten(1, 2)
    if flat.device.type in ("cpu", "cuda") and flat.dtype == torch.bfloat16:
        product = _Bfloat16Product.apply(flat)
    else:
        flat = flat.float()
        # The gradient flows through the right-hand factor only. Adding the transpose, whose value
        # cancels, supplies the other factor's share: the backward pass needs one large product
        # less.
        product = flat.detach().mT @ flat
        product = product + (product.mT - product.detach())
    return product / (channels * height * width)


class _Bfloat16Product(torch.autograd.Function):
    """Sums over positions (B, N, C) of the products of two features, (B, C, C) float32, of bfloat16
    features without float32 copies of them.

    GPUs sum up in float32 and return it, but the product of few channels keeps few of their
    multiprocessors busy, unless each gets a part of the positions. Processors that are fast in
    bfloat16 sum up in float32, too, but return bfloat16. A second product, from which the first one
    is taken away before it is rounded, gives what the rounding took. Image by image, for the
    product of a batch copies its transposed factor.
    """

    @staticmethod
    def forward(ctx, flat: Tensor) -> Tensor:
        ctx.save_for_backward(flat)
        if flat.is_cuda:
            parts = _num_parts(flat.shape[1])
            flat = flat.unflatten(1, (parts, -1)).flatten(0, 1)
            products = torch.bmm(flat.mT, flat, out_dtype=torch.float32)
            return products.unflatten(0, (-1, parts)).sum(1)
        products = []
        for image in flat:
            product = image.T @ image
            products.append(product.float() + torch.addmm(product, image.T, image, beta=-1))
        return torch.stack(products)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (flat,) = ctx.saved_tensors
        return flat @ (grad + grad.mT).to(flat.dtype)


def _num_parts(positions: int) -> int:
    """How many equal parts of some 4096 positions there are, or more positions if need be."""
    return next(
        parts for parts in range(max(1, positions // 4096), 0, -1) if positions % parts == 0
    )


def guided_gram_matrix(features: Tensor, guides: Tensor) -> Tensor:
    """Channel correlations with a weight for each position, once for each guide.

    Args:
        features: (1, C, H, W), any floating dtype.
        guides: (R, 1, H, W) float32, weights; ones give the plain Gram matrix.

    Returns:
        (R, C, C) float32, symmetric, divided by C*H*W.
    """
    flat = features[0].permute(1, 2, 0).flatten(0, 1)  # (H*W, C)
    products = [_GuidedProduct.apply(flat, guide) for guide in guides.flatten(1)]
    return torch.stack(products) / flat.numel()


class _GuidedProduct(torch.autograd.Function):
    """Sum over positions of weight * feature * feature^T; keeps no weighted copy of the features,
    and takes no time where all weights are 0.
    """

    @staticmethod
    def forward(ctx, flat: Tensor, guide: Tensor) -> Tensor:
        if not guide.any():
            return flat.new_zeros(2 * flat.shape[1:], dtype=torch.float32)
        ctx.save_for_backward(flat, guide)
        values = flat.float()
        return (values * guide.unsqueeze(1)).mT @ values

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.saved_tensors:
            return None, None
        flat, guide = ctx.saved_tensors
        grad = (flat.float() @ (grad + grad.mT)).mul_(guide.unsqueeze(1))
        return grad.to(flat.dtype), None


def _gram(features: Tensor, guides: Tensor | None = None) -> Statistics:
    return (gram_matrix(features) if guides is None else guided_gram_matrix(features, guides),)


def _moments(features: Tensor, guides: Tensor | None = None) -> Statistics:
    """Means of the channels (B, C), and the Gram matrix (B, C, C)."""
    means = (
        features.mean((2, 3), dtype=torch.float32)
        if guides is None
        else (guides * features).mean((2, 3), dtype=torch.float32)
    )
    return means, *_gram(features, guides)


def _gram_error(target: Statistics) -> Callable[[Statistics], Tensor]:
    """Mean squared distance of Gram matrices, relative to the target's square (Gatys et al.)."""
    error = _relative_error_from(*target)
    return lambda statistics: error(statistics[0])


def _gram_mean_std_error(target: Statistics) -> Callable[[Statistics], Tensor]:
    """The Gram matrix's error, and those of the channels' means and standard deviations.

    Alone, a Gram matrix does not fix them: brightness and contrast may drift, most of all in large
    images (Galerne et al., arXiv 2212.13459).
    """
    mean, gram = target
    parts = [_relative_error_from(part) for part in (gram, mean, _std(mean, gram))]

    def error(statistics: Statistics) -> Tensor:
        means, grams = statistics
        values = grams, means, _std(means, grams)
        return sum(part(value) for part, value in zip(parts, values, strict=True))

    return error


def _wasserstein_error(target: Statistics) -> Callable[[Statistics], Tensor]:
    """Half the squared Wasserstein-2 distance of the two Gaussians with the same means and
    covariances, relative to the target's mean square.

    It is |m - m*|^2 + tr(S) + tr(S*) - 2 tr((R S R)^(1/2)) with R the root of S*. The last term's
    gradient with respect to S is R (R S R)^(-1/2) R / 2, so that one eigendecomposition gives both
    the value and the gradient, and none has to be differentiated.
    """
    mean, gram = target
    channels = len(mean)
    covariance = _covariance(mean, gram)
    root = _root(covariance)
    energy = channels * gram.trace()

    def error(statistics: Statistics) -> Tensor:
        means, grams = statistics
        covariances = _covariance(means, grams)
        with torch.no_grad():
            values, vectors = _eigen(root @ covariances @ root)
            divisors = values.clamp(min=1e-6 * values.amax(-1, keepdim=True).clamp(min=1e-12))
            scaled = root @ vectors * divisors.unsqueeze(-2) ** -0.25
            gradient = scaled @ scaled.mT / 2
            trace = (values * divisors**-0.5).sum(-1)
        change = (gradient * (covariances - covariances.detach())).sum((-1, -2))  # 0, with gradient
        distance = (means - mean).square().sum(-1) + covariances.diagonal(0, -2, -1).sum(-1)
        distance = distance + covariance.trace() - 2 * (trace + change)
        return distance.mean() / (2 * energy)

    return error


# On a CPU a step at 512 px takes 1 % longer with means and deviations, and 5 % with the Wasserstein
# distance, whose decompositions take as long at any size: at 128 px it takes 38 % longer.
STYLE_LOSSES = {
    "gram": StyleLoss(_gram, _gram_error),
    "gram+mean+std": StyleLoss(_moments, _gram_mean_std_error),
    "wasserstein": StyleLoss(_moments, _wasserstein_error),
}


def _relative_error_from(target: Tensor) -> Callable[[Tensor], Tensor]:
    """Mean squared distance from the target, in units of its mean square."""
    energy = target.square().mean()
    return lambda values: (values - target).square().mean() / energy


def _covariance(mean: Tensor, gram: Tensor) -> Tensor:
    return mean.shape[-1] * gram - mean.unsqueeze(-1) * mean.unsqueeze(-2)


def _std(mean: Tensor, gram: Tensor) -> Tensor:
    variance = mean.shape[-1] * gram.diagonal(0, -2, -1) - mean.square()
    return (variance.clamp(min=0) + 1e-6 * gram.diagonal(0, -2, -1).mean()).sqrt()


def _root(matrix: Tensor) -> Tensor:
    """The symmetric root of a positive semidefinite matrix."""
    values, vectors = _eigen(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def _eigen(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., C) and eigenvectors (..., C, C) of positive semidefinite matrices.

    A small image has fewer positions than channels, and with so many eigenvalues of 0 LAPACK's
    float32 routine often fails to converge in a single thread, but not from a little above it on.
    """
    shift = 1e-6 * matrices.diagonal(0, -2, -1).mean(-1, keepdim=True)
    identity = torch.eye(matrices.shape[-1], device=matrices.device)
    matrices = matrices + shift.unsqueeze(-1) * identity
    if matrices.device.type == "mps":  # where only the newest PyTorch can do it
        values, vectors = (t.to(matrices.device) for t in torch.linalg.eigh(matrices.cpu()))
    else:
        values, vectors = torch.linalg.eigh(matrices)
    return values - shift, vectors
