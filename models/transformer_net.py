"""Johnson's image transformation network (no relation to attention)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import winograd
from models.instance_norm import InstanceNorm
from models.int8 import Int8Kernel, Levels
from models.learned_conv import learned_int8_conv

# The last convolution works in units of 5 grey levels: Adam moves all of its weights, 2592 for a
# value at width 32, by about the learning rate at once; in units of the whole range it overshoots.
OUTPUT_SCALE = 5 / 255
BLOCK = 4  # px that the last convolution computes at a time with whole numbers


class TransformerNet(nn.Module):
    """Stylizes an image of any size in one forward pass (Johnson et al., arXiv 1603.08155).

    Three convolutions reduce the image to a quarter of its size, residual blocks work there, two
    up-convolutions bring it back. Departures from the paper: affine instance normalisation
    (Ulyanov et al., arXiv 1607.08022) instead of batch normalisation; reflection padding
    everywhere; nearest up-sampling and a convolution instead of a transposed convolution, which
    leaves a checkerboard; a linear output, because a scaled tanh saturates into white blobs that
    no gradient reaches.

    Networks that other projects trained have no margin, and some are transposed or end in a
    sigmoid.

    Args:
        width: channels of the first layer; the trunk has four times as many.
        num_blocks: residual blocks.
        margin: px around an image that fast/bands.py has painted and cuts off, for networks trained
            here paint a line of 2 px along the border: the loss network pads with zeros, in which
            the style image's border leaves traces.
        transposed: up-sample by transposed convolutions.
        sigmoid: end in a sigmoid instead of a linear output.

    Raises:
        ValueError: width or num_blocks is not positive, or the margin is not from 0 to 64.
    """

    padding = 4  # px, of the input of the last convolution
    int8 = False  # see use_int8

    def __init__(
        self,
        *,
        width: int = 32,
        num_blocks: int = 5,
        margin: int = 8,
        transposed: bool = False,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if width < 1 or num_blocks < 1:
            raise ValueError(
                f"width and num_blocks must be 1 or more, not {width} and {num_blocks}"
            )
        if not 0 <= margin <= 64:
            raise ValueError(f"the margin must be from 0 to 64 px, not {margin}")
        self.arguments = {
            "width": width,
            "num_blocks": num_blocks,
            "margin": margin,
            "transposed": transposed,
            "sigmoid": sigmoid,
        }
        self.margin = margin
        self.sigmoid = sigmoid
        self.encoder = nn.Sequential(
            ConvLayer(3, width, kernel_size=9),
            ConvLayer(width, 2 * width, kernel_size=3, stride=2),
            ConvLayer(2 * width, 4 * width, kernel_size=3, stride=2),
        )
        self.trunk = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(num_blocks)))
        self.decoder = nn.Sequential(
            UpsampleConvLayer(4 * width, 2 * width, transposed=transposed),
            UpsampleConvLayer(2 * width, width, transposed=transposed),
        )
        self.to_rgb = RowConv2d(width, 3, kernel_size=9)
        self.to(memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.to_rgb.weight.device

    def use_int8(self, use: bool = True) -> None:
        """Compute in 8-bit integers on the CPU all layers but the encoder's second and third, in
        training with both gradients what comes after the encoder (not with torch.compile).

        The error of those two would be larger than that of all other layers together.
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
        device, dtype = image.device.type, self.to_rgb.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x = image.to(dtype).contiguous(memory_format=torch.channels_last)
        # All feature maps in that type; autocast itself would pad and normalise in float32.
        with torch.autocast(device, enabled=False):
            # The strides round up, so that the result is a multiple of 4 px high and wide.
            x = self.decoder(self.trunk(self.encoder(x)))
            x = self.to_rgb(reflect(x, *(self.padding,) * 4))
            return self.to_image(x)[..., :height, :width]

    def to_image(self, x: Tensor) -> Tensor:
        """The last convolution's output -> float32 RGB around [0, 1]."""
        x = OUTPUT_SCALE * x.float()
        return x.sigmoid() if self.sigmoid else 0.5 + x


class ConvLayer(nn.Module):
    """Reflection padding, convolution, instance normalisation, ReLU (optional).

    Each layer says what it is made of, for fast/feature_maps.py runs it on bands: how the input is
    padded, how many rows and columns of the output come from one of the input (`scale`), and the
    convolution by itself, with its weights in the form that it takes (`kernel`).
    """

    pad_mode = "reflect"
    int8 = False  # see TransformerNet.use_int8

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        # No bias: the normalisation that follows would remove it.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, bias=False)
        self.norm = InstanceNorm(out_channels)
        self.padding = kernel_size // 2
        self.scale = 1 / stride
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = reflect(x, *(self.padding,) * 4)
        weight = self.conv.weight.to(x.dtype)
        if self._is_winograd(x.dtype) and not self.int8:
            x = winograd.learned_winograd_conv(x, weight)
        else:
            x = _conv2d(x, weight, stride=self.conv.stride, int8=self.int8)
        x = self.norm(x)
        return F.relu(x, inplace=True) if self.relu else x

    def _is_winograd(self, dtype: torch.dtype) -> bool:
        weight = self.conv.weight
        return self.scale == 1 and winograd.pays(weight.device, dtype, weight)

    def kernel(self, levels: Levels | None = None) -> Tensor | Int8Kernel:
        """The weights as `convolve` takes them, for an input of numbers if it has levels."""
        weight = self.conv.weight
        if levels:
            return Int8Kernel.on(levels, weight, stride=self.conv.stride)
        return winograd.winograd_kernel(weight) if self._is_winograd(weight.dtype) else weight

    def convolve(self, x: Tensor, kernel: Tensor | Int8Kernel) -> Tensor:
        """Convolve a padded input; no gradient reaches the weights."""
        if not isinstance(kernel, Int8Kernel) and self._is_winograd(x.dtype):
            return winograd.winograd_conv3x3(x, kernel, padding=0)
        return _conv2d(x, kernel, stride=self.conv.stride)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity; no ReLU after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvLayer(channels, channels, kernel_size=3)
        self.conv2 = ConvLayer(channels, channels, kernel_size=3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x))


# Which of a kernel's 3 taps fall on the first and on the second source pixel, for even and odd
# outputs: of nearest up-sampling and a convolution, and of a transposed convolution.
_NEAREST_TAPS = [[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]
_TRANSPOSED_TAPS = [[[0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 0]]]


class UpsampleConvLayer(nn.Module):
    """Nearest up-sampling by 2, reflection padding, 3x3 convolution, instance normalisation, ReLU.

    Computed as four 2x2 convolutions of the small image, one for each position of an output pixel
    in its 2x2 block: the up-sampled image only repeats pixels, so taps that fall on the same one
    are added up beforehand. The result is the same for 4/9 of the multiplications and without the
    large padded image. A 3x3 transposed convolution of stride 2, padding 1 and output padding 1 is
    the same with fewer taps, and zeros around the image.
    """

    padding, scale, relu = 1, 2, True
    int8 = False  # see TransformerNet.use_int8

    def __init__(self, in_channels: int, out_channels: int, *, transposed: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, bias=False)
        self.norm = InstanceNorm(out_channels)
        self.transposed = transposed
        # Reflecting the up-sampled image at its border repeats the small image's border pixel.
        self.pad_mode = "constant" if transposed else "replicate"
        taps = _TRANSPOSED_TAPS if transposed else _NEAREST_TAPS
        self.register_buffer("taps", torch.tensor(taps, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1)) if self.transposed else _repeat_border(x)
        return F.relu(self.norm(self.convolve(x, self.kernel().to(x.dtype))), inplace=True)

    def kernel(self, levels: Levels | None = None) -> Tensor | Int8Kernel:
        """The weights of the four convolutions: (4 * out, in, 2, 2)."""
        weight = self.conv.weight
        # (out, in, 3, 3) -> (row phase, column phase, out, in, 2, 2)
        phases = torch.einsum("pai,qbj,ocij->pqocab", self.taps, self.taps, weight.float())
        phases = phases.flatten(0, 2)
        return Int8Kernel.on(levels, phases) if levels else phases.to(weight.dtype)

    def convolve(self, x: Tensor, kernel: Tensor | Int8Kernel) -> Tensor:
        """Up-sample and convolve an input that is padded by one px."""
        batch, _, height, width = x.shape
        height, width = height - 2, width - 2
        x = _conv2d(x, kernel, int8=self.int8)  # (B, 4 * out, H + 1, W + 1)
        # Output row 2h + p, column 2w + q is phase (p, q) at h + p, w + q.
        x = x.permute(0, 2, 3, 1).contiguous()
        out, (image, row, column, _) = x.shape[-1] // 4, x.stride()
        x = _Regroup.apply(
            x,
            (batch, height, 2, width, 2, out),
            (image, row, row + 2 * out, column, column + out, 1),
        )
        return x.reshape(batch, 2 * height, 2 * width, out).permute(0, 3, 1, 2)


class RowConv2d(nn.Conv2d):
    """A convolution with few output channels, computed with as many times more as it has rows.

    Libraries compute 16 or more output channels at a time, however few there are. So each row of
    the kernel gets output channels of its own, and the rows' results are shifted and added up.

    With whole numbers, for which the convolution itself takes less time than the sum, four pixels
    of a row are computed as one with four times as many channels, from kernels that are shifted.
    The output's width has to be a multiple of 4 then.
    """

    int8 = False  # see TransformerNet.use_int8

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel().to(x.dtype)
        if self.int8:  # whole vectors of output channels: the gradient's levels are found faster
            kernel = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, -len(kernel) % 16))
        return self.convolve(x, kernel)

    def kernel(self, levels: Levels | None = None) -> Tensor | Int8Kernel:
        """The weights of the rows: (rows * out, in, 1, columns), or for an input of numbers those
        of blocks of pixels: (4 * out, in, rows, columns + 3).
        """
        if levels:
            shifted = [F.pad(self.weight, (i, BLOCK - 1 - i)) for i in range(BLOCK)]
            return Int8Kernel.on(levels, torch.cat(shifted), stride=(1, BLOCK))
        return self.weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)

    def convolve(self, x: Tensor, kernel: Tensor | Int8Kernel) -> Tensor:
        """Convolve a padded input."""
        if isinstance(kernel, Int8Kernel):
            x = kernel.convolve(x).permute(0, 2, 3, 1)  # (B, H, W / 4, 4 * out)
            x = x.unflatten(3, (BLOCK, -1)).flatten(2, 3).permute(0, 3, 1, 2)
            return x + self.bias.view(1, -1, 1, 1)
        out, _, rows, _ = self.weight.shape
        x = _conv2d(x, kernel, int8=self.int8)
        x = x.permute(0, 2, 3, 1).contiguous()  # (B, H, W, rows * out)
        batch, height, width, _ = x.shape
        image, row, column, _ = x.stride()
        x = _Regroup.apply(
            x, (batch, height - rows + 1, width, out, rows), (image, row, column, 1, row + out)
        )
        return x.sum(-1).permute(0, 3, 1, 2) + self.bias.view(1, -1, 1, 1)


def _conv2d(
    x: Tensor, kernel: Tensor | Int8Kernel, *, stride: tuple[int, int] = (1, 1), int8: bool = False
) -> Tensor:
    if isinstance(kernel, Int8Kernel):
        return kernel.convolve(x)
    if int8 and not torch.compiler.is_compiling():
        return learned_int8_conv(x, kernel)
    return F.conv2d(x, kernel, stride=stride)


class _Regroup(torch.autograd.Function):
    """Tensor.as_strided of a contiguous tensor for a view that has no element twice; the backward
    pass is one copy, where the general one of PyTorch looks for overlaps.
    """

    @staticmethod
    def forward(ctx, x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        ctx.shape, ctx.view = x.shape, (size, stride)
        return x.as_strided(size, stride)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        grad_x = grad.new_zeros(ctx.shape)
        grad_x.as_strided(*ctx.view).copy_(grad)
        return grad_x, None, None


def _repeat_border(x: Tensor) -> Tensor:
    """Padding by one px that repeats the border."""
    if torch.compiler.is_compiling():  # inductor fails at the gradient of F.pad's replication
        x = torch.cat((x[:, :, :1], x, x[:, :, -1:]), dim=2)
        return torch.cat((x[..., :1], x, x[..., -1:]), dim=3)
    return F.pad(x, (1, 1, 1, 1), mode="replicate")


def reflect(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Reflection padding in px; an image smaller than the padding is reflected to and fro."""
    height, width = x.shape[-2:]
    if max(left, right) < width and max(top, bottom) < height:
        return F.pad(x, (left, right, top, bottom), mode="reflect")
    rows = reflected_indices(height, top, bottom).to(x.device)
    columns = reflected_indices(width, left, right).to(x.device)
    return x[:, :, rows][:, :, :, columns]


def reflected_indices(size: int, before: int, after: int) -> Tensor:
    """Positions -before...size + after - 1, folded back into 0...size - 1."""
    period = max(1, 2 * size - 2)
    position = torch.arange(-before, size + after) % period
    return torch.minimum(position, period - position) if size > 1 else torch.zeros_like(position)
