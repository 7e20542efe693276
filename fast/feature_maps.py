"""Feature maps of which rows can be had: the photo, a layer's output, the residual blocks' sum.

Each is computed in bands of rows, several at once. Instance normalisation needs the statistics of a
whole map before the first of its values is known; so a layer's output waits, not yet normalised, in
a store, or, where memory is short, is computed anew when it is needed.
"""

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from fast.stores import Store
from fast.workers import Workers
from models.int8 import Levels
from models.transformer_net import ConvLayer, UpsampleConvLayer, reflected_indices

Layer = ConvLayer | UpsampleConvLayer

# Values of a feature map that are worked on at a time: on the CPU 8 MB, with which a photo of 1024
# px was painted fastest.
BAND_VALUES = {"cpu": 2**21}
BAND_VALUES_ELSEWHERE = 2**25
# Rows of a band for each px of padding: the rows that it shares with its neighbours are to be few.
MIN_ROWS = 8


class Features(Protocol):
    """A feature map of which rows can be had."""

    height: int
    width: int
    channels: int
    zero: float  # what `read` gives for 0

    def read(self, top: int, out: Tensor) -> None:
        """Fill `out` (rows, W, C) with the rows from `top` on."""

    def to_levels(self) -> Levels:
        """From now on `read` gives each value's number among these levels plus 0.5, so that cutting
        off the fraction rounds it. To be asked for once, and never of a layer without ReLU.
        """


class Photo:
    """An image with a reflected margin, in [0, 1]; it has no levels."""

    channels = 3
    zero = 0.0

    def __init__(self, image: Tensor, margin: int) -> None:
        self.pixels = image[0].permute(1, 2, 0)  # (H, W, 3)
        self.rows, self.columns = (
            reflected_indices(size, margin, margin).to(image.device) for size in image.shape[-2:]
        )
        self.height, self.width = len(self.rows), len(self.columns)

    def read(self, top: int, out: Tensor) -> None:
        out.copy_(self.pixels[self.rows[top : top + len(out)]][:, self.columns])
        if self.pixels.dtype == torch.uint8:
            out.div_(255)


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

    zero = 0.0

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
        # Made beforehand: small tensors that stay, made in between, would split the room that one
        # band leaves so that the next does not fit.
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
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        self.factor, self.summand = layer.norm.affine(mean, variance)
        self.highest = highest.amax(0)

    def read(self, top: int, out: Tensor) -> None:
        if self.store:
            parts = self.store.read(top, len(out))
        else:
            parts = [(top, self._convolve(top, len(out)))]
        _copy(parts, top, out, self.factor, self.summand)
        if self.layer.relu:
            out.clamp_(min=0)

    def to_levels(self) -> Levels:
        high = (self.factor * self.sign * self.highest + self.summand).clamp(min=0)
        levels = Levels.between(torch.zeros_like(high), high)
        self.zero = levels.zero + 0.5
        self.factor = self.factor / levels.step
        self.summand = self.summand / levels.step + self.zero
        return levels

    def _compute(self, band: tuple[int, int]) -> tuple[int, Tensor, Tensor, Tensor, Tensor]:
        """First row and values of a band, and statistics: the mean, the variance, and the highest
        value times the sign of the normalisation's factor.
        """
        values = self._convolve(*band)
        flat = values.flatten(0, 1).float()
        mean, variance = _mean_and_variance(flat)
        highest = mean  # nobody will ask for it
        if self.int8 and self.layer.relu:
            highest = (flat if self.is_rising else flat * self.sign).amax(0)
        return band[0], values, mean, variance, highest

    def _convolve(self, top: int, rows: int) -> Tensor:
        """Rows of the convolution's output, (rows, W, C)."""
        layer, scale = self.layer, self.layer.scale
        first, last = math.floor(top / scale), math.ceil((top + rows) / scale)
        like = layer.conv.weight
        x = padded(self.source, first, last - first, layer.padding, layer.pad_mode, like)
        values = layer.convolve(x, self.kernel)[0].permute(1, 2, 0)
        skipped = top - int(first * scale)
        return values[skipped : skipped + rows]


class Trunk:
    """The sum that the residual blocks add to.

    Args:
        first: the first summand.
        store: keeps the sum.
        workers: compute the bands.
        int8: its levels will be asked for, after each addition.
    """

    zero = 0.0

    def __init__(
        self, first: Convolved, store: Store, workers: Workers, *, int8: bool = False
    ) -> None:
        self.height, self.width, self.channels = first.height, first.width, first.channels
        self.store, self.workers, self.int8 = store, workers, int8
        self.like = first.layer.conv.weight
        self.factor, self.summand = self.like.new_ones(()), self.like.new_zeros(())
        self.low, self.high = first.factor.new_empty(2, self.channels)
        self._write(first, is_first=True)

    def add(self, branch: Convolved) -> None:
        """Add a block's output."""
        self._write(branch, is_first=False)

    def read(self, top: int, out: Tensor) -> None:
        _copy(self.store.read(top, len(out)), top, out, self.factor, self.summand)

    def to_levels(self) -> Levels:
        levels = Levels.between(self.low, self.high)
        self.zero = levels.zero + 0.5
        self.factor, self.summand = 1 / levels.step, self.like.new_tensor(self.zero)
        return levels

    def _write(self, summand: Convolved, *, is_first: bool) -> None:
        def add(band: tuple[int, int]) -> tuple[int, Tensor, Tensor, Tensor]:
            top, rows = band
            total = self.like.new_empty(rows, self.width, self.channels)
            summand.read(top, total)
            if not is_first:
                ((_, before),) = self.store.read(top, rows)  # the same bands as were written
                total += before
            flat = total.flatten(0, 1)
            if self.int8:
                return top, total, flat.amin(0), flat.amax(0)
            return top, total, self.low, self.high  # nobody will ask for them

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
    # With the batch's dimension from the start: a wrong stride there, and the convolution would
    # copy it all.
    batch = like.new_empty(1, rows + 2 * padding, source.width + 2 * padding, source.channels)
    x = batch[0]
    first, last = top - padding, top + rows + padding
    inside = slice(max(first, 0) - first, min(last, source.height) - first)
    source.read(max(first, 0), x[inside, padding:-padding])
    _fill_border(x, inside.start, len(x) - inside.stop, mode, source.zero)
    _fill_border(x.transpose(0, 1), padding, padding, mode, source.zero)
    return batch.permute(0, 3, 1, 2)


def _fill_border(x: Tensor, before: int, after: int, mode: str, zero: float) -> None:
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


def _copy(
    parts: Iterable[tuple[int, Tensor]], top: int, out: Tensor, factor: Tensor, summand: Tensor
) -> None:
    """Fill rows from `top` on with a store's parts, times the factor plus the summand."""
    for first, values in parts:
        rows = out[first - top : first - top + len(values)]
        torch.addcmul(summand, values, factor, out=rows)


def _mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, C), channel by channel."""
    if values.device.type == "cpu":  # several times as fast there
        image = values.view(1, len(values), 1, -1).permute(0, 3, 1, 2)
        return torch.batch_norm_update_stats(image, None, None, 0.0)
    variance, mean = torch.var_mean(values, dim=0, correction=0)
    return mean, variance
