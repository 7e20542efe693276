"""Muon, an optimiser for the weights of convolutions (Jordan et al., 2024; Liu et al.,
arXiv 2502.16982)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

# Coefficients of Jordan's quintic: five rounds bring singular values from 0.01...1 to about 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps in orthogonalised directions: all singular values of a step are about equal.

    Adam's steps are dominated by a few directions that all images agree on; equal singular values
    move the rare ones as far, and in a short trial the transformer network needed fewer images for
    the same loss. Departures from the source: a kernel (out, in, h, w) counts as a matrix
    (out, in * h * w); and because a normalisation follows each of these convolutions, so that their
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
            for weights in together(group["params"]):
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
        matrices = [direction.flatten(1) for direction in directions]
        updates = orthogonalise(stack_of_largest(matrices))
        lengths = updates.norm(dim=(1, 2)).clamp(min=1e-12)  # a zero gradient gives no step
        updates = updates * (lr * torch.stack(norms) / lengths).view(-1, 1, 1)
        steps = [
            update[: len(matrix), : matrix.shape[1]].reshape(weight.shape)
            for update, matrix, weight in zip(updates, matrices, weights, strict=True)
        ]
        torch._foreach_sub_(weights, steps)
        torch._foreach_mul_(weights, torch._foreach_div(norms, torch._foreach_norm(weights)))


def together(weights: list[Tensor]) -> list[list[Tensor]]:
    """Those that are updated at once: all on a GPU, which takes longer to start a product than to
    compute it; elsewhere those of one shape, for the others would be filled up with zeros.
    """
    of_shape: dict[torch.Size | None, list[Tensor]] = {}
    for weight in weights:
        of_shape.setdefault(None if weight.is_cuda else weight.shape, []).append(weight)
    return list(of_shape.values())


def stack_of_largest(matrices: list[Tensor]) -> Tensor:
    """(number, M, N) of matrices of up to M rows and N columns, with zeros after theirs."""
    rows, columns = (max(sizes) for sizes in zip(*(m.shape for m in matrices), strict=True))
    return torch.stack(
        [F.pad(m, (0, columns - m.shape[1], 0, rows - m.shape[0])) for m in matrices]
    )


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest matrix with equal singular values, roughly, by a Newton-Schulz iteration.

    Args:
        matrix: (..., M, N) float32.

    Returns:
        (..., M, N) with singular values of about 0.7 to 1.2, but zeros stay zeros.
    """
    rows, columns = matrix.shape[-2:]
    if rows > columns:
        return orthogonalise(matrix.mT).mT
    first, third, fifth = QUINTIC
    matrix = matrix / matrix.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    # Every factor is a polynomial of the square, so that the rounds need the small square alone.
    square, factors = matrix @ matrix.mT, torch.eye(rows, device=matrix.device)
    for _ in range(5):
        factor = third * square + fifth * square @ square
        factor.diagonal(0, -2, -1).add_(first)
        factors = factor @ factors
        square = factor @ square @ factor
    return factors @ matrix
