"""The network in training with its optimisers: updates, state to save, and the way back."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Adam

from fast.recording import Recording
from fast.training.muon import Muon
from models.transformer_net import TransformerNet

OPTIMIZERS = ("muon", "adam")
# Adam's learning rate as a share of Muon's: 0.004 beside 0.03. It moves what has a size that
# matters: the normalisations' scales and shifts, and the output convolution. With half of it the
# objective fell less: with 120 crops of 128 px to 2.98, not 2.83; with 480 of up to 192 px to 1.92,
# not 1.85.
ADAM_SHARE = 2 / 15
MAX_RETRIES = 3
COLLAPSE = 3.0  # times the lowest mean loss so far
FEW = 20  # losses, too few to tell a collapse from images that are hard to paint


class Diverged(ArithmeticError):
    """The loss is not finite, or far higher than it was."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps: linear warm-up, then a cosine to 0.

    Args:
        learning_rate: at its highest.
        warmup_steps: steps until then, but at most a tenth of all.
        steps: of the whole training.
    """

    learning_rate: float
    warmup_steps: int
    steps: int

    def share(self, step: int) -> float:
        """Of the learning rate, from 0 to 1."""
        warmup_steps = min(self.warmup_steps, self.steps // 10)
        warmup = min(1.0, (step + 1) / (warmup_steps + 1))
        return warmup * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class GoodState:
    """A state to go back to: the step, the weights, and all else as from Learner.state."""

    step: int
    weights: dict[str, Tensor]
    states: dict[str, Any]


class Learner:
    """A network that is trained, its optimisers and their last good state.

    Args:
        net: on the CPU; it is moved to the accelerator's device.
        schedule: of the learning rate.
        accelerator: prepares the network; its scaler, if any, is shared by the optimisers.
    """

    def __init__(self, net: TransformerNet, schedule: Schedule, accelerator: Accelerator) -> None:
        self.schedule = schedule
        self.accelerator = accelerator
        self.bare_net = net
        self.net = accelerator.prepare(net)
        self.weights = list(net.parameters())
        # Not prepared: each would update the scaler of float16 for itself.
        self.optimizers = make_optimizers(net, schedule.learning_rate)
        self.factor = 1.0  # of the learning rate; halved when the loss diverges
        self.lowest = math.inf
        self.retries = 0
        self.good: GoodState | None = None
        self.recent: list[Tensor] = []  # losses since the last check
        self.norms: list[Tensor] = []  # and the gradients' norms
        # On a GPU the rates are there, where a recording finds them.
        self.rates = [torch.zeros((), device=accelerator.device) for _ in self.optimizers]
        self.is_recorded = accelerator.device.type == "cuda" and not accelerator.scaler
        self.recording: Recording | None = None
        self.is_warm = False

    def update(self, step: int, loss: Tensor) -> None:
        """A step of the optimisers, if the gradients of the batch's last part are there; the loss
        is kept for the next check.
        """
        self.recent.append(loss)
        if not self.accelerator.sync_gradients:
            return
        scaler = self.accelerator.scaler
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            if scaler:
                scaler.unscale_(optimizer)
            [group] = optimizer.param_groups
            rate.fill_(group["initial_lr"] * self.schedule.share(step) * self.factor)
            group["lr"] = rate
        gradient = flatten([weight.grad for weight in self.weights])
        self.norms.append(self._replay(gradient) if self.is_recorded else self._apply(gradient))
        for weight in self.weights:
            weight.grad = None

    def _replay(self, gradient: Tensor) -> Tensor:
        """The first update, which may make the optimisers' states, is not recorded."""
        if not self.is_warm:
            self.is_warm = True
            return self._apply(gradient)
        if not self.recording:
            self.recording = Recording(self._apply, gradient, warm_ups=0)
        return self.recording(gradient).clone()

    def _apply(self, gradient: Tensor) -> Tensor:
        """Update the weights by the gradient of all of them, one after the other, at length 1;
        return its norm.
        """
        norm = gradient.norm()
        parts = normalized(gradient, norm).split([weight.numel() for weight in self.weights])
        for weight, part in zip(self.weights, parts, strict=True):
            weight.grad = part.as_strided(weight.shape, weight.stride())
        scaler = self.accelerator.scaler
        for optimizer in self.optimizers:
            scaler.step(optimizer) if scaler else optimizer.step()
        if scaler:
            scaler.update()
        return norm

    def check(self) -> None:
        """Diverged if the mean loss since the last check, of all processes, has gone wrong: beside
        the lowest one or, until there is such, the very first loss.
        """
        if not self.recent:
            return
        recent = torch.stack(self.recent)
        both = torch.stack([recent.mean(), recent[0]])[None]
        loss, first = self.accelerator.gather(both).mean(0).tolist()
        has_mean = self.lowest < math.inf
        before = self.lowest if has_mean else first
        if not math.isfinite(loss):
            was = f", it was {before:.4g}" if math.isfinite(before) else " from the start"
            raise Diverged(f"the loss is {loss:.4g}{was}")
        has_few = len(recent) < FEW
        if loss > COLLAPSE * before and not (has_few and has_mean):
            raise Diverged(f"the loss is {loss:.4g}, it was {before:.4g}")
        if has_few:
            return
        norms, self.recent, self.norms = torch.stack(self.norms), [], []
        if not norms.isfinite().any():
            raise Diverged(f"none of {len(norms)} gradients is finite")
        self.lowest = min(self.lowest, loss)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, and all else that the training goes on from; on the CPU."""
        states = {
            name: to_cpu_copy(optimizer.state_dict())
            for name, optimizer in zip(OPTIMIZERS, self.optimizers, strict=True)
        }
        states |= {"factor": self.factor, "lowest": self.lowest}
        if self.accelerator.scaler:
            states["scaler"] = self.accelerator.scaler.state_dict()
        return to_cpu_copy(self.bare_net.state_dict()), states

    def load_state(self, weights: dict[str, Tensor], states: dict[str, Any]) -> None:
        """Go on from there."""
        self.bare_net.load_state_dict(weights)
        for name, optimizer in zip(OPTIMIZERS, self.optimizers, strict=True):
            optimizer.load_state_dict(to_cpu_copy(states[name]))  # it keeps what it is given
            if isinstance(optimizer, Adam):  # the states may come from another kind of device
                optimizer.param_groups[0]["capturable"] = self.accelerator.device.type == "cuda"
        self.recording, self.is_warm = None, False  # of the states of before
        self.factor, self.lowest = float(states["factor"]), float(states["lowest"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(states["scaler"])

    def keep_as_good(self, step: int) -> None:
        """Remember this state to go back to; Diverged if there is no good in it."""
        weights, states = self.state()
        if not all(weight.isfinite().all() for weight in weights.values()):
            raise Diverged("the weights are no longer finite")
        self.good = GoodState(step, weights, states)
        self.retries = 0

    def go_back(self, error: Diverged) -> int:
        """Return to the last good state with half the learning rate.

        Returns:
            The step of that state.

        Raises:
            FloatingPointError: it has happened too often since then.
        """
        self.retries += 1
        if self.retries > MAX_RETRIES:
            raise FloatingPointError(f"{error}, after {MAX_RETRIES} attempts with smaller steps")
        factor = self.factor / 2
        self.load_state(self.good.weights, self.good.states)
        self.factor, self.recent, self.norms = factor, [], []
        if self.accelerator.is_main_process:
            warnings.warn(
                f"{error}; back to step {self.good.step} with {factor:g} of the learning rate",
                stacklevel=2,
            )
        return self.good.step


def flatten(gradients: list[Tensor]) -> Tensor:
    """All values, each gradient's in memory order, in which the optimisers read the weights."""
    return torch.cat([gradient.as_strided((gradient.numel(),), (1,)) for gradient in gradients])


def normalized(gradient: Tensor, norm: Tensor) -> Tensor:
    """A gradient divided by its norm; zeros if that is not finite.

    The optimisers average gradients over steps, and so every step has the same share. Otherwise
    images with large flat parts drown out the others for some hundred steps, because each
    normalisation enlarges the little variation that they have. In a trial 400 single images of
    256 px took the objective to 1.61, and to 1.73 without this.
    """
    return (gradient / norm.clamp(min=1e-30)).nan_to_num(0.0)  # 0 or no number if it is not finite


def make_optimizers(net: TransformerNet, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions that a normalisation follows, Adam for all else; see OPTIMIZERS.

    No gradient is clipped: all have the same length, see normalized.
    """
    normalised, others = [], []
    for name, weight in net.named_parameters():
        is_normalised = weight.ndim == 4 and not name.startswith("to_rgb")
        (normalised if is_normalised else others).append(weight)
    optimizers = [
        Muon(normalised, lr=learning_rate),
        Adam(others, lr=learning_rate * ADAM_SHARE, fused=True, capturable=others[0].is_cuda),
    ]
    for optimizer in optimizers:
        [group] = optimizer.param_groups
        group["initial_lr"] = group["lr"]
    return optimizers


def to_cpu_copy(value: Any) -> Any:
    """A copy as a checkpoint stores it: tensors on the CPU, tuples as lists."""
    if isinstance(value, dict):
        return {key: to_cpu_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_cpu_copy(item) for item in value]
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
