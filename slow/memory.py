"""Any image size in bounded memory: what an optimisation needs, and the largest tiles that fit."""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from media import resize
from media.images import scaled_size
from models.loss_settings import LossSettings
from models.losses import LossTerms, PerceptualLoss
from models.memory import free_memory, is_out_of_memory, keep_pages, taken_memory
from models.tiles import halo, split
from models.vgg import num_channels, stride
from slow.objective import Objective, tiled_objective
from slow.optimizers import LARGE, SHORT_HISTORY
from slow.settings import SlowSettings, scales
from slow.start import coarsest_stride

# Bytes for each pixel of a tile with its halo, forward and backward, by the bytes of a number.
# Every tile takes FIXED_BYTES more. Measured by python -m benchmarks.memory.
TILE_BYTES = {4: 1500, 2: 700}
L2_POOLING = 1.5  # times as much, for the squares
FIXED_BYTES = 350e6
# Image-sized buffers: NUM_IMAGES always, two per remembered step, and NUM_STEP_IMAGES while the
# optimiser steps, when no tile is held.
NUM_IMAGES = 8
NUM_STEP_IMAGES = 6
SMALLEST_SIDE = 128  # px, of a tile; smaller ones are mostly halo
KEPT_FREE = 0.15  # of the free memory
MARGIN = 0.05  # of a limit: the estimate is no more exact
PROBE_SIDE = 192  # px, of the image on which the speed is measured
GB = 10**9


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Args:
        size: height and width of the largest image in px.
        side: longest side of its tiles in px, without their halo; if this is at least the image's
            own, the image is computed as a whole.
        memory: bytes that the process takes in total.
        seconds: time for the remaining steps.
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
    """The memory before an optimisation begins. Later, freed memory may stay with the process, and
    then looks as if it were in use.

    Args:
        taken: bytes that the program and its network have taken.
        free: bytes that may be taken in addition.
        limit: bytes that may be taken in total, if there is a limit.
    """

    taken: float
    free: float
    limit: float | None = None


def measure_room(device: torch.device, max_memory: float | None = None) -> Room:
    """Measure the memory of a device, once the network is loaded.

    Args:
        device: where to compute.
        max_memory: bytes that the process (on a GPU its tensors) may take in total; most of what
            is free by default.
    """
    taken = taken_memory(device)
    if max_memory is None:
        return Room(taken, (1 - KEPT_FREE) * free_memory(device))
    return Room(taken, (1 - MARGIN) * max_memory - taken, max_memory)


class BoundedObjective:
    """Makes the objective of each scale, in tiles that fit into memory: the objective of stylize.

    Before the first step it measures the speed on a small part of the image and reports its plan.
    If the memory runs out nevertheless, the tiles become smaller. On the CPU the process keeps
    freed memory, except that of large tensors.

    Args:
        settings: of the run.
        shape: height and width of the content image, of any size.
        room: from measure_room.
        steps_done: steps of the interrupted run that is resumed.
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
            size = scaled_size(self.shape, scale.size)
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
    """The longest side, in px, of the largest tiles that fit into this room (bytes). It is at least
    the image's own if the image fits as a whole, and SMALLEST_SIDE if nothing fits.
    """
    longest, step = max(size), coarsest_stride(loss)
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
    """Estimate the bytes that an optimisation takes in addition to the network.

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
    """The number of pixels whose forward and backward pass takes as long as a step. All tiles but
    the last have a second forward pass.
    """
    tiles = split(size, side, layers)
    pixels = [math.prod(end - start for start, end in tile.outer) for tile in tiles]
    return sum(pixels) + 0.5 * sum(pixels[:-1])


def seconds_per_pixel(loss: PerceptualLoss, content: Tensor) -> float:
    """Measure the time of the loss and its gradient on a content image in a medium size: at the
    first scale, which is small, a pixel takes several times as long as later.
    """
    probe = resize(content, (PROBE_SIDE, PROBE_SIDE))
    evaluate = tiled_objective(loss, probe, PROBE_SIDE)
    fastest = math.inf
    for _ in range(2):
        start = time.perf_counter()
        image = probe.clone().requires_grad_(True)
        evaluate(image).total.item()
        image.grad.sum().item()  # waits for the result
        fastest = min(fastest, time.perf_counter() - start)
    return fastest / probe[0, 0].numel()


def shrinking_objective(loss: PerceptualLoss, content: Tensor, side: int) -> Objective:
    """The tiled objective, which goes on with smaller tiles when memory runs out.

    Raises:
        MemoryError: when called, if there is too little for the smallest tiles.
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
