import pytest
import torch

from fast.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(16, 72), (40, 9), (8, 8)])
def test_singular_values_become_about_equal(shape):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(shape))
    [result] = orthogonalise((left * values @ right)[None])
    assert torch.linalg.svdvals(result).min() > 0.6
    assert torch.linalg.svdvals(result).max() < 1.3
    # The directions stay: only the diagonal changes.
    rotated = left.mT @ result @ right.mT
    assert (rotated - rotated.diag().diag()).abs().max() < 1e-3


def test_zero_stays_zero():
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 5)), torch.zeros(1, 3, 5))


def test_zero_gradient_is_no_step():
    weight = torch.randn(4, 3, requires_grad=True)
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.05).step()
    torch.testing.assert_close(weight.detach(), before)


def test_step_has_its_length_and_keeps_the_norm():
    torch.manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, requires_grad=True)
    before = weight.detach().clone()
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=0.05).step()
    assert weight.norm().item() == pytest.approx(before.norm().item(), rel=1e-5)
    assert (weight - before).norm().item() == pytest.approx(0.05 * before.norm().item(), rel=0.05)


def test_it_finds_a_direction():
    """The minimum over directions of |w / |w| - target|^2."""
    torch.manual_seed(0)
    weight = torch.randn(5, 7, requires_grad=True)
    target = torch.nn.functional.normalize(torch.randn(5, 7).flatten(), dim=0).view(5, 7)
    optimizer = Muon([weight], lr=0.05)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 200)
        loss = (weight / weight.norm() - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


@pytest.mark.parametrize("in_one_stack", [False, True])
def test_weights_are_updated_each_by_itself(in_one_stack, monkeypatch):
    if in_one_stack:  # as on a GPU
        monkeypatch.setattr("fast.training.muon.group_by_shape", lambda weights: [weights])
    shapes = (4, 3, 3, 3), (4, 3, 3, 3), (2, 5), (9, 2, 1, 2)  # the last has more rows than columns
    together = [torch.randn(shape) for shape in shapes]
    alone = [weight.clone() for weight in together]
    optimizers = [Muon(together, lr=0.05), *(Muon([weight], lr=0.05) for weight in alone)]
    for _ in range(3):
        for weight, other in zip(together, alone, strict=True):
            weight.grad, other.grad = (torch.randn_like(weight),) * 2
        for optimizer in optimizers:
            optimizer.step()
    for weight, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(weight, expected)
