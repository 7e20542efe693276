"""Instance normalisation that is fast on channels-last tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.gpu_kernels import triton_kernels


class InstanceNorm(nn.Module):
    """Affine instance normalisation with float32 statistics (Ulyanov et al., arXiv 1607.08022)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor, *, relu: bool = False, summand: Tensor | None = None) -> Tensor:
        """Normalise (B, C, H, W), then apply a ReLU, then add another map, each if asked for."""
        kernels = triton_kernels(x.device)
        if kernels:
            affine = self.weight, self.bias, self.eps
            return kernels.instance_norm(x, *affine, relu=relu, summand=summand)
        x = self._normalise(x)
        x = F.relu(x, inplace=True) if relu else x
        return x if summand is None else summand + x

    def _normalise(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return _ChannelsLastInstanceNorm.apply(x, self.weight, self.bias, self.eps)
        if x.is_cuda and not torch.compiler.is_compiling():  # F.instance_norm would copy twice
            images = [
                torch.batch_norm(
                    image, self.weight, self.bias, None, None, True, 0.0, self.eps, True
                )
                for image in x.split(1)
            ]
            return torch.cat(images) if len(images) > 1 else images[0]
        # One channel a group; unlike F.instance_norm it takes a single pixel.
        return torch.group_norm(x.float(), x.shape[1], self.weight, self.bias, self.eps).to(x.dtype)

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Normalisation by known statistics, each (C,): the factor and the summand."""
        factor = self.weight * (variance + self.eps).rsqrt()
        return factor, self.bias - mean * factor


class _ChannelsLastInstanceNorm(torch.autograd.Function):
    """Instance normalisation by the fastest operations on channels-last tensors.

    On the CPU instance_norm copies such a tensor twice. Forwards it is the same as group
    normalisation with one channel a group, which is slow backwards; there it is the same as batch
    normalisation of each image by itself.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, batch, channels, height * width, channels, eps
        )
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, *statistics = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        gradients = [
            torch.ops.aten.native_batch_norm_backward(
                grad_image, image, weight, None, None, mean, rstd, True, 0.0, [True] * 3
            )
            for grad_image, image, mean, rstd in zip(
                grad.split(1), x.split(1), *statistics, strict=True
            )
        ]
        of_x, of_weight, of_bias = zip(*gradients, strict=True)
        grad_x = torch.cat(of_x) if len(of_x) > 1 else of_x[0]
        return grad_x, sum(of_weight), sum(of_bias), None
