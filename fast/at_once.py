"""A whole image at once, on a GPU."""

import math
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from torch import Tensor

from fast.recording import Recording
from models.transformer_net import TransformerNet, with_margin

MAPS = 8  # of the image's size, with 32 channels or the network's width, in memory at one time
FEW = 2  # images of a size in a row that are painted without a recording, which takes longer


@dataclass
class _Last:
    """What a network painted last."""

    key: tuple
    times: int = 0
    recording: Recording | None = None


_last: WeakKeyDictionary[TransformerNet, _Last] = WeakKeyDictionary()


def fits_at_once(net: TransformerNet, photo: Tensor, memory: float) -> bool:
    """Whether so many bytes on the network's device are enough for all feature maps of a photo."""
    last = _last.get(net)
    if last and last.recording and last.key == _key(net, photo):
        return True
    pixels = math.prod(side + 2 * net.margin for side in photo.shape[-2:])
    width = max(net.arguments["width"], 32)
    return MAPS * pixels * width * net.to_rgb.weight.element_size() < memory


def paint_at_once(net: TransformerNet, photo: Tensor) -> Tensor:
    """Stylize a photo; the frames of a video, of one size, are painted by a CUDA graph.

    Args:
        net: network from `load_net`, on CUDA.
        photo: (1, 3, H, W) float32 RGB in [0, 1] on the network's device.

    Returns:
        (1, 3, H, W) float32 RGB around [0, 1], until the next call with this network.
    """
    last, key = _last.get(net), _key(net, photo)
    if last is None or last.key != key:
        last = _last[net] = _Last(key)  # the memory of another recording is free from here on
    last.times += 1
    paint = partial(with_margin, net, margin=net.margin)
    # An image smaller than the margin is reflected by indices that come from the CPU.
    is_plain = min(photo.shape[-2:]) > net.margin and not net.to_rgb.weight.requires_grad
    if not last.recording and last.times > FEW and is_plain:
        last.times = 0  # where memory is too short for it, not to try again with each
        last.recording = Recording(paint, photo)
    return last.recording(photo) if last.recording else paint(photo)


def _key(net: TransformerNet, photo: Tensor) -> tuple:
    weight = net.to_rgb.weight
    return photo.shape, net.margin, weight.dtype, weight.data_ptr()
