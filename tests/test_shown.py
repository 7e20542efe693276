import torch

from fast.training.shown import as_shown


def test_values_outside_get_only_gradients_that_lead_back():
    painting = torch.tensor([-0.5, -0.5, 0.5, 0.5, 1.5, 1.5], requires_grad=True)
    shown = as_shown(painting)
    assert shown.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    (grad,) = torch.autograd.grad(shown, painting, torch.tensor([1.0, -1, 1, -1, 1, -1]))
    assert grad.tolist() == [0, -1, 1, -1, 1, 0]


def test_what_is_not_finite_stays_so():
    assert as_shown(torch.tensor([torch.inf, -torch.inf, torch.nan])).isnan().all()
