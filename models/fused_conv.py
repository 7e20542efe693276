"""A convolution and the ReLU after it in one pass, where oneDNN or cuDNN has it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def fuses(device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether there is such a pass on a device, with this type."""
    kind = torch.device(device).type
    if kind == "cuda":
        return dtype in (torch.bfloat16, torch.float16) and torch.version.hip is None
    return (
        kind == "cpu"
        and dtype == torch.bfloat16
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def fused_conv(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int = 0,
    relu: bool = False,
) -> Tensor:
    """A convolution of stride 1 with a ReLU or not, channels-last; a NaN becomes 0 in a ReLU. It
    has no gradient.
    """
    if not x.is_cuda:
        return torch.ops.mkldnn._convolution_pointwise(
            x, kernel, bias, [padding] * 2, [1, 1], [1, 1], 1, "relu" if relu else "none", [], ""
        )
    if relu:
        return torch.cudnn_convolution_relu(
            x, kernel, bias, [1, 1], [padding] * 2, [1, 1], groups=1
        )
    return F.conv2d(x, kernel, bias, padding=padding)
