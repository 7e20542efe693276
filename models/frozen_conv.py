"""A 3x3 convolution of the loss network: frozen weights, and a gradient for its input."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import winograd
from models.device import dtype_of_maps
from models.few_channels import FEW, ConvFromFew, ConvToFew
from models.fused_conv import fused_conv, fuses
from models.gpu_kernels import triton_kernels
from models.int8 import ZERO, Int8Kernel, quantize
from models.padding import repeat_border


class FrozenConv(nn.Module):
    """A 3x3 convolution that keeps the size, in the form that is fastest on a device.

    Args:
        weight: (O, I, 3, 3) float32.
        bias: (O,) float32.
        dtype: of input and output; with torch.int8 they have the type that dtype_of_maps gives, and
            gradients, and if asked for values, come from 8-bit integers.
        device: where to compute.
        padding: by a px, with "zeros" or "replicate".
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        self.replicate = padding == "replicate"
        self.padding = 0 if self.replicate else 1
        self.int8 = dtype == torch.int8
        dtype = dtype_of_maps(dtype)
        self.is_winograd = winograd.pays(device, dtype, weight)
        self.is_fused = fuses(device, dtype)
        mirrored = winograd.mirrored(weight)
        if self.int8:
            padding, gradient_padding = (self.padding,) * 2, (2 - self.padding,) * 2
            self.int8_kernel = Int8Kernel(weight, zero=0, padding=padding, dtype=dtype)
            self.gradient_kernel = Int8Kernel(
                mirrored, zero=ZERO, padding=gradient_padding, dtype=dtype
            )
        elif self.is_fused:
            self._keep("gradient_kernel", _channels_last(mirrored, device, dtype))
        elif self.is_winograd:
            self._keep("gradient_kernel", winograd.winograd_kernel(mirrored))
        if self.is_winograd:
            self._keep("kernel", winograd.winograd_kernel(weight))
        else:
            self._keep("kernel", _channels_last(weight, device, dtype))
        self._keep("bias", bias.to(device, dtype))
        # Set for the first convolution, whose input is an image, on a GPU.
        self.from_few, self.to_few = None, None
        if self.is_fused and self.kernel.is_cuda and weight.shape[1] < FEW:
            self.from_few = ConvFromFew(self.kernel, self.bias, padding=self.padding)
            self.to_few = ConvToFew(self.gradient_kernel, padding=2 - self.padding)

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def forward(
        self, x: Tensor, *, relu: bool = False, rounded: bool = False, pooled: bool = False
    ) -> Tensor:
        """(B, I, H, W) -> (B, O, H, W).

        Args:
            x: not negative if it may be rounded.
            relu: with a ReLU after it.
            rounded: from 8-bit integers, with dtype torch.int8.
            pooled: max_pool, and nothing else, follows; its gradient is that of the ReLU already.
        """
        if self.replicate:
            x = repeat_border(x)
        if self.is_winograd or self.is_fused or self.int8:
            return _Convolution.apply(x, self, relu, rounded, pooled)
        return self.convolve(x, relu=relu)

    def convolve(self, x: Tensor, *, relu: bool = False, rounded: bool = False) -> Tensor:
        """Convolve a padded image."""
        if rounded and self.int8:
            return self.int8_kernel.convolve(*quantize(x, zero=0), self.bias, relu=relu)
        if self.from_few:
            return self.from_few(x, relu=relu)
        if self.is_fused:
            return fused_conv(x, self.kernel, self.bias, padding=self.padding, relu=relu)
        if self.is_winograd:
            x = winograd.winograd_conv3x3(x, self.kernel, self.bias, padding=self.padding)
        else:
            x = F.conv2d(x, self.kernel, self.bias, padding=self.padding)
        return F.relu(x, inplace=True) if relu else x

    def gradient(self, grad: Tensor, output: Tensor | None) -> Tensor:
        """The padded image's gradient from that of the output, which is given after a ReLU."""
        if self.int8:
            return self.gradient_kernel.convolve(*quantize(grad, where=output))
        if output is not None:
            grad = torch.ops.aten.threshold_backward(grad, output, 0)
        if self.to_few:
            return self.to_few(grad)
        if self.is_fused:
            return fused_conv(grad, self.gradient_kernel, padding=2 - self.padding)
        return winograd.winograd_conv3x3(grad, self.gradient_kernel, padding=2 - self.padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, conv: FrozenConv, relu: bool, rounded: bool, pooled: bool
    ) -> Tensor:
        output = conv.convolve(x, relu=relu, rounded=rounded)
        ctx.conv = conv
        ctx.save_for_backward(output if relu and not pooled else None)
        return output

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.conv.gradient(grad, *ctx.saved_tensors), None, None, None, None


def max_pool(x: Tensor) -> Tensor:
    """The largest of 2x2 positions, (B, C, H, W) -> (B, C, H // 2, W // 2), of the output of a
    ReLU: its gradient is 0 where the largest is.
    """
    kernels = triton_kernels(x.device)
    return kernels.max_pool(x) if kernels else _MaxPool.apply(x)


class _MaxPool(torch.autograd.Function):
    """On the CPU PyTorch's own backward pass computes an image in a single thread. The ReLU's
    gradient is computed here at a quarter of the positions, and neither input nor ReLU are saved.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.size = x.shape[-2:]
        output, indices = F.max_pool2d(x, 2, return_indices=True)
        ctx.save_for_backward(output, indices)
        return output

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        output, indices = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, output, 0)
        # F.max_unpool2d imports sympy for its checks, which takes a second and 30 MB.
        return torch.ops.aten.max_unpool2d(grad, indices, ctx.size)


def _channels_last(weight: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    return weight.to(device, dtype, memory_format=torch.channels_last)
