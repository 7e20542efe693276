"""Networks that other projects trained, as weights of a TransformerNet.

They are the same network but for the names of its layers, the kind of up-sampling and what the
numbers of an image mean. A range of values, an order of channels and a normalisation are factors of
the first and the last convolution's weights; an offset of the input is removed by the instance
normalisation behind the first convolution, as is every other bias but the last. So what comes out
is what the other project's program would paint.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.transformer_net import OUTPUT_SCALE, TransformerNet

LAYERS = ("encoder.0", "encoder.1", "encoder.2", "decoder.0", "decoder.1")
UP_CONVS = ("decoder.0.conv.weight", "decoder.1.conv.weight")


@dataclass(frozen=True, kw_only=True)
class Project:
    """How a project names the layers, and what its network takes and gives.

    Args:
        name: of the repository.
        convs, norms: names of our LAYERS' convolutions and normalisations.
        block_conv, block_norm: those of a residual block: {block} from 0 or 1 on, {layer} 1 or 2.
        first_block: number of the first residual block.
        to_rgb: the last convolution.
        mean, std: its images are (RGB in [0, 1] - mean) / std.
        bgr: their channels are blue, green, red.
        transposed, sigmoid: as for TransformerNet; the sigmoid's result is in [0, 1].
        unused: parameters that its network has, but does not use.
    """

    name: str
    convs: tuple[str, ...]
    norms: tuple[str, ...]
    block_conv: str
    block_norm: str
    first_block: int
    to_rgb: str
    mean: tuple[float, ...] = (0, 0, 0)
    std: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)
    bgr: bool = False
    transposed: bool = False
    sigmoid: bool = False
    unused: tuple[str, ...] = ()


PROJECTS = (
    Project(
        name="pytorch/examples",
        convs=("conv1.conv2d", "conv2.conv2d", "conv3.conv2d", "deconv1.conv2d", "deconv2.conv2d"),
        norms=("in1", "in2", "in3", "in4", "in5"),
        block_conv="res{block}.conv{layer}.conv2d",
        block_norm="res{block}.in{layer}",
        first_block=1,
        to_rgb="deconv3.conv2d",
    ),
    Project(
        name="gordicaleksa/pytorch-neural-style-transfer-johnson",
        convs=(
            "conv1.conv2d",
            "conv2.conv2d",
            "conv3.conv2d",
            "up1.conv2d.conv2d",
            "up2.conv2d.conv2d",
        ),
        norms=("in1", "in2", "in3", "in4", "in5"),
        block_conv="res{block}.conv{layer}.conv2d",
        block_norm="res{block}.in{layer}",
        first_block=1,
        to_rgb="up3.conv2d",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    Project(
        name="rrmina/fast-neural-style-pytorch",
        convs=(
            "ConvBlock.0.conv_layer",
            "ConvBlock.2.conv_layer",
            "ConvBlock.4.conv_layer",
            "DeconvBlock.0.conv_transpose",
            "DeconvBlock.2.conv_transpose",
        ),
        norms=(
            "ConvBlock.0.norm_layer",
            "ConvBlock.2.norm_layer",
            "ConvBlock.4.norm_layer",
            "DeconvBlock.0.norm_layer",
            "DeconvBlock.2.norm_layer",
        ),
        block_conv="ResidualBlock.{block}.conv{layer}.conv_layer",
        block_norm="ResidualBlock.{block}.conv{layer}.norm_layer",
        first_block=0,
        # A variant of theirs ends in a tanh; its file looks the same and is painted without.
        to_rgb="DeconvBlock.4.conv_layer",
        bgr=True,
        transposed=True,
    ),
    Project(
        name="iSach/clipmorph",
        convs=(
            "convBlock.0.conv2d",
            "convBlock.3.conv2d",
            "convBlock.6.conv2d",
            "convTransBlock.0.convTrans",
            "convTransBlock.3.convTrans",
        ),
        norms=(
            "convBlock.1",
            "convBlock.4",
            "convBlock.7",
            "convTransBlock.1",
            "convTransBlock.4",
        ),
        block_conv="residualBlock.{block}.conv{layer}.conv2d",
        block_norm="residualBlock.{block}.in{layer}",
        first_block=0,
        to_rgb="convTransBlock.6.conv2d",
        std=(1, 1, 1),  # it takes 0 to 255, but divides by 255 itself
        transposed=True,
        sigmoid=True,
        unused=("normalization.weight", "normalization.bias"),
    ),
)


def from_other_project(theirs: dict[str, Any]) -> tuple[str, dict[str, int], dict[str, Tensor]]:
    """Recognise a state dict by its names.

    Args:
        theirs: name -> weights, as another project's program saved them.

    Returns:
        The project's name, the arguments of the TransformerNet and its weights.

    Raises:
        ValueError: it is of no project known here, or incomplete; the message says what it is.
    """
    theirs = {str(name): value for name, value in theirs.items()}
    project = max(PROJECTS, key=lambda p: len(_names(p, 1).values() & theirs.keys()))
    names = _names(project, 1).values()
    if 2 * len(names & theirs.keys()) < len(names):
        known = ", ".join(p.name for p in PROJECTS)
        held = ", ".join(list(theirs)[:3]) or "nothing"
        raise ValueError(f"it is no checkpoint of this project nor of {known}; it holds {held}")

    num_blocks = _num_blocks(project, theirs)
    names = _names(project, num_blocks)
    _check_names(project, theirs, set(names.values()))
    arguments = {
        "width": max(1, theirs[names["encoder.0.conv.weight"]].numel() // (3 * 9 * 9)),
        "num_blocks": num_blocks,
        "margin": 0,  # their programs paint the bare image
        "grain": 0,
        "transposed": project.transposed,
        "sigmoid": project.sigmoid,
    }
    _check_shapes(project, theirs, names, arguments)
    weights = {ours: theirs[name].float() for ours, name in names.items()}
    if project.transposed:
        for name in UP_CONVS:  # (in, out, 3, 3) to (out, in, 3, 3)
            weights[name] = weights[name].transpose(0, 1)
    return project.name, arguments, _fold_convention(project, weights)


def _names(project: Project, num_blocks: int) -> dict[str, str]:
    """Name of each of our parameters -> its name in the project."""
    layers = list(zip(LAYERS, project.convs, project.norms, strict=True))
    pairs = [(f"{ours}.conv", conv, f"{ours}.norm", norm) for ours, conv, norm in layers]
    for block in range(num_blocks):
        for layer in (1, 2):
            ours, number = f"trunk.{block}.conv{layer}", block + project.first_block
            conv = project.block_conv.format(block=number, layer=layer)
            norm = project.block_norm.format(block=number, layer=layer)
            pairs.append((f"{ours}.conv", conv, f"{ours}.norm", norm))

    names = {}
    for our_conv, conv, our_norm, norm in pairs:
        names[f"{our_conv}.weight"] = f"{conv}.weight"
        names[f"{our_norm}.weight"] = f"{norm}.weight"
        names[f"{our_norm}.bias"] = f"{norm}.bias"
    for kind in ("weight", "bias"):
        names[f"to_rgb.{kind}"] = f"{project.to_rgb}.{kind}"
    return names


def _num_blocks(project: Project, theirs: dict[str, Any]) -> int:
    """The last residual block of which there is a convolution, at least 1."""
    start = re.escape(project.block_conv.partition("{layer}")[0])
    pattern = re.compile(start.replace(r"\{block\}", r"(\d{1,3})"))
    found = [int(match[1]) for name in theirs if (match := pattern.match(name))]
    return max(1, max(found, default=0) - project.first_block + 1)


def _check_names(project: Project, theirs: dict[str, Any], wanted: set[str]) -> None:
    missing = sorted(wanted - theirs.keys())
    if missing:
        raise ValueError(f"it is a network of {project.name}, but {_some(missing)} missing")
    # The biases of all convolutions but the last have no effect, nor have the statistics that
    # PyTorch 0.3 saved.
    biases = {name.removesuffix("weight") + "bias" for name in wanted}
    unknown = [
        name
        for name in theirs.keys() - wanted - biases - set(project.unused)
        if not name.endswith((".running_mean", ".running_var"))
    ]
    if unknown:
        raise ValueError(
            f"it is like a network of {project.name}, but {_some(sorted(unknown))} unknown there"
        )
    for name in wanted:
        if not isinstance(theirs[name], Tensor) or not theirs[name].is_floating_point():
            raise ValueError(
                f"it is like a network of {project.name}, but {name} is no tensor of real numbers"
            )


def _check_shapes(
    project: Project, theirs: dict[str, Tensor], names: dict[str, str], arguments: dict[str, int]
) -> None:
    with torch.device("meta"):  # nothing is allocated
        shapes = {n: tuple(w.shape) for n, w in TransformerNet(**arguments).state_dict().items()}
    for ours, name in names.items():
        shape, wanted = tuple(theirs[name].shape), shapes[ours]
        if project.transposed and ours in UP_CONVS:
            wanted = (wanted[1], wanted[0], *wanted[2:])
        if shape != wanted:
            raise ValueError(
                f"it is like a network of {project.name}, but {name} is of shape {shape}, not "
                f"{wanted}"
            )


def _fold_convention(project: Project, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the first convolution take RGB in [0, 1] and the last one give what to_rgb gives."""
    order = [2, 1, 0] if project.bgr else [0, 1, 2]
    std, mean = torch.tensor(project.std), torch.tensor(project.mean)
    first = weights["encoder.0.conv.weight"][:, order] / std.view(1, 3, 1, 1)
    weight, bias = weights["to_rgb.weight"][order], weights["to_rgb.bias"][order]
    if not project.sigmoid:
        # The net's output is 0.5 + OUTPUT_SCALE * x.
        weight, bias = weight * std.view(3, 1, 1, 1), bias * std + mean - 0.5
    return weights | {
        "encoder.0.conv.weight": first,
        "to_rgb.weight": weight / OUTPUT_SCALE,
        "to_rgb.bias": bias / OUTPUT_SCALE,
    }


def _some(names: list[str]) -> str:
    """The first names and how many more, with the verb."""
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
