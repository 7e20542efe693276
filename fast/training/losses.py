"""The losses of a network's paintings, and their gradients."""

import torch
from torch import Tensor

from fast.recording import Recording
from fast.training.checkerboard import checkerboard_loss
from fast.training.learner import Learner
from fast.training.progress import TERMS
from fast.training.settings import TrainingSettings
from fast.training.shown import as_shown
from fast.training.stability import instability_loss
from models.losses import PerceptualLoss
from models.memory import is_out_of_memory
from models.transformer_net import with_margin

# Px that are painted around a crop and cut off. With 8 px nearly all stars were in a row along the
# border. With a finished network's MARGIN a crop of 256 px would take the network 22 % longer.
MARGIN_IN_TRAINING = 24


class BatchLosses:
    """The losses of a batch's paintings, and their gradients with respect to the weights.

    On a single GPU the computation is recorded and replayed, unless it differs from step to step
    (with stability) or needs the CPU (the Wasserstein distance).

    Args:
        learner: has the network.
        loss: perceptual loss, on the network's device.
        settings: of the training.
    """

    def __init__(self, learner: Learner, loss: PerceptualLoss, settings: TrainingSettings) -> None:
        self.learner, self.loss = learner, loss
        self.checkerboard, self.stability = settings.checkerboard, settings.stability
        # Neither shared by processes nor compiled.
        is_plain = learner.net is learner.bare_net and settings.accumulation == 1
        repeats = not settings.stability and loss.settings.style_loss != "wasserstein"
        self.is_recorded = learner.accelerator.device.type == "cuda" and is_plain and repeats
        self.recording: Recording | None = None
        self.gradients: list[Tensor] = []  # of the weights, where the recording leaves them

    def backward(self, content: Tensor, *, seed: int) -> Tensor:
        """Add the loss's gradients to those of the network's weights.

        Args:
            content: (B, 3, S, S) RGB in [0, 1] on the network's device.
            seed: of what the stability moves the photos by.

        Returns:
            The values of TERMS, float32 without gradient.
        """
        return self._replay(content) if self.is_recorded else self._compute(content, seed=seed)

    def try_out(self, content: Tensor) -> None:
        """Compute the gradients for crops of the largest size, and drop them. Training with too
        little memory so ends now, in a ValueError, and not after hours, when the crops have grown.
        """
        try:
            self._compute_anew(content)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"--batch-size {len(content)}: so many crops of {content.shape[-1]} px, the "
                "largest there will be, do not fit into memory; make it or --image-size smaller"
            ) from error
        for weight in self.learner.weights:
            weight.grad = None
        if content.is_cuda:
            torch.cuda.empty_cache()  # a recording could not use what is kept of it

    def _replay(self, content: Tensor) -> Tensor:
        weights = self.learner.weights
        if self.recording is None or content.shape != self.recording.input.shape:
            self.recording, self.gradients = None, []  # their memory is free then
            self.recording = Recording(self._compute_anew, content)
            self.gradients = [weight.grad for weight in weights]
        values = self.recording(content).clone()
        for weight, gradient in zip(weights, self.gradients, strict=True):
            weight.grad = gradient
        return values

    def _compute_anew(self, content: Tensor) -> Tensor:
        for weight in self.learner.weights:
            weight.grad = None
        return self._compute(content, seed=0)

    def _compute(self, content: Tensor, *, seed: int) -> Tensor:
        painting = self._paint(content)
        terms = self.loss(painting, self.loss.content_targets(content))
        instability = torch.zeros_like(terms.total)
        checkerboard = checkerboard_loss(painting, self.learner.bare_net.period)
        loss = terms.total + self.checkerboard * checkerboard
        if self.stability:
            instability = instability_loss(self._paint, content, painting, seed=seed)
            loss = loss + self.stability * instability
        self.learner.accelerator.backward(loss)
        values = {
            "loss": loss,
            "content": terms.content,
            "style": terms.style,
            "tv": terms.tv,
            "checkerboard": checkerboard,
            "instability": instability,
        }
        return torch.stack([values[name] for name in TERMS]).detach()

    def _paint(self, content: Tensor) -> Tensor:
        return as_shown(with_margin(self.learner.net, content, MARGIN_IN_TRAINING))
