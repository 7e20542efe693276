"""Any size in bounded memory: what an optimisation needs, and tiles as large as there is room."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.device import free_memory, is_out_of_memory, keep_pages, taken_memory
from models.loss_settings import LossSettings
from models.losses import LossTerms, PerceptualLoss
from models.tiles import halo, split
from models.vgg import num_channels, stride
from slow.objective import Objective, tiled_objective
from slow.optimizers import LARGE, SHORT_HISTORY
from slow.settings import SlowSettings, scales

# Bytes for each pixel of a tile with its halo, forward and backward, by the size of a feature; and
# FIXED_BYTES for any tile besides. From python -m benchmarks.memory.
TILE_BYTES = {4: 1500, 2: 700}
L2_POOLING = 1.5  # times as much: the squares are there, too
FIXED_BYTES = 350e6
# Images that are there all the time, besides the two for each step that the optimiser remembers;
# and those that it needs for a step, when there is no tile.
NUM_IMAGES = 8
NUM_STEP_IMAGES = 6
SMALLEST_SIDE = 128  # px, of a tile; smaller ones are mostly halo
KEPT_FREE = 0.15  # of the free memory
MARGIN = 0.05  # of a limit; the estimate is no better
PROBE_SIDE = 192  # px, of the image on which the speed is measured
GB = 10**9


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Args:
        size: height and width of the largest image in px.
        side: longest side of a tile there in px, without its halo; that of the image or more for
            the whole image at once.
        memory: bytes that the process takes in all.
        seconds: time for the steps that are left.
    """

    size: tuple[int, int]
    side: int
    memory: float
    seconds: float

    def __str__(self) -> str:
        height, width = self.size
        how = "as a whole" if self.side >= max(self.size) else f"in tiles of {self.side} px"
        cost = f"about {self.memory / GB:.1f} GB and {_duration(self.seconds)}"
        return f"{width}x{height} px {how}: {cost}"


@dataclass(frozen=True)
class Room:
    """What there is, before an optimisation begins; afterwards some of what is freed stays with
    the process and cannot be told from what is in use.

    Args:
        taken: bytes that the program and its network have taken.
        free: bytes that may be taken in addition.
        limit: bytes that may be taken in all, where a limit was given.
    """

    taken: float
    free: float
    limit: float | None = None


def measure_room(device: torch.device, max_memory: float | None = None) -> Room:
    """How much there is on a device, once the network is loaded.

    Args:
        device: where to compute.
        max_memory: bytes that the process (on a GPU its tensors) may take in all; most of what is
            free by default.
    """
    taken = taken_memory(device)
    if max_memory is None:
        return Room(taken, (1 - KEPT_FREE) * free_memory(device))
    return Room(taken, (1 - MARGIN) * max_memory - taken, max_memory)


class BoundedObjective:
    """Makes the objective of each scale, in tiles that fit into memory; what stylize takes.

    Before the first step it measures the speed on a small part of the image and tells its plan. If
    the memory is not enough after all, the tiles become smaller. On the CPU the process keeps freed
    memory, but not that of large tensors.

    Args:
        settings: of the run.
        shape: height and width of the content image, of any size.
        room: from measure_room.
        steps_done: those of an interrupted run that goes on.
        report: called with the plan.

    Raises:
        ValueError: when called, if the smallest tiles need more than the limit.
    """

    def __init__(
        self,
        settings: SlowSettings,
        shape: tuple[int, int],
        room: Room,
        *,
        steps_done: int = 0,
        report: Callable[[Plan], None] | None = None,
    ) -> None:
        self.settings, self.shape = settings, shape
        self.room, self.steps_done, self.report = room, steps_done, report
        self.sides: dict[int, int] = {}  # of the tiles, by the scale's size

    def __call__(self, loss: PerceptualLoss, content: Tensor) -> Objective:
        if content.device.type == "cpu":
            keep_pages(large=False)
        longest = max(content.shape[-2:])
        if longest not in self.sides:
            plan = self._plan(loss, content)
            if self.report:
                self.report(plan)
        return shrinking_objective(loss, content, self.sides[longest])

    def _plan(self, loss: PerceptualLoss, content: Tensor) -> Plan:
        """For this scale and all larger ones."""
        per_pixel = seconds_per_pixel(loss, content) if self.report else 0.0
        most, seconds, last_step = 0.0, 0.0, 0
        for scale in scales(self.settings):
            last_step += scale.steps
            if scale.size < max(content.shape[-2:]):
                continue
            size = tuple(max(1, round(n * scale.size / max(self.shape))) for n in self.shape)
            run = (self.settings, loss.settings, loss.vgg.dtype)
            side = self.sides[scale.size] = choose_side(size, self.room.free, *run)
            memory = self.room.taken + memory_needed(size, side, *run)
            if self.room.limit is not None and memory > self.room.limit:
                raise ValueError(
                    f"--max-memory {self.room.limit / GB:g} is not enough for {size[1]}x{size[0]} "
                    f"px, which take {memory / GB:.1f} GB even in tiles of {side} px"
                )
            most = max(most, memory)
            steps_left = min(scale.steps, last_step - self.steps_done)
            seconds += steps_left * per_pixel * pixels_per_step(size, side, loss.vgg.layers)
        return Plan(size, side, most, seconds)


def choose_side(
    size: tuple[int, int],
    room: float,
    settings: SlowSettings,
    loss: LossSettings,
    dtype: torch.dtype,
) -> int:
    """The longest side of the largest tiles in px for which there is room (bytes), the image's own
    where it fits as a whole; or SMALLEST_SIDE.
    """
    longest, step = max(size), max(map(stride, loss.content_layers + loss.style_layers))
    for number in range(1, longest // SMALLEST_SIDE + 1):
        side = math.ceil(longest / number / step) * step
        if memory_needed(size, side, settings, loss, dtype) <= room:
            return side
    return min(SMALLEST_SIDE, longest)


def memory_needed(
    size: tuple[int, int],
    side: int,
    settings: SlowSettings,
    loss: LossSettings,
    dtype: torch.dtype,
) -> float:
    """Bytes that an optimisation takes beside the network, at an estimate.

    Args:
        size: height and width of the image in px.
        side: longest side of a tile without its halo in px.
        settings, loss: of the run.
        dtype: precision of the features.
    """
    pixels, bytes_each = size[0] * size[1], dtype.itemsize
    remembered = 1  # Adam's means of the gradient and of its square
    if settings.optimizer == "lbfgs":
        limit = SHORT_HISTORY if pixels >= LARGE else settings.history
        remembered = min(limit, settings.steps)
    features = sum(num_channels(layer) / stride(layer) ** 2 for layer in loss.content_layers)
    targets = bytes_each * pixels * features
    margin = halo(loss.content_layers + loss.style_layers)
    tile_pixels = math.prod(min(side + 2 * margin, length) for length in size)
    tile_bytes = TILE_BYTES.get(bytes_each, 2 * TILE_BYTES[4])
    tile_bytes *= L2_POOLING if loss.pooling == "l2" else 1
    tile = FIXED_BYTES + tile_bytes * tile_pixels
    image = 3 * 4 * pixels
    images = (NUM_IMAGES + 2 * remembered) * image
    return images + targets + max(tile, NUM_STEP_IMAGES * image)


def pixels_per_step(size: tuple[int, int], side: int, layers: tuple[str, ...]) -> float:
    """Pixels whose pass forward and back takes as long as a step; tiles are passed forward twice,
    but for the last.
    """
    tiles = split(size, side, layers)
    pixels = [math.prod(end - start for start, end in tile.outer) for tile in tiles]
    return sum(pixels) + 0.5 * sum(pixels[:-1])


def seconds_per_pixel(loss: PerceptualLoss, content: Tensor) -> float:
    """Of the loss and its gradient, measured on the corner of a content image."""
    corner = content[..., :PROBE_SIDE, :PROBE_SIDE]
    evaluate = tiled_objective(loss, corner, PROBE_SIDE)
    fastest = math.inf
    for _ in range(2):
        start = time.perf_counter()
        image = corner.clone().requires_grad_(True)
        evaluate(image).total.item()
        image.grad.sum().item()  # waits until it is there
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / corner[0, 0].numel()


def shrinking_objective(loss: PerceptualLoss, content: Tensor, side: int) -> Objective:
    """The tiled objective, with smaller tiles from the moment on when memory runs out.

    Raises:
        MemoryError: when called, if it is not enough for the smallest tiles.
    """
    side = min(side, max(content.shape[-2:]))
    evaluate: Objective | None = None

    def attempt(image: Tensor) -> LossTerms:
        nonlocal side, evaluate
        while True:
            try:
                evaluate = evaluate or tiled_objective(loss, content, side)
                return evaluate(image)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = (str(error) or type(error).__name__).splitlines()[0]
            # Only here, without the error and its traceback, is the memory free again.
            evaluate, image.grad = None, None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if side <= SMALLEST_SIDE:
                raise MemoryError(f"not enough memory for tiles of {side} px: {reason}")
            side = max(side // 2, SMALLEST_SIDE)
            warnings.warn(f"out of memory; going on in tiles of {side} px", stacklevel=2)

    return attempt


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
