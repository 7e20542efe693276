"""The layers of the transformer network, each in the form that is fastest on a device."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import winograd
from models.few_channels import FEW, ConvFromFew, ConvToFew, shifted
from models.instance_norm import InstanceNorm
from models.int8 import Int8Kernel, Levels
from models.learned_conv import learned_int8_conv
from models.padding import reflect, repeat_border
from models.regroup import from_blocks, in_blocks, interleaved, sum_of_shares

# Pixels that the last convolution computes at a time on the CPU, with whole numbers and in
# bfloat16, where oneDNN makes mistakes with wider kernels.
BLOCKS = {torch.int8: 4, torch.bfloat16: 2}


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

    def forward(self, x: Tensor, summand: Tensor | None = None) -> Tensor:
        """Of (B, in, H, W); another map of the output's size is added if given."""
        x = reflect(x, self.padding)
        if self._is_winograd(x.dtype) and not self.int8:
            x = winograd.learned_winograd_conv(x, self.conv.weight)
        else:
            x = _conv2d(x, self.conv.weight, stride=self.conv.stride, int8=self.int8)
        return self.norm(x, relu=self.relu, summand=summand)

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
        return self.conv2(self.conv1(x), summand=x)


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
        x = F.pad(x, (1, 1, 1, 1)) if self.transposed else repeat_border(x)
        return self.norm(self.convolve(x, self.kernel()), relu=True)

    def kernel(self, levels: Levels | None = None) -> Tensor | Int8Kernel:
        """The weights of the four convolutions: (4 * out, in, 2, 2)."""
        weight = self.conv.weight
        # (out, in, 3, 3) -> (row phase, column phase, out, in, 2, 2)
        phases = torch.einsum("pai,qbj,ocij->pqocab", self.taps, self.taps, weight.float())
        phases = phases.flatten(0, 2)
        return Int8Kernel.on(levels, phases) if levels else phases.to(weight.dtype)

    def convolve(self, x: Tensor, kernel: Tensor | Int8Kernel) -> Tensor:
        """Up-sample and convolve an input that is padded by one px."""
        # Output row 2h + p, column 2w + q is phase (p, q) at h + p, w + q.
        return interleaved(_conv2d(x, kernel, int8=self.int8))


class RowConv2d(nn.Conv2d):
    """A convolution with few output channels, computed with as many times more as it has rows.

    Libraries compute 16 or more output channels at a time, however few there are. So each row of
    the kernel gets output channels of its own, and the rows' results are shifted and added up; on a
    GPU, if there are only few, as ConvToFew says.

    With whole numbers and, in prediction on the CPU, in bfloat16, where the convolution takes less
    time than the sum, some pixels of a row are computed as one with as many times more channels,
    from kernels that are shifted. There the output's width has to be a multiple of their number
    (BLOCKS), in training the input's, too, and the kernel's width one more than a multiple.
    """

    int8 = False  # see TransformerNet.use_int8

    def forward(self, x: Tensor) -> Tensor:
        if self._is_to_few():
            return self.convolve(x, ConvToFew(self.weight.to(x.dtype)))
        if self.int8 and not torch.compiler.is_compiling():
            block = BLOCKS[torch.int8]
            kernel = in_blocks(shifted(self.weight, pixels=block), block)
            x = from_blocks(learned_int8_conv(in_blocks(x, block), kernel), len(self.weight))
            return x + self.bias.view(1, -1, 1, 1)
        kernel = _rows(self.weight)
        if kernel.is_cuda:  # whole vectors of output channels, or cuDNN leaves the matrix units
            kernel = F.pad(kernel, (0, 0, 0, 0, 0, 0, 0, -len(kernel) % 16))
        return self.convolve(x, kernel)

    def kernel(self, levels: Levels | None = None) -> Tensor | Int8Kernel | ConvToFew:
        """The weights as `convolve` takes them, for an input of numbers if it has levels: those of
        the rows, (rows * out, in, 1, columns), or of blocks, (n * out, in, rows, columns + n - 1).
        """
        if self._is_to_few():
            return ConvToFew(self.weight)
        block = BLOCKS.get(torch.int8 if levels else self.weight.dtype)
        if not block or self.weight.device.type != "cpu":
            return _rows(self.weight)
        kernel = shifted(self.weight, pixels=block)
        return Int8Kernel.on(levels, kernel, stride=(1, block)) if levels else kernel

    def _is_to_few(self) -> bool:
        return self.weight.is_cuda and len(self.weight) < FEW

    def convolve(self, x: Tensor, kernel: Tensor | Int8Kernel | ConvToFew) -> Tensor:
        """Convolve a padded input."""
        out, _, rows, _ = self.weight.shape
        if isinstance(kernel, ConvToFew):
            x = kernel(x)
        elif isinstance(kernel, Int8Kernel) or kernel.shape[2] > 1:
            stride = (1, 1) if isinstance(kernel, Int8Kernel) else (1, len(kernel) // out)
            x = from_blocks(_conv2d(x, kernel, stride=stride), out)
        else:
            x = sum_of_shares(_conv2d(x, kernel), rows, out)
        return x + self.bias.view(1, -1, 1, 1)


def _rows(weight: Tensor) -> Tensor:
    return weight.permute(2, 0, 1, 3).flatten(0, 1).unsqueeze(2)


def _conv2d(
    x: Tensor, kernel: Tensor | Int8Kernel, *, stride: tuple[int, int] = (1, 1), int8: bool = False
) -> Tensor:
    if isinstance(kernel, Int8Kernel):
        return kernel.convolve(x)
    if int8 and not torch.compiler.is_compiling():
        return learned_int8_conv(x, kernel)
    kernel = kernel.to(x.dtype)
    if x.is_cuda and x.shape[1] < FEW:
        return ConvFromFew(kernel, stride=stride)(x)
    return F.conv2d(x, kernel, stride=stride)
