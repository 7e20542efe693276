"""Johnson's image transformation network (no relation to attention)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.grain import GRAIN, add_grain, make_noise
from models.layers import ConvLayer, ResidualBlock, RowConv2d, UpsampleConvLayer
from models.padding import reflect

# The last convolution works in units of 5 grey levels: Adam moves all of its weights, 2592 for a
# value at width 32, by about the learning rate at once; in units of the whole range it overshoots.
OUTPUT_SCALE = 5 / 255

# A network learns to paint stars in a row or a line along the border, the only place of a plain sky
# that it can tell from others. They reach some 40 px into what it paints, and are cut off.
MARGIN = 40


def with_margin(net: Callable[[Tensor], Tensor], image: Tensor, margin: int) -> Tensor:
    """Stylize (B, 3, H, W) with so many px of the reflected image around it, which are cut off."""
    height, width = image.shape[-2:]
    painting = net(reflect(image, margin))
    return painting[..., margin : margin + height, margin : margin + width]


class TransformerNet(nn.Module):
    """Stylizes an image of any size in one forward pass (Johnson et al., arXiv 1603.08155).

    Three convolutions reduce the image to a quarter of its size, residual blocks work there, two
    up-convolutions bring it back. Departures from the paper: affine instance normalisation
    (Ulyanov et al., arXiv 1607.08022) instead of batch normalisation; reflection padding
    everywhere; nearest up-sampling and a convolution instead of a transposed convolution, which
    leaves a checkerboard; a linear output, because a scaled tanh saturates into white blobs that
    no gradient reaches; a margin and grain around and on the image.

    Networks that other projects trained have neither margin nor grain, and some are transposed or
    end in a sigmoid.

    Args:
        width: channels of the first layer; the trunk has four times as many.
        num_blocks: residual blocks.
        margin: px around an image that are painted, too, and cut off, see with_margin.
        grain: noise that an image gets in grey levels at most, see models/grain.py.
        transposed: up-sample by transposed convolutions.
        sigmoid: end in a sigmoid instead of a linear output.
        stem_stride: of the first convolution, 1 or 2. With 2 no layer works at the image's full
            size: the last convolution computes four pixels at each position (sub-pixel convolution,
            Shi et al., arXiv 1609.05158), in a third of the time.

    Raises:
        ValueError: width or num_blocks is not positive, margin or grain is not from 0 to 64, the
            stem_stride is not 1 or 2, or the margin no multiple of it.
    """

    int8 = False  # see use_int8

    def __init__(
        self,
        *,
        width: int = 32,
        num_blocks: int = 5,
        margin: int = MARGIN,
        grain: int = GRAIN,
        transposed: bool = False,
        sigmoid: bool = False,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        if width < 1 or num_blocks < 1:
            raise ValueError(
                f"width and num_blocks must be 1 or more, not {width} and {num_blocks}"
            )
        if not 0 <= margin <= 64:
            raise ValueError(f"the margin must be from 0 to 64 px, not {margin}")
        if not 0 <= grain <= 64:
            raise ValueError(f"the grain must be from 0 to 64 grey levels, not {grain}")
        if stem_stride not in (1, 2) or margin % stem_stride:
            raise ValueError(
                f"stem_stride must be 1 or 2 and divide the margin, {margin}, not {stem_stride}"
            )
        self.arguments = {
            "width": width,
            "num_blocks": num_blocks,
            "margin": margin,
            "grain": grain,
            "transposed": transposed,
            "sigmoid": sigmoid,
            "stem_stride": stem_stride,
        }
        self.margin = margin
        self.register_buffer("noise", make_noise(grain), persistent=False)
        self.sigmoid = sigmoid
        self.stem_stride = stem_stride
        self.encoder = nn.Sequential(
            ConvLayer(3, width, kernel_size=9, stride=stem_stride),
            ConvLayer(width, 2 * width, kernel_size=3, stride=2),
            ConvLayer(2 * width, 4 * width, kernel_size=3, stride=2),
        )
        self.trunk = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(num_blocks)))
        self.decoder = nn.Sequential(
            UpsampleConvLayer(4 * width, 2 * width, transposed=transposed),
            UpsampleConvLayer(2 * width, width, transposed=transposed),
        )
        kernel_size = 9 if stem_stride == 1 else 5
        self.to_rgb = RowConv2d(width, 3 * stem_stride**2, kernel_size=kernel_size)
        self.padding = kernel_size // 2  # of the input of the last convolution
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.to_rgb.weight.device

    @property
    def period(self) -> int:
        """Px by which a photo must move for its painting to move along, but for borders."""
        return 4 * self.stem_stride

    def use_int8(self, use: bool = True) -> None:
        """Compute in 8-bit integers on the CPU, not with torch.compile.

        In prediction this holds for all layers but the encoder's second and third, whose error
        would be larger than that of all others together; in training for what comes after the
        encoder, its gradients too.
        """
        self.int8 = use
        layers = [layer for block in self.trunk for layer in (block.conv1, block.conv2)]
        for layer in (*layers, *self.decoder, self.to_rgb):
            layer.int8 = use

    def forward(self, image: Tensor) -> Tensor:
        """Stylize images.

        Args:
            image: (B, 3, H, W) RGB in [0, 1], any size from 1x1.

        Returns:
            (B, 3, H, W) float32 RGB around [0, 1]; clamp before showing.
        """
        height, width = image.shape[-2:]
        kind, dtype = image.device.type, self.to_rgb.weight.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        x = add_grain(image, self.noise).to(dtype).contiguous(memory_format=torch.channels_last)
        # All feature maps in that type; autocast itself would pad and normalise in float32.
        with torch.autocast(kind, enabled=False):
            # The strides round up: the result is some px higher and wider.
            x = self.decoder(self.trunk(self.encoder(x)))
            x = self.to_rgb(reflect(x, self.padding))
            return self.to_image(x)[..., :height, :width]

    def to_image(self, x: Tensor) -> Tensor:
        """The last convolution's output -> float32 RGB around [0, 1], of the image's size."""
        x = F.pixel_shuffle(OUTPUT_SCALE * x.float(), self.stem_stride)
        return x.sigmoid() if self.sigmoid else 0.5 + x
