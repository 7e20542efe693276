"""Instance normalisation that is fast on the CPU, too."""

import torch
from torch import Tensor, nn


class InstanceNorm(nn.Module):
    """Affine instance normalisation with float32 statistics (Ulyanov et al., arXiv 1607.08022)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return _ChannelsLastInstanceNorm.apply(x, self.weight, self.bias, self.eps)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        # One channel a group; unlike F.instance_norm it takes a single pixel.
        return torch.group_norm(x, x.shape[1], weight, bias, self.eps)

    def affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Normalisation by known statistics, each (C,): the factor and the summand."""
        factor = self.weight * (variance + self.eps).rsqrt()
        return factor, self.bias - mean * factor


class _ChannelsLastInstanceNorm(torch.autograd.Function):
    """Instance normalisation as group normalisation with one channel a group.

    On the CPU instance_norm copies a channels-last tensor twice, and group_norm is fast forwards
    but slow backwards; this takes the one's forward pass and writes the backward pass as two sums
    and two products.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, batch, channels, height * width, channels, eps
        )
        ctx.save_for_backward(x, weight, mean.float(), rstd.float())
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors  # mean, rstd: (B, C)
        num_pixels = x.shape[2] * x.shape[3]
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_sum = _sum_pixels(grad)
        # Sum of the gradient times the normalised input.
        grad_scale = (_sum_pixels(grad.float() * x) - mean * grad_sum) * rstd
        # The gradient is linear in the incoming gradient and in x, with factors for each channel.
        of_grad = weight * rstd
        of_x = -of_grad * rstd * grad_scale / num_pixels
        constant = -of_grad * grad_sum / num_pixels - of_x * mean
        of_grad, of_x, constant = (
            f.to(x.dtype)[..., None, None] for f in (of_grad, of_x, constant)
        )
        grad_x = torch.addcmul(constant, of_x, x).addcmul_(of_grad, grad)
        return grad_x, grad_scale.sum(0), grad_sum.sum(0), None


def _sum_pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) channels-last -> (B, C), summed in float32."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1, dtype=torch.float32)
