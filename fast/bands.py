"""Running the network on bands of rows: fast, because what is worked on stays in the processor's
cache, and in bounded memory. The result is that of the whole image, up to 8-bit rounding if that is
chosen.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fast.feature_maps import Convolved, Features, Layer, Photo, Trunk, bands, output_shape, padded
from fast.stores import FileStore, MemoryStore, Store
from fast.workers import Workers, one_core_each
from models.transformer_net import TransformerNet

BAND_MEMORY_PER_COLUMN = 40e3  # bytes for each column of the image and each worker


def stylize_in_bands(
    net: TransformerNet,
    image: Tensor,
    write: Callable[[int, Tensor], None],
    *,
    memory: float,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Stylize an image of any size, one layer after the other.

    Args:
        net: the network.
        image: (1, 3, H, W) RGB, float32 in [0, 1] or uint8, on any device.
        write: takes the painting in bands from top to bottom: the first row's number, and
            (1, 3, rows, W) float32 RGB around [0, 1].
        memory: bytes that feature maps and bands may take. The maps of the trunk lie in temporary
            files if it is not enough for them; others are computed anew, up to three times, and
            those that are quickly computed in any case.
        progress: called now and then with the share of the work that was done since the last call.

    Raises:
        OSError: there is no room for temporary files.
    """
    like = net.to_rgb.weight
    for_band = BAND_MEMORY_PER_COLUMN * image.shape[3]
    most_workers = torch.get_num_threads() if like.device.type == "cpu" else 1
    num_workers = int(max(1, min(most_workers, memory / 4 / for_band)))
    memory -= num_workers * for_band
    # Every layer passes over its bands once, and so do the sums in the trunk.
    passes = len(net.encoder) + 1 + 3 * len(net.trunk) + len(net.decoder) + 1
    report = progress and (lambda share: progress(share / passes))
    with one_core_each(num_workers, report) as workers:
        features = _last_features(net, image, memory, workers)
        kernel = net.to_rgb.kernel(features.to_levels() if net.int8 else None)
        (height, width), stride = image.shape[-2:], net.stem_stride

        def paint(band: tuple[int, int]) -> tuple[int, Tensor]:
            top, rows = band
            first, some = (net.margin + top) // stride, math.ceil(rows / stride)
            x = padded(features, first, some, net.padding, "reflect", like)
            x = net.to_image(net.to_rgb.convolve(x, kernel))
            return top, x[..., :rows, net.margin : net.margin + width]

        row_values = features.width * features.channels
        cuts = bands(height, row_values, like.device, num=workers.num, padding=net.padding)
        for top, painting in workers.map(paint, cuts):
            write(top, painting)


def _last_features(net: TransformerNet, image: Tensor, memory: float, workers: Workers) -> Features:
    """All layers but the last convolution."""
    like, int8 = net.to_rgb.weight, net.int8

    def convolved(layer: Layer, source: Features, *, int8: bool = False) -> Convolved:
        shape = output_shape(layer, source)
        # Beside it lies, at one time, a map of half the size: its input or its output.
        fits = 1.5 * math.prod(shape) * like.element_size() <= memory
        # As integers it is sooner computed again than written and read in full size.
        is_cheap = int8 and shape[1] >= image.shape[3]
        store = MemoryStore() if fits and not is_cheap else None
        return Convolved(layer, source, store, workers, int8=int8)

    features: Features = convolved(net.encoder[0], Photo(image, net.margin, net.noise), int8=int8)
    features = convolved(net.encoder[1], features)

    shape = output_shape(net.encoder[-1], features)
    fits = 2 * math.prod(shape) * like.element_size() <= memory

    def new_store() -> Store:
        return MemoryStore() if fits else FileStore(shape, like)

    features = Convolved(net.encoder[-1], features, new_store(), workers)
    trunk = Trunk(features, new_store(), workers, int8=int8)
    del features  # and its store
    inner = new_store()
    for block in net.trunk:
        first = Convolved(block.conv1, trunk, inner, workers, int8=int8)
        trunk.add(Convolved(block.conv2, first, inner, workers, int8=int8))
    features = trunk
    del trunk, inner, first
    for layer in net.decoder:
        features = convolved(layer, features, int8=int8)
    return features
