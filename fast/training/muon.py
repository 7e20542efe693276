"""Muon, an optimiser for the weights of convolutions (Jordan et al., 2024; Liu et al.,
arXiv 2502.16982)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

# Coefficients of Jordan's quintic: so many rounds bring singular values from 0.01...1 to about 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Steps in orthogonalised directions: all singular values of a step are about equal.

    Adam's steps are dominated by a few directions that all images agree on; equal singular values
    move the rare ones as far, and in a short trial the transformer network needed fewer images for
    the same loss. Departures from the source: a kernel (out, in, h, w) counts as a matrix
    (out, h * w * in); and because a normalisation follows each of these convolutions, so that their
    scale has no effect, a step is a fraction of the weight's norm, and the norm stays as it was.

    Args:
        weights: tensors of two or more dimensions, none of them zero, each followed by a
            normalisation.
        lr: length of a step as a fraction of the weight's norm.
        momentum: share of the past in the direction.
    """

    def __init__(
        self, weights: Iterable[Tensor], *, lr: float = 0.03, momentum: float = 0.9
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update the weights by their gradients; a closure is not supported."""
        for group in self.param_groups:
            for weights in group_by_shape(group["params"]):
                self._update(weights, group["lr"], group["momentum"])

    def _update(self, weights: list[Tensor], lr: Tensor | float, momentum: float) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] |= {"momentum": torch.zeros_like(weight), "norm": weight.norm()}
        momenta, norms = (
            [self.state[weight][name] for weight in weights] for name in ("momentum", "norm")
        )
        gradients = [weight.grad for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, momenta, momentum)  # Nesterov
        updates = orthogonalise(as_matrices(directions))
        norms = torch.stack(norms).view(-1, 1, 1)
        # A zero gradient gives no step.
        moved = as_matrices(weights) - updates * (lr * norms / lengths(updates).clamp(min=1e-12))
        torch._foreach_copy_(weights, from_matrices(moved * (norms / lengths(moved)), weights))


def group_by_shape(weights: list[Tensor]) -> list[list[Tensor]]:
    """Groups to update at once. On a GPU that is all of them: to start a product takes longer there
    than to compute it. Elsewhere those of one shape, for which no zeros have to be filled in.
    """
    of_shape: dict[torch.Size | None, list[Tensor]] = {}
    for weight in weights:
        of_shape.setdefault(None if weight.is_cuda else weight.shape, []).append(weight)
    return list(of_shape.values())


def as_matrices(weights: list[Tensor]) -> Tensor:
    """Weights (M, I, ...) as (number, M, N) of the largest rows and columns, with zeros after those
    of the others; the columns are in the order of channels-last memory.
    """
    matrices = [weight.movedim(1, -1).flatten(1) for weight in weights]
    rows, columns = (max(sizes) for sizes in zip(*(m.shape for m in matrices), strict=True))
    for i, matrix in enumerate(matrices):
        if matrix.shape != (rows, columns):  # F.pad copies in any case
            lacking = 0, columns - matrix.shape[1], 0, rows - matrix.shape[0]
            matrices[i] = F.pad(matrix, lacking)
    return torch.stack(matrices)


def from_matrices(matrices: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """The same the other way round, in the shapes of the weights."""
    values = []
    for matrix, weight in zip(matrices, weights, strict=True):
        rows, channels, *kernel = weight.shape
        matrix = matrix[:rows, : weight[0].numel()].contiguous()
        values.append(matrix.unflatten(1, (*kernel, channels)).movedim(-1, 1))
    return values


def lengths(matrices: Tensor) -> Tensor:
    """Norms of (number, M, N) as (number, 1, 1)."""
    return matrices.norm(dim=(1, 2), keepdim=True)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with equal singular values, roughly, by a Newton-Schulz iteration.

    Args:
        matrices: (B, M, N) float32.

    Returns:
        (B, M, N) with singular values of about 0.7 to 1.2, but zeros stay zeros.
    """
    rows, columns = matrices.shape[-2:]
    if rows > columns:
        return orthogonalise(matrices.mT).mT
    matrices = matrices / lengths(matrices).clamp(min=1e-12)
    # Every factor is a polynomial of the square, so that the rounds need the small square alone.
    square = matrices @ matrices.mT
    factors = factor = _factor(square)
    for _ in range(ROUNDS - 1):
        square = factor @ square @ factor
        factor = _factor(square)
        factors = factor @ factors
    return factors @ matrices


def _factor(square: Tensor) -> Tensor:
    first, third, fifth = QUINTIC
    factor = torch.baddbmm(square, square, square, beta=third, alpha=fifth)
    factor.diagonal(0, -2, -1).add_(first)
    return factor
