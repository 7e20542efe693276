"""A whole image at once, on a GPU."""

import math
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fast.recording import Recording
from models.transformer_net import TransformerNet, with_margin

MAPS = 8  # of the image's size, with 32 channels or the network's width, in memory at one time
# The first two images of a size in a row are painted directly; recording pays only for more.
UNRECORDED = 2
SMALLEST = 8  # px; a smaller image is reflected by indices, which come from the CPU


@dataclass
class _Last:
    """What a network painted last: images of which kind, how many in a row, by which recording."""

    kind: tuple
    count: int = 0
    recording: Recording | None = None


_last: WeakKeyDictionary[TransformerNet, _Last] = WeakKeyDictionary()


def fits_at_once(net: TransformerNet, photo: Tensor, memory: float) -> bool:
    """Whether so many bytes on the network's device are enough for all feature maps of a photo."""
    last = _last.get(net)
    if last and last.recording and last.kind == _kind(net, photo):
        return True  # it has its memory
    pixels = math.prod(side + 2 * net.margin for side in photo.shape[-2:])
    width = max(net.arguments["width"], 32)
    return MAPS * pixels * width * net.to_rgb.weight.element_size() < memory


def forget_others(net: TransformerNet, photo: Tensor) -> None:
    """Give back the memory of a recording that is not for photos of this size; else it counts as
    taken until the photo is painted.
    """
    if net in _last and _last[net].kind != _kind(net, photo):
        forget(net)


def forget(net: TransformerNet) -> None:
    """Give back the memory of a network's recording, if there is one."""
    last = _last.pop(net, None)
    if last and last.recording:
        del last
        torch.cuda.empty_cache()


def paint_at_once(net: TransformerNet, photo: Tensor) -> Tensor:
    """Stylize a photo; from the third of a size in a row on by a CUDA graph.

    Args:
        net: network from `load_net`, on CUDA; one in training is never recorded.
        photo: (1, 3, H, W) float32 RGB in [0, 1] on the network's device.

    Returns:
        (1, 3, H, W) float32 RGB around [0, 1], until the next call with this network.
    """
    forget_others(net, photo)
    last = _last.setdefault(net, _Last(_kind(net, photo)))
    last.count += 1
    paint = partial(with_margin, net, margin=net.margin)
    can_be_recorded = min(photo.shape[-2:]) > max(net.margin, SMALLEST)
    in_training = net.to_rgb.weight.requires_grad
    if last.count == UNRECORDED + 1 and can_be_recorded and not in_training:
        last.recording = Recording(paint, photo)
    return last.recording(photo) if last.recording else paint(photo)


def _kind(net: TransformerNet, photo: Tensor) -> tuple:
    """All that a recording depends on but the photo's values."""
    tensors = tuple(tensor.data_ptr() for tensor in (*net.parameters(), *net.buffers()))
    return photo.shape, net.margin, net.to_rgb.weight.dtype, tensors
