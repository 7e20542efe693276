"""Loading a trained style and running it on images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fast.at_once import fits_at_once, forget, forget_others, paint_at_once
from fast.bands import stylize_in_bands
from fast.catalogue import find_model
from media import as_bytes, as_float
from media.colors import keep_colors
from models.checkpoint import read_network
from models.device import pick_device, pick_precision
from models.memory import free_memory, is_out_of_memory, release_pages, taken_memory
from models.transformer_net import TransformerNet

SMALLEST_MEMORY = 1e6  # bytes; less makes no difference


def load_net(
    model: str | Path, *, device: str | None = None, precision: str = "auto"
) -> TransformerNet:
    """The network of a trained style, ready to run.

    Args:
        model: path of a `.pth`, or the bare name of one in checkpoints/.
        device: "cpu", "cuda", "mps"...; the best there is by default.
        precision: of the convolutions: "float32", "bfloat16", "float16", "int8", or "auto" for the
            fastest that is safe. Statistics are float32 in any case.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not a checkpoint, or device or precision cannot be used.
    """
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    path = find_model(str(model))
    _, net = read_network(path)
    return set_precision(net.requires_grad_(False).to(where), dtype)


def set_precision(net: TransformerNet, dtype: torch.dtype) -> TransformerNet:
    """Convert the convolutions; the parameters of the normalisation stay float32, and with
    torch.int8 all of them.
    """
    net.use_int8(dtype == torch.int8)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(torch.float32 if net.int8 else dtype)
    return net


def stylize(
    net: TransformerNet,
    image: Tensor,
    *,
    preserve_color: bool = False,
    max_memory: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Stylize images in one forward pass: as a whole on a CUDA GPU that has the memory, elsewhere
    in bands of rows.

    Args:
        net: network from `load_net`.
        image: (B, 3, H, W) RGB, float32 in [0, 1] or uint8, any size, on any device.
        preserve_color: the painting's brightness with the image's colours.
        max_memory: bytes that the process may take in all, on the network's device. By default
            half of those that are free besides those it has. It is slower the less there is.
        progress: called now and then with the share of the work that was done since the last call,
            a negative one where it has to be done again.

    Returns:
        (B, 3, H, W) RGB of the image's kind, on its device.

    Raises:
        MemoryError: there is not even memory for a band.
        OSError: there is no room for temporary files.
    """
    # Not made in inference mode, so that it can be changed and used with gradients.
    painting = torch.empty_like(image)
    report = progress and (lambda share: progress(share / len(image)))
    with torch.inference_mode():
        for photo, painted in zip(image.split(1), painting.split(1), strict=True):
            write = _writer(photo, painted, preserve_color)
            forget_others(net, photo)  # before the free memory is measured
            memory = _memory_for_features(net.device, photo, max_memory)
            while not _paint_within(net, photo, write, memory, report):
                if not memory:
                    raise MemoryError(f"not enough memory for {photo.shape[3]}x{photo.shape[2]} px")
                memory = memory / 4 if memory > SMALLEST_MEMORY else 0
    if max_memory is not None:
        release_pages()  # for what comes after
    return painting


def _memory_for_features(device: torch.device, photo: Tensor, max_memory: float | None) -> float:
    if max_memory is None:
        return free_memory(device) / 2
    release_pages()
    others = taken_memory(device) + photo.nbytes
    return max(0, max_memory - others)


def _paint_within(
    net: TransformerNet,
    photo: Tensor,
    write: Callable[[int, Tensor], None],
    memory: float,
    progress: Callable[[float], None] | None,
) -> bool:
    """Stylize a photo; False if the memory was not enough after all."""
    done = 0.0

    def report(share: float) -> None:
        nonlocal done
        done += share
        if progress:
            progress(share)

    try:
        # A GPU has no use for bands, whose many small kernels take longer to launch than to run.
        if net.device.type == "cuda" and fits_at_once(net, photo, memory):
            write(0, paint_at_once(net, as_float(photo.to(net.device))))
            report(1)
        else:
            stylize_in_bands(net, photo, write, memory=memory, progress=report)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        forget(net)
        report(-done)
        return False
    return True


def _writer(photo: Tensor, painting: Tensor, preserve_color: bool) -> Callable[[int, Tensor], None]:
    """What puts bands of float RGB into a painting of either kind."""

    def write(top: int, band: Tensor) -> None:
        rows = slice(top, top + band.shape[2])
        if preserve_color:  # before clamping, which would change the brightness
            band = keep_colors(band, as_float(photo[..., rows, :].to(band.device)))
        band = band.clamp_(0, 1)
        painting[..., rows, :] = as_bytes(band) if painting.dtype == torch.uint8 else band

    return write
