"""Loading a trained style and running it on images."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fast.bandwise import as_bytes, as_float
from media.colors import keep_colors
from models.checkpoint import read_checkpoint
from models.device import pick_device, pick_precision
from models.transformer_net import TransformerNet, reflect

# px around an image that are painted and cut off. The loss network pads with zeros, in which the
# style image's border leaves traces; so trained networks paint a line of 2 px along the border.
MARGIN = 8
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def find_model(name: str) -> Path:
    """The file of a model: a path as it is, a bare name in checkpoints/, with or without ".pth".

    Raises:
        FileNotFoundError: there is no such model; the message lists those there are.
    """
    candidates = [Path(name), CHECKPOINTS / name, CHECKPOINTS / f"{name}.pth"]
    for path in candidates:
        if path.is_file():
            return path
    models = ", ".join(sorted(path.stem for path in CHECKPOINTS.glob("*.pth"))) or "none"
    raise FileNotFoundError(f"there is no model '{name}'; in checkpoints/ there are: {models}")


def load_net(
    model: str | Path, *, device: str | None = None, precision: str = "auto"
) -> TransformerNet:
    """The network of a trained style, ready to run.

    Args:
        model: path of a `.pth`, or the bare name of one in checkpoints/.
        device: "cpu", "cuda", "mps"...; the best there is by default.
        precision: of the convolutions: "float32", "bfloat16", "float16", or "auto" for the fastest
            that is safe. Statistics are float32 in any case.

    Raises:
        OSError: there is no such file.
        ValueError: the file is not a checkpoint, or device or precision cannot be used.
    """
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    path = find_model(str(model))
    checkpoint = read_checkpoint(path)
    try:
        net = checkpoint.build().requires_grad_(False)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return set_precision(net.to(where), dtype)


def set_precision(net: TransformerNet, dtype: torch.dtype) -> TransformerNet:
    """Convert the convolutions; the parameters of the normalisation stay float32."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return net


@torch.inference_mode()
def stylize(net: TransformerNet, image: Tensor, *, preserve_color: bool = False) -> Tensor:
    """Stylize images in one forward pass.

    Args:
        net: network from `load_net`.
        image: (B, 3, H, W) RGB, float32 in [0, 1] or uint8, any size, on any device.
        preserve_color: the painting's brightness with the image's colours.

    Returns:
        (B, 3, H, W) RGB of the image's kind, on the network's device.
    """
    photo = as_float(image.to(net.device))
    painting = net(reflect(photo, *(MARGIN,) * 4))[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
    if preserve_color:  # before clamping, which would change the brightness
        painting = keep_colors(painting, photo)
    painting = painting.clamp(0, 1)
    return as_bytes(painting) if image.dtype == torch.uint8 else painting
