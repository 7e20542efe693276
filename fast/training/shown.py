"""A painting as it will be seen, in training."""

import torch
from torch import Tensor


def as_shown(painting: Tensor) -> Tensor:
    """Clamp to [0, 1], and keep the gradient of a value outside if it leads back; what is not
    finite becomes NaN.

    Without the clamping a network paints beyond black and white: the losses like what nobody will
    see. Without the gradient such values would stay where they are.
    """
    return _Shown.apply(painting)


class _Shown(torch.autograd.Function):
    @staticmethod
    def forward(ctx, painting: Tensor) -> Tensor:
        ctx.save_for_backward(painting)
        return torch.where(painting.isfinite(), painting.clamp(0, 1), torch.nan)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (painting,) = ctx.saved_tensors
        # A step goes against the gradient.
        leads_out = ((painting < 0) & (grad > 0)) | ((painting > 1) & (grad < 0))
        return grad.masked_fill(leads_out, 0)
