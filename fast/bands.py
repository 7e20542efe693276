"""Running the network on bands of rows: fast, because what is worked on stays in the processor's
cache, and in bounded memory. The result is that of the whole image.

Instance normalisation needs the statistics of a whole feature map before the first of its values is
known. So the image passes through one layer after the other; in between, the feature map, not yet
normalised, waits in a store, or, where memory is short, is computed anew when it is needed.
"""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from fast.stores import FileStore, MemoryStore, Store
from models.transformer_net import ConvLayer, TransformerNet, UpsampleConvLayer, reflected_indices

Layer = ConvLayer | UpsampleConvLayer

# Values of a feature map that are worked on at a time: on the CPU 4 MB, with which a photo of 1024
# px was painted fastest.
BAND_VALUES = {"cpu": 2**20}
BAND_VALUES_ELSEWHERE = 2**25
# Rows of a band for each px of padding: the rows that it shares with its neighbours are to be few.
MIN_ROWS = 8


class Features(Protocol):
    """A feature map of which rows can be had."""

    height: int
    width: int
    channels: int

    def read(self, top: int, out: Tensor) -> None:
        """Fill `out` (rows, W, C) with the rows from `top` on."""


def stylize_in_bands(
    net: TransformerNet,
    image: Tensor,
    write: Callable[[int, Tensor], None],
    *,
    memory: float,
) -> None:
    """Stylize an image of any size.

    Args:
        net: the network.
        image: (1, 3, H, W) RGB, float32 in [0, 1] or uint8, on any device.
        write: takes the painting in bands from top to bottom: the first row's number, and
            (1, 3, rows, W) float32 RGB around [0, 1].
        memory: bytes that feature maps may take. Those of the trunk lie in temporary files if it
            is not enough for them; others are computed anew, up to three times.

    Raises:
        OSError: there is no room for temporary files.
    """
    like = net.to_rgb.weight

    def convolved(layer: Layer, source: Features) -> _Convolved:
        shape = _output_shape(layer, source)
        # Beside it lies, at one time, a map of half the size: its input or its output.
        fits = 1.5 * math.prod(shape) * like.element_size() <= memory
        return _Convolved(layer, source, MemoryStore(shape, like) if fits else None)

    margin = net.margin
    features: Features = _Photo(image, margin)
    for layer in net.encoder[:-1]:
        features = convolved(layer, features)

    shape = _output_shape(net.encoder[-1], features)
    fits = 2 * math.prod(shape) * like.element_size() <= memory
    total, inner = ((MemoryStore if fits else FileStore)(shape, like) for _ in range(2))
    features = trunk = _Trunk(_Convolved(net.encoder[-1], features, total))
    for block in net.trunk:
        first = _Convolved(block.conv1, trunk, inner)
        trunk.add(_Convolved(block.conv2, first, inner))
    trunk.finish()
    del inner, first

    for layer in net.decoder:
        features = convolved(layer, features)
    height, width = image.shape[-2:]
    for top, rows in _bands(height, features.width * features.channels, like.device, net.padding):
        x = _padded(features, margin + top, rows, net.padding, "reflect", like)
        write(top, net.to_image(x)[..., margin : margin + width])


class _Photo:
    """An image with a reflected margin."""

    channels = 3

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


class _Convolved:
    """A layer's output: convolved, normalised, and after the ReLU if the layer has one.

    When it is made, the whole image passes through the convolution for the statistics.

    Args:
        layer: the layer.
        source: its input.
        store: keeps the convolution's output; it may be the one that the source reads from.
            Without one the output is computed again with every reading.
    """

    def __init__(self, layer: Layer, source: Features, store: Store | None) -> None:
        self.layer, self.source, self.store = layer, source, None
        self.kernel = layer.kernel()
        self.height, self.width, self.channels = _output_shape(layer, source)
        device = self.kernel.device
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        sum_, sum_of_squares = torch.zeros(2, self.channels, dtype=exact, device=device)
        waiting = None  # the band before is written last, as this one may read some of its input
        row_values = max(self.width * self.channels, source.width * source.channels)
        for top, rows in _bands(self.height, row_values, device, layer.padding):
            values = self._convolve(top, rows)
            if store and waiting:
                store.write(*waiting)
            waiting = top, values
            values = values.flatten(0, 1).float()
            ones = values.new_ones(1, len(values))  # a product is the fastest way to sum rows
            sum_ += (ones @ values)[0]
            sum_of_squares += (ones @ values.square())[0]
        if store:
            store.write(*waiting)
            self.store, self.source = store, None

        mean, square = (total / (self.height * self.width) for total in (sum_, sum_of_squares))
        variance = (square - mean.square()).clamp(min=0)
        self.factor, self.summand = layer.norm.affine(mean.float(), variance.float())

    def read(self, top: int, out: Tensor) -> None:
        rows = len(out)
        values = self.store.read(top, rows) if self.store else self._convolve(top, rows)
        torch.addcmul(self.summand, values, self.factor, out=out)
        if self.layer.relu:
            out.clamp_(min=0)

    def _convolve(self, top: int, rows: int) -> Tensor:
        """Rows of the convolution's output, (rows, W, C)."""
        layer, scale = self.layer, self.layer.scale
        first, last = math.floor(top / scale), math.ceil((top + rows) / scale)
        x = _padded(self.source, first, last - first, layer.padding, layer.pad_mode, self.kernel)
        values = layer.convolve(x, self.kernel)[0].permute(1, 2, 0)
        skipped = top - int(first * scale)
        return values[skipped : skipped + rows]


class _Trunk:
    """The sum that the residual blocks add to, in the store of its first summand.

    A block's output is added to rows when they are first asked for, while they are in the cache.
    """

    def __init__(self, first: _Convolved) -> None:
        self.height, self.width, self.channels = first.height, first.width, first.channels
        self.store, self.branch, self.num_added = first.store, None, self.height
        for top, rows in self._bands():
            total = self.store.read(top, rows)
            first.read(top, total)
            self.store.write(top, total)

    def add(self, branch: _Convolved) -> None:
        """Add a block's output; all rows with the one before must have been read."""
        self.branch, self.num_added = branch, 0

    def finish(self) -> None:
        """Add the rest of the last block's output, and let go of it."""
        for top, rows in self._bands():
            self._add_until(top + rows)
        self.branch = None

    def read(self, top: int, out: Tensor) -> None:
        self._add_until(top + len(out))
        out.copy_(self.store.read(top, len(out)))

    def _bands(self) -> Iterator[tuple[int, int]]:
        return _bands(self.height, self.width * self.channels, torch.device("cpu"))

    def _add_until(self, end: int) -> None:
        top, rows = self.num_added, end - self.num_added
        if rows > 0:
            total = self.store.read(top, rows)
            summand = torch.empty_like(total)
            self.branch.read(top, summand)
            self.store.write(top, total.add_(summand))
            self.num_added = end


def _bands(
    height: int, row_values: int, device: torch.device, padding: int = 0
) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each band, from top to bottom."""
    most = BAND_VALUES.get(device.type, BAND_VALUES_ELSEWHERE)
    rows = max(MIN_ROWS, MIN_ROWS * padding, most // row_values // 4 * 4)
    return ((top, min(rows, height - top)) for top in range(0, height, rows))


def _output_shape(layer: Layer, source: Features) -> tuple[int, int, int]:
    """H, W, C."""
    height, width = (math.ceil(size * layer.scale) for size in (source.height, source.width))
    return height, width, layer.norm.weight.numel()


def _padded(source: Features, top: int, rows: int, padding: int, mode: str, like: Tensor) -> Tensor:
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
    _fill_border(x, inside.start, len(x) - inside.stop, mode)
    _fill_border(x.transpose(0, 1), padding, padding, mode)
    return batch.permute(0, 3, 1, 2)


def _fill_border(x: Tensor, before: int, after: int, mode: str) -> None:
    """Fill the first and the last rows of x from the others."""
    inside = len(x) - before - after
    sources = reflected_indices(inside, before, after) if mode == "reflect" else None
    for i in (*range(before), *range(before + inside, len(x))):
        if mode == "constant":
            x[i] = 0
        elif mode == "reflect":
            x[i] = x[before + int(sources[i])]
        else:
            x[i] = x[min(max(i, before), before + inside - 1)]
