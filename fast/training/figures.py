"""Figures of a trained style on one photo: its own objective beside L-BFGS, steadiness, time."""

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count

import torch
from torch import Tensor

from fast.stylize import stylize
from fast.training.checkerboard import checkerboard_loss
from fast.training.stability import change_when_moved
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet, with_margin


@dataclass(frozen=True)
class Figures:
    """What was measured on one photo.

    Args:
        content, style, total: loss terms of the painting; total is weighted.
        checkerboard: deviation, in grey levels, of patterns that repeat with the network's grid.
        instability: mean change of the painting, in grey levels, when the photo moves by a pixel
            (and the painting is moved back) and gets noise of 2 grey levels.
        seconds: of one forward pass, after one that is not counted.
        from_noise, from_content: iterations that L-BFGS needs to get as low; infinite if it does
            not within the limit, NaN if it was not tried.
    """

    content: float
    style: float
    total: float
    checkerboard: float
    instability: float
    seconds: float
    from_noise: float = math.nan
    from_content: float = math.nan


def measure(net: TransformerNet, loss: PerceptualLoss, image: Tensor) -> Figures:
    """Measure a network on one photo, without the iterations of L-BFGS.

    Args:
        net: network from `load_net`.
        loss: objective that it was trained for, on the network's device.
        image: (1, 3, H, W) RGB in [0, 1].
    """
    image = image.to(net.device)
    painting = stylize(net, image)
    with torch.no_grad():
        terms = loss(painting, loss.content_targets(image))
        checkerboard = 255 * checkerboard_loss(painting, net.period).sqrt()
    figures = [x.item() for x in (terms.content, terms.style, terms.total, checkerboard)]
    start = time.perf_counter()
    stylize(net, image).cpu()  # waits until it is there
    seconds = time.perf_counter() - start
    return Figures(*figures, instability(net, image), seconds)


class Descent:
    """The losses of the images that L-BFGS goes through, from the first one on, without an end.

    They are computed as far as they are asked for, and kept. A fixed yardstick, whatever becomes of
    the slow path: one evaluation an iteration, a history of 20, no bounds on the pixels.

    Args:
        loss: objective.
        content: (1, 3, H, W) photo.
        first: image of the same size to start from.
    """

    def __init__(self, loss: PerceptualLoss, content: Tensor, first: Tensor) -> None:
        image = first.clone(memory_format=torch.contiguous_format).requires_grad_(True)
        targets = loss.content_targets(content)
        search = torch.optim.LBFGS(
            [image], max_iter=1, history_size=20, tolerance_grad=-1, tolerance_change=-1
        )

        def closure() -> Tensor:
            image.grad = None
            total = loss(image, targets).total
            total.backward()
            return total.detach()

        self.step = partial(search.step, closure)  # gives the loss before the step
        self.losses: list[float] = []

    def __iter__(self) -> Iterator[float]:
        for number in count():
            if number == len(self.losses):
                self.losses.append(self.step().item())
            yield self.losses[number]


def descents(loss: PerceptualLoss, photo: Tensor) -> dict[str, Descent]:
    """What the figures of a photo (1, 3, H, W) are compared with: from_noise, from_content."""
    noise = torch.rand(photo.shape, generator=torch.Generator().manual_seed(0))
    starts = {"from_noise": noise.to(photo.device), "from_content": photo}
    return {name: Descent(loss, photo, first) for name, first in starts.items()}


def iterations_to_reach(target: float, losses: Iterable[float]) -> float:
    """Number of the first loss that is not above the target, the start's being 0; infinite if
    there is none.
    """
    return next((number for number, loss in enumerate(losses) if loss <= target), math.inf)


@torch.no_grad()
def instability(net: TransformerNet, image: Tensor) -> float:
    """Mean change in grey levels under a shift by a pixel both ways and noise of 2 grey levels."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))

    def paint(image: Tensor) -> Tensor:
        return with_margin(net, image, net.margin).clamp(0, 1)

    change = change_when_moved(paint, image, paint(image), (1, 1), noise.to(image.device))
    return 255 * change.abs().mean().item()


def summary(figures: Sequence[Figures]) -> dict[str, float]:
    """What a checkpoint keeps: the means over photos, their number, of iterations the median and
    the least; without those that were not tried.
    """
    values = {name: [getattr(f, name) for f in figures] for name in asdict(figures[0])}
    iterations = [name for name in values if name.startswith("from_")]
    kept = {name: statistics.mean(v) for name, v in values.items() if name not in iterations}
    for name in iterations:
        if not any(map(math.isnan, values[name])):
            kept[name] = statistics.median(values[name])
            kept[f"least_{name}"] = min(values[name])
    return {**kept, "photos": len(figures)}


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
