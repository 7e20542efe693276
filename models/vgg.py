"""VGG-19 as a loss network: named features of an image, frozen weights."""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from models.device import dtype_of_maps
from models.frozen_conv import FrozenConv, max_pool
from models.gpu_kernels import triton_kernels

WEIGHTS = Path(__file__).with_name("weights") / "vgg19.safetensors"
CONVS_PER_BLOCK = (2, 2, 4, 4, 4)
CHANNELS_PER_BLOCK = (64, 128, 256, 512, 512)

# The modules of torchvision's `vgg19().features` in order, by the papers' names: index = position.
LAYER_NAMES = tuple(
    name
    for block, num_convs in enumerate(CONVS_PER_BLOCK, start=1)
    for name in (
        *(f"{kind}{block}_{conv}" for conv in range(1, num_convs + 1) for kind in ("conv", "relu")),
        f"pool{block}",
    )
)

# What the weights want to see: RGB means and standard deviations of images in [0, 1].
CAFFE_MEAN, CAFFE_STD = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

POOLINGS = ("max", "average", "l2")
PADDINGS = ("zeros", "replicate")

# Root mean square of max pooling's output over that of the others, pool by pool, on photos.
POOLING_SCALES = {
    "average": {"pool1": 1.18, "pool2": 1.61, "pool3": 1.40, "pool4": 1.95, "pool5": 1.95},
    "l2": {"pool1": 1.15, "pool2": 1.41, "pool3": 1.31, "pool4": 1.57, "pool5": 1.57},
}

FLOAT16_SCALE = 1 / 64  # of the features there, which would exceed its 65504


class VGG19Features(nn.Module):
    """Features of the VGG-19 network, by layer name (Simonyan & Zisserman, arXiv 1409.1556).

    The network ends at the deepest layer asked for, is frozen and stays in evaluation mode.
    The input's scale and channel order are folded into the first convolution; only the mean is
    subtracted from the image, because zero padding comes after the mean.

    Args:
        layers: layer names such as "relu4_2"; see LAYER_NAMES.
        weights: "original" (the authors' Caffe weights, bundled) or "torchvision"
            (VGG19_Weights.IMAGENET1K_V1, downloaded on first use).
        pooling: "max" (as trained), "average" or "l2" (root of the mean square), scaled so that
            features keep about their size.
        padding: of the first convolution, "zeros" (as trained) or "replicate".
        dtype: precision of the convolutions and of the features; in float16 all features are
            FLOAT16_SCALE times as large. With torch.int8 features have the type that dtype_of_maps
            gives, and gradients come from 8-bit integers, on CPUs that have them
            (models.int8.is_exact).
        device: where to compute; the form of the convolutions depends on it, so it cannot be moved.

    Attributes:
        rounded: with dtype torch.int8 features, too, are computed from 8-bit integers, which is
            faster and changes a content loss by less than 1 %; False at first.

    Raises:
        ValueError: unknown layer, weights, pooling or padding.
        OSError: torchvision's weights can be neither found nor downloaded.
    """

    def __init__(
        self,
        layers: Iterable[str],
        *,
        weights: str = "original",
        pooling: str = "max",
        padding: str = "zeros",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling '{pooling}'; choose {', '.join(POOLINGS)}")
        if padding not in PADDINGS:
            raise ValueError(f"unknown padding '{padding}'; choose {', '.join(PADDINGS)}")
        super().__init__()
        self.dtype, self.pooling, self.rounded = dtype_of_maps(dtype), pooling, False
        device = torch.device(device)
        # See max_pool; PyTorch's own is faster elsewhere.
        is_max = pooling == "max"
        self.pools_relu = is_max and (device.type == "cpu" or bool(triton_kernels(device)))
        self.layers = check_layers(layers)
        deepest = max(map(LAYER_NAMES.index, self.layers))
        self.names = LAYER_NAMES[: deepest + 1]

        state, mean, std = _read_weights(weights, [n for n in self.names if n.startswith("conv")])
        first = state["conv1_1.weight"] / torch.tensor(std).view(1, 3, 1, 1)
        state["conv1_1.weight"] = first.flip(1) if weights == "original" else first  # BGR -> RGB
        if dtype == torch.float16:
            _scale_features(state, FLOAT16_SCALE)
        mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)

        self.convs = nn.ModuleDict()
        for name in self.names:
            if name.startswith("conv"):
                self.convs[name] = FrozenConv(
                    state[f"{name}.weight"],
                    state[f"{name}.bias"],
                    dtype=dtype,
                    device=device,
                    padding=padding if name == "conv1_1" else "zeros",
                )
        self.eval()

    def train(self, mode: bool = True) -> "VGG19Features":
        """Stay in evaluation mode: a loss network is never trained."""
        return super().train(False)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Features of an image.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1]; values outside are allowed.
            layers: some of the layers given at construction; all of them by default. The pass ends
                at the deepest one.

        Returns:
            dict from layer name to (B, C, h, w) in the network's dtype. Blocks 1 to 5 have
            64, 128, 256, 512, 512 channels at 1, 1/2, 1/4, 1/8, 1/16 of the size.

        Raises:
            ValueError: the image is too small for the deepest layer.
        """
        return dict(self.by_layer(image, layers))

    def by_layer(
        self, image: Tensor, layers: Iterable[str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """The same, one after the other, as soon as it is computed.

        What is computed of a layer's features before the next are asked for comes at the right
        moment in the backward pass, too: with one loss at the end, the gradients of all layers'
        features are there at once, which takes half as much memory again.
        """
        wanted = set(self.layers if layers is None else layers)
        deepest = max(map(LAYER_NAMES.index, wanted))
        self._check_size(image, wanted)
        x = (image - self.mean).to(self.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for previous, name in zip((None, *self.names), self.names[: deepest + 1], strict=False):
            if name.startswith("conv"):
                # With its ReLU, unless the convolution's own output is asked for. The first one's
                # input is not rounded: it has negative values.
                conv, is_rounded = self.convs[name], self.rounded and previous is not None
                is_pooled = self.pools_relu and _is_pooled(name, wanted)
                x = conv(x, relu=name not in wanted, rounded=is_rounded, pooled=is_pooled)
            elif name.startswith("relu"):
                x = F.relu(x) if previous in wanted else x
            else:
                x = max_pool(x) if self.pools_relu else _pool(x, name, self.pooling)
            if name in wanted:
                yield name, x

    def _check_size(self, image: Tensor, layers: Iterable[str]) -> None:
        """ValueError if an image is too small for one of the layers."""
        min_size = max(map(stride, layers))
        if min(image.shape[-2:]) < min_size:
            height, width = image.shape[-2:]
            raise ValueError(
                f"an image of {width}x{height} px is too small for "
                f"{max(layers, key=LAYER_NAMES.index)}: at least {min_size} px a side are needed"
            )


def check_layers(layers: Iterable[str], name: str = "layers") -> tuple[str, ...]:
    """Layer names, each checked and listed once; ValueError says which one is unknown, and in which
    setting.
    """
    layers = tuple(dict.fromkeys(layers))
    for layer in layers:
        if layer not in LAYER_NAMES:
            raise ValueError(
                f"{name} has an unknown layer '{layer}'; VGG-19 has {', '.join(LAYER_NAMES)}"
            )
    if not layers:
        raise ValueError(f"{name} needs at least one layer")
    return layers


def stride(layer: str) -> int:
    """Pixels of the image for each position of a layer, along a side; a smaller image has no
    features there.
    """
    index = LAYER_NAMES.index(layer)
    return 2 ** sum(name.startswith("pool") for name in LAYER_NAMES[: index + 1])


def num_channels(layer: str) -> int:
    """Features at each position of a layer."""
    block = int(layer.partition("_")[0][-1])
    return CHANNELS_PER_BLOCK[block - 1]


def _is_pooled(conv: str, wanted: Collection[str]) -> bool:
    """Whether a pooling is all that sees the output of a convolution's ReLU."""
    first = LAYER_NAMES.index(conv)
    relu, following = LAYER_NAMES[first + 1 : first + 3]
    return following.startswith("pool") and relu not in wanted


def _pool(x: Tensor, name: str, kind: str) -> Tensor:
    """Halve the size."""
    if kind == "max":
        return F.max_pool2d(x, 2)
    if kind == "average":
        return F.avg_pool2d(x, 2) * POOLING_SCALES[kind][name]
    # The small number keeps the root's gradient finite where all is 0; float16 holds no squares.
    squares = F.avg_pool2d(x.float().square() if x.dtype == torch.float16 else x.square(), 2)
    return (squares + 1e-6).sqrt().to(x.dtype) * POOLING_SCALES[kind][name]


def _read_weights(weights: str, convs: list[str]) -> tuple[dict[str, Tensor], tuple, tuple]:
    """Weights and biases by name, and the RGB mean and standard deviation they expect."""
    if weights == "original":
        return _read_original(convs), CAFFE_MEAN, CAFFE_STD
    if weights == "torchvision":
        return _read_torchvision(convs), IMAGENET_MEAN, IMAGENET_STD
    raise ValueError(f"unknown VGG weights '{weights}'; choose original or torchvision")


def _read_original(convs: list[str]) -> dict[str, Tensor]:
    """Decode the bundled file: each weight is an index into its layer's table of 256 values."""
    state = {}
    with safe_open(WEIGHTS, framework="pt") as file:
        for conv in convs:
            index, table = file.get_tensor(f"{conv}.index"), file.get_tensor(f"{conv}.table")
            state[f"{conv}.weight"] = table[index.int()]
            state[f"{conv}.bias"] = file.get_tensor(f"{conv}.bias")
    return state


def _read_torchvision(convs: list[str]) -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    try:
        stored = VGG19_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except OSError as error:
        raise OSError(
            f"torchvision's VGG-19 weights could not be downloaded ({error}); "
            "the bundled ones need no network: --vgg original"
        ) from error
    state = {
        f"{conv}.{kind}": stored[f"features.{LAYER_NAMES.index(conv)}.{kind}"]
        for conv in convs
        for kind in ("weight", "bias")
    }
    # Standardised images are some 57 times smaller than 0..255 ones, and so are the features.
    _scale_features(state, 255 * sum(IMAGENET_STD) / 3)
    return state


def _scale_features(state: dict[str, Tensor], factor: float) -> None:
    """Multiply all features: ReLU and max pooling pass on a factor of the first convolution."""
    for name in state:
        if name == "conv1_1.weight" or name.endswith(".bias"):
            state[name] = state[name] * factor
