"""An image divided into blocks with halos, so that each block's features are those of the whole.

Each position of a layer belongs to exactly one block. Around a block lies a halo of all pixels that
its features depend on.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from models.vgg import LAYER_NAMES, stride

Span = tuple[int, int]  # the first one and the one after the last


def halo(layers: Iterable[str]) -> int:
    """Pixels around a block that its features depend on, rounded up to the deepest stride.

    80 for relu5_1, whose receptive field is 156 px wide: 70 px on either side of 16.
    """
    deepest = max(layers, key=LAYER_NAMES.index)
    names = LAYER_NAMES[: LAYER_NAMES.index(deepest) + 1]
    reach = sum(stride(name) for name in names if name.startswith("conv"))
    return _rounded_up(reach, stride(deepest))


@dataclass(frozen=True)
class Tile:
    """A block of an image with its halo.

    Args:
        block: rows and columns of the block in px.
        outer: those with the halo, which ends at the image's borders.
        size: height and width of the image in px.
    """

    block: tuple[Span, Span]
    outer: tuple[Span, Span]
    size: tuple[int, int]

    def crop(self, image: Tensor) -> Tensor:
        """The pixels of block and halo: a view of (..., H, W)."""
        (top, bottom), (left, right) = self.outer
        return image[..., top:bottom, left:right]

    def inside(self, features: Tensor, layer: str) -> Tensor:
        """The block's positions, of a layer's features of the crop: a view."""
        (top, _), (left, _) = self.outer
        return self._positions(features, layer, top, left)

    def of_whole(self, features: Tensor, layer: str) -> Tensor:
        """The block's positions, of a layer's features of the whole image: a view."""
        return self._positions(features, layer, 0, 0)

    def share(self, layer: str) -> float:
        """The block's positions as a share of the whole image's."""
        rows, columns = self._spans(layer)
        total = (self.size[0] // stride(layer)) * (self.size[1] // stride(layer))
        return (rows[1] - rows[0]) * (columns[1] - columns[0]) / total

    def _spans(self, layer: str) -> tuple[Span, Span]:
        return tuple((start // stride(layer), end // stride(layer)) for start, end in self.block)

    def _positions(self, features: Tensor, layer: str, top: int, left: int) -> Tensor:
        rows, columns = self._spans(layer)
        top, left = top // stride(layer), left // stride(layer)
        return features[..., rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]


def split(size: tuple[int, int], side: int, layers: Iterable[str]) -> list[Tile]:
    """Divide an image into blocks of about equal size.

    Args:
        size: height and width of the image in px, large enough for the layers.
        side: longest side of a block in px, rounded to a multiple of the deepest stride.
        layers: those that are to be computed.
    """
    layers = tuple(layers)
    step, margin = max(map(stride, layers)), halo(layers)
    rows, columns = (_divide(length, side, step, margin) for length in size)
    return [
        Tile((block_rows, block_columns), (outer_rows, outer_columns), tuple(size))
        for block_rows, outer_rows in rows
        for block_columns, outer_columns in columns
    ]


def _divide(length: int, side: int, step: int, margin: int) -> list[tuple[Span, Span]]:
    """Blocks along one side, each without and with its halo.

    They begin at multiples of the deepest stride, where pooling of a crop and of the whole image
    agree; at the image's own borders both are padded alike. What is left over at the end, less than
    a position of the deepest layer, belongs to the last block.
    """
    positions = length // step
    num_blocks = max(-(-positions // max(side // step, 1)), 1)
    starts = [step * (positions * number // num_blocks) for number in range(num_blocks)]
    return [
        ((start, end), (max(start - margin, 0), min(end + margin, length)))
        for start, end in zip(starts, [*starts[1:], length], strict=True)
    ]


def _rounded_up(value: int, step: int) -> int:
    return -(-value // step) * step
