"""What a GPU's own libraries do in too many passes, in Triton.

All tensors are channels-last: (B, C, H, W) lies in memory as (B, H * W, C). The kernels are
compiled for each number of channels and each type, but not for sizes, which vary from photo to
photo.
"""

from models.triton_kernels.border import mirrored_border
from models.triton_kernels.normalisation import instance_norm
from models.triton_kernels.phases import interleaved
from models.triton_kernels.pooling import max_pool

__all__ = ["instance_norm", "interleaved", "max_pool", "mirrored_border"]
