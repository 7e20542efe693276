"""Feature maps that can be read row by row: the photo, a layer's output, the residual sum.

Each is computed in bands of rows, several at once. Instance normalisation needs the statistics of a
whole map before the first of its values is known; so a layer's output waits, not yet normalised, in
a store, or, where memory is short, is computed anew when it is needed.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from fast.arithmetic import add_scaled, combine_moments, extreme, fill, mean_and_variance
from fast.stores import Store
from fast.workers import Workers
from models.grain import repeated
from models.int8 import LARGEST, Int8Kernel, Levels, cut_off
from models.layers import ConvLayer, UpsampleConvLayer
from models.padding import reflected_indices

Layer = ConvLayer | UpsampleConvLayer

# Values of a feature map that are worked on at a time. On the CPU 8 MB painted a photo of 1024 px
# fastest.
BAND_VALUES = {"cpu": 2**21}
BAND_VALUES_ELSEWHERE = 2**25
# Rows of a band for each px of padding, so that it shares few rows with its neighbours.
MIN_ROWS = 8


class Features(Protocol):
    """A feature map that can be read row by row."""

    height: int
    width: int
    channels: int
    levels: Levels | None  # if set, `read` gives the numbers of these levels

    def read(self, top: int, out: Tensor) -> None:
        """Fill `out` (rows, W, C) with the rows from `top` on: values, or uint8 numbers."""

    def to_levels(self) -> Levels:
        """Switch `read` to 8-bit numbers for good; not for layers without a ReLU."""


class Photo:
    """An image with a reflected margin and grain, in [0, 1]; see TransformerNet."""

    channels = 3
    levels = None

    def __init__(self, image: Tensor, margin: int, noise: Tensor | None) -> None:
        self.pixels, self.margin = image[0].permute(1, 2, 0), margin  # (H, W, 3)
        self.rows = reflected_indices(len(self.pixels), margin, margin).to(image.device)
        self.height, self.width = (size + 2 * margin for size in image.shape[-2:])
        self.noise = None  # (PERIOD, W, 3), on the network's device
        if noise is not None:
            self.noise = repeated(noise.permute(1, 2, 0), 1, 0, self.width)

    def read(self, top: int, out: Tensor) -> None:
        rows = self.pixels[self.rows[top : top + len(out)]]
        inside = out[:, self.margin : self.width - self.margin]
        white = 1 if rows.is_floating_point() else LARGEST
        if self.levels and white == 1:
            cut_off((rows * LARGEST + 0.5).clamp_(0, LARGEST), out=inside)
        else:
            inside.copy_(rows)
        _fill_border(out.transpose(0, 1), self.margin, self.margin, "reflect", 0)
        if self.noise is not None:
            noise = repeated(self.noise, 0, top, len(out))
            if self.levels:
                out.copy_((out + noise).clamp_(0, LARGEST))
            else:
                out.add_(noise, alpha=white / LARGEST).clamp_(0, white)
        if not self.levels and white != 1:
            out.div_(white)

    def to_levels(self) -> Levels:
        step = torch.full((3,), 1 / LARGEST, device=self.pixels.device)
        self.levels = Levels(step, 0)
        return self.levels


class Convolved:
    """A layer's output: convolved, normalised, and after the ReLU if the layer has one.

    When it is made, the whole image passes through the convolution for the statistics.

    Args:
        layer: the layer.
        source: its input.
        store: keeps the convolution's output; it may be the one that the source reads from.
            Without one the output is computed again with every reading.
        workers: compute the bands.
        int8: convolve 8-bit integers.
    """

    levels = None

    def __init__(
        self,
        layer: Layer,
        source: Features,
        store: Store | None,
        workers: Workers,
        *,
        int8: bool = False,
    ) -> None:
        self.layer, self.source, self.store, self.int8 = layer, source, None, int8
        self.kernel = layer.kernel(source.to_levels() if int8 else None)
        self.height, self.width, self.channels = output_shape(layer, source)
        self.sign = layer.norm.weight.sign()
        self.is_rising = bool((self.sign >= 0).all())
        device = self.sign.device
        row_values = max(self.width * self.channels, source.width * source.channels)
        cuts = bands(self.height, row_values, device, num=workers.num, padding=layer.padding)
        # Allocated first: small tensors that stay, allocated between the bands, would split the
        # space that one band frees, and the next would not fit.
        means, variances, highest = torch.empty(3, len(cuts), self.channels, device=device)
        waiting = None  # the band before is written last, as this one may read some of its input
        results = workers.map(self._compute, cuts)
        for band, (top, values, *statistics) in enumerate(results):
            if store and waiting:
                store.write(*waiting)
            waiting = top, values
            means[band], variances[band], highest[band] = statistics
        if store:
            store.write(*waiting)
            self.store, self.source = store, None

        shares = means.new_tensor([rows / self.height for _, rows in cuts]).unsqueeze(1)
        self.factor, self.summand = layer.norm.affine(*combine_moments(means, variances, shares))
        self.highest = highest.amax(0)

    def read(self, top: int, out: Tensor) -> None:
        rows, factor, summand = len(out), self.factor, self.summand
        if self.levels:
            factor, summand = factor / self.levels.step, summand / self.levels.step
        if self.store:
            fill(out, top, self.store.read(top, rows), factor, summand, relu=self.layer.relu)
        elif self.int8:
            kernel = self.kernel.normalizing(factor, summand, out.dtype)
            out.copy_(self._convolve(top, rows, kernel))
        else:
            parts = [(top, self._convolve(top, rows, self.kernel))]
            fill(out, top, parts, factor, summand, relu=self.layer.relu)

    def to_levels(self) -> Levels:
        high = (self.factor * self.sign * self.highest + self.summand).clamp(min=0)
        self.levels = Levels.between(torch.zeros_like(high), high)
        return self.levels

    def add_to(self, out: Tensor, top: int) -> None:
        """Add the rows from `top` on, less the summand of the normalisation."""
        for first, values in self.store.read(top, len(out)):
            add_scaled(out[first - top : first - top + len(values)], values, self.factor)

    def _compute(self, band: tuple[int, int]) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        """First row and values of a band, and statistics: the mean, the variance, and the highest
        value times the sign of the normalisation's factor.
        """
        values = self._convolve(*band, self.kernel)
        flat = values.flatten(0, 1)
        mean, variance = mean_and_variance(flat)
        highest = mean  # never used
        if self.int8 and self.layer.relu:
            highest = extreme(torch.amax, flat if self.is_rising else flat * self.sign)
        return band[0], values, mean, variance, highest

    def _convolve(self, top: int, rows: int, kernel: Tensor | Int8Kernel) -> Tensor:
        """Rows of the convolution's output, (rows, W, C)."""
        layer, scale = self.layer, self.layer.scale
        first, last = math.floor(top / scale), math.ceil((top + rows) / scale)
        like = layer.conv.weight
        x = padded(self.source, first, last - first, layer.padding, layer.pad_mode, like)
        values = layer.convolve(x, kernel)[0].permute(1, 2, 0)
        skipped = top - int(first * scale)
        return values[skipped : skipped + rows]


class Trunk:
    """The sum that the residual blocks add to.

    Args:
        first: the first summand.
        store: keeps the sum.
        workers: compute the bands.
        int8: to_levels will be called after each addition.
    """

    levels = None

    def __init__(
        self, first: Convolved, store: Store, workers: Workers, *, int8: bool = False
    ) -> None:
        self.height, self.width, self.channels = first.height, first.width, first.channels
        self.store, self.workers, self.int8 = store, workers, int8
        self.like = first.layer.conv.weight
        # The store keeps the sum without an offset: the branches' summands are added up separately.
        self.offset, self.low, self.high = first.factor.new_zeros(3, self.channels)
        self._write(first, is_first=True)

    def add(self, branch: Convolved) -> None:
        """Add a block's output."""
        self._write(branch, is_first=False)
        self.offset = self.offset + branch.summand

    def read(self, top: int, out: Tensor) -> None:
        parts = self.store.read(top, len(out))
        if self.levels:
            factor = 1 / self.levels.step
            fill(out, top, parts, factor, self.offset * factor + self.levels.zero)
        else:
            fill(out, top, parts, torch.ones_like(self.offset), self.offset)

    def to_levels(self) -> Levels:
        self.levels = Levels.between(self.low + self.offset, self.high + self.offset)
        return self.levels

    def _write(self, summand: Convolved, *, is_first: bool) -> None:
        def add(band: tuple[int, int]) -> tuple[int, Tensor, Tensor, Tensor]:
            top, rows = band
            if is_first:
                total = self.like.new_empty(rows, self.width, self.channels)
                summand.read(top, total)
            else:
                ((_, total),) = self.store.read(top, rows)  # the same bands as were written
                summand.add_to(total, top)
            flat = total.flatten(0, 1)
            if self.int8:
                return top, total, extreme(torch.amin, flat), extreme(torch.amax, flat)
            return top, total, self.low, self.high  # never used

        row_values = self.width * self.channels
        cuts = bands(self.height, row_values, self.like.device, num=self.workers.num)
        self.low.fill_(math.inf)
        self.high.fill_(-math.inf)
        for top, total, low, high in self.workers.map(add, cuts):
            self.store.write(top, total)
            torch.minimum(self.low, low, out=self.low)
            torch.maximum(self.high, high, out=self.high)


def bands(
    height: int, row_values: int, device: torch.device, *, num: int, padding: int = 0
) -> list[tuple[int, int]]:
    """First row and number of rows of each band, from top to bottom; as many for each of `num`
    workers.
    """
    most = BAND_VALUES.get(device.type, BAND_VALUES_ELSEWHERE)
    num_bands = num * math.ceil(height * row_values / most / num)
    rows = max(MIN_ROWS, MIN_ROWS * padding, math.ceil(height / num_bands / 4) * 4)
    return [(top, min(rows, height - top)) for top in range(0, height, rows)]


def output_shape(layer: Layer, source: Features) -> tuple[int, int, int]:
    """H, W, C."""
    height, width = (math.ceil(size * layer.scale) for size in (source.height, source.width))
    return height, width, layer.norm.weight.numel()


def padded(source: Features, top: int, rows: int, padding: int, mode: str, like: Tensor) -> Tensor:
    """Rows of a feature map with `padding` more on every side, beyond its border reflected,
    replicated or zero: (1, C, rows + 2 * padding, W + 2 * padding), channels-last.
    """
    # With a batch dimension from the start: with a wrong stride the convolution would copy it all.
    batch = like.new_empty(
        (1, rows + 2 * padding, source.width + 2 * padding, source.channels),
        dtype=torch.uint8 if source.levels else like.dtype,
    )
    x = batch[0]
    first, last = top - padding, top + rows + padding
    inside = slice(max(first, 0) - first, min(last, source.height) - first)
    source.read(max(first, 0), x[inside, padding:-padding])
    zero = source.levels.zero if source.levels else 0
    _fill_border(x, inside.start, len(x) - inside.stop, mode, zero)
    _fill_border(x.transpose(0, 1), padding, padding, mode, zero)
    return batch.permute(0, 3, 1, 2)


def _fill_border(x: Tensor, before: int, after: int, mode: str, zero: int) -> None:
    """Fill the first and the last rows of x from the others."""
    inside = len(x) - before - after
    sources = reflected_indices(inside, before, after) if mode == "reflect" else None
    for i in (*range(before), *range(before + inside, len(x))):
        if mode == "constant":
            x[i] = zero
        elif mode == "reflect":
            x[i] = x[before + int(sources[i])]
        else:
            x[i] = x[min(max(i, before), before + inside - 1)]
