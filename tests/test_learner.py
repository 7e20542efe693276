import math

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from fast.training.learner import FEW, Diverged, Learner, Schedule, make_optimizers, normalized
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image


def test_update_is_that_of_the_optimisers_with_gradients_normalized():
    torch.manual_seed(0)
    net, expected = (TransformerNet(width=4, num_blocks=1) for _ in range(2))
    expected.load_state_dict(net.state_dict())
    learner = Learner(net, Schedule(0.01, 0, 10), Accelerator(cpu=True))
    optimizers = make_optimizers(expected, 0.01)
    pairs = list(zip(net.parameters(), expected.parameters(), strict=True))
    for step in range(3):
        for weight, other in pairs:
            weight.grad, other.grad = (5 * torch.randn_like(weight),) * 2
        norm = torch.stack([other.grad.norm() for _, other in pairs]).norm()
        for _, other in pairs:
            other.grad = other.grad / norm
        learner.update(step, torch.tensor(1.0))
        torch.testing.assert_close(learner.norms[-1], norm)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0][
                "initial_lr"
            ] * learner.schedule.share(step)
            optimizer.step()
    for weight, other in pairs:
        torch.testing.assert_close(weight, other)


@pytest.mark.parametrize("scale", [1e-6, 1e12, math.inf, math.nan])
def test_gradients_of_all_steps_have_the_same_length(scale):
    gradient = scale * torch.tensor([0.0, 3.0, 4.0])
    expected = [0.0, 0.6, 0.8] if math.isfinite(scale) else [0.0, 0.0, 0.0]
    torch.testing.assert_close(normalized(gradient, gradient.norm()), torch.tensor(expected))


def test_weights_that_are_not_finite_are_no_good_state():
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.01, 0, 10), Accelerator(cpu=True))
    learner.keep_as_good(0)
    with torch.no_grad():
        net.to_rgb.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(Diverged, match="no longer finite"):
        learner.keep_as_good(1)
    assert learner.good.step == 0


def test_learning_rate_rises_over_at_most_a_tenth_of_the_steps_and_falls_to_zero():
    for warmup_steps, highest in ((100, 20), (5, 5), (0, 0)):
        shares = [Schedule(0.03, warmup_steps, 200).share(step) for step in range(201)]
        assert shares[: highest + 1] == sorted(shares[: highest + 1])
        assert shares[highest:] == sorted(shares[highest:], reverse=True)
        assert shares[highest] > 0.97 and shares[200] < 1e-9


@pytest.mark.parametrize(
    ("losses", "norm", "message"),
    [
        ([9.0, 11.0], 1.0, "10, it was 3"),
        ([2.0, 2.0], math.inf, "none of .* gradients is finite"),
    ],
)
def test_collapse_is_noticed(job, losses, norm, message):
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])

    def check(losses, norm=1.0, *, times=FEW):
        learner.recent += times * [torch.tensor(loss) for loss in losses]
        learner.norms += times * [torch.tensor(norm)]
        learner.check()

    check([2.0, 4.0])
    check([9.0, 1.0])  # an outlier alone is none
    check([20.0], times=2)  # nor are a few hard images
    learner.recent, learner.norms = [], []
    with pytest.raises(Diverged, match=message):
        check(losses, norm)


@pytest.mark.parametrize(
    ("losses", "message"),
    [([10.0, 300.0, 300.0], "203.3, it was 10"), ([math.inf], "inf from the start")],
)
def test_collapse_in_the_first_steps_is_noticed(job, losses, message):
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])
    learner.recent = [torch.tensor(loss) for loss in losses]
    with pytest.raises(Diverged, match=message):
        learner.check()


def take_step(learner: Learner, step: int, image: Tensor) -> None:
    """Towards black."""
    loss = learner.net(image).square().mean()
    learner.accelerator.backward(loss)
    learner.update(step, loss.detach())


def test_way_back_may_be_taken_again(job):
    """What the optimisers do after the first time must not reach the state that is kept."""
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])
    ends = []
    take_step(learner, 0, smooth_image(16, 16))
    learner.keep_as_good(1)
    with pytest.warns(UserWarning, match="back to step 1"):
        for _ in range(2):
            learner.go_back(Diverged("test"))
            learner.factor = 1.0
            take_step(learner, 1, smooth_image(16, 16, seed=1))
            ends.append(learner.state())
    (weights, states), (again, states_again) = ends
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    moments = states["adam"]["state"][0]["exp_avg"]
    assert torch.equal(moments, states_again["adam"]["state"][0]["exp_avg"])


def test_scaled_gradients_make_the_same_step(job, monkeypatch):
    """What float16 does on a GPU: the loss is scaled up, the gradients down again."""
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        monkeypatch.setattr(job["accelerator"], "scaler", scaler)
        torch.manual_seed(0)
        net = TransformerNet(width=4, num_blocks=1)
        learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])
        for step in range(3):
            take_step(learner, step, smooth_image(16, 16))
        ends.append(learner.state())
    (weights, _), (scaled, states) = ends
    for name, weight in weights.items():
        torch.testing.assert_close(scaled[name], weight, rtol=1e-3, atol=1e-5)
    assert states["scaler"]["scale"] == 1024.0 and states["scaler"]["_growth_tracker"] == 3
