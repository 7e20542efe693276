"""One network between several ones, by their weights.

Which channel does what is chance when a training starts. Networks from a common start (train.py
--init-from) agree on it, and the mean of their weights paints a style between theirs, where a mean
of two paintings shows both at once. The mean of networks from different starts is dull: for two of
The Starry Night it painted neither stars nor swirls.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.transformer_net import TransformerNet

# Cosine between the trunks' weights: 0.007 at most for networks of different starts, 0.2 and more
# where one was trained from the other, even for another painting.
RELATED = 0.1


def are_related(nets: Sequence[TransformerNet]) -> bool:
    """Whether networks have the same architecture, the margin aside, and a common start."""
    first, *others = nets
    return all(
        net.arguments | {"margin": first.margin} == first.arguments
        and F.cosine_similarity(_trunk(first), _trunk(net), dim=0).item() > RELATED
        for net in others
    )


@torch.no_grad()
def average_weights(nets: Sequence[TransformerNet], parts: Sequence[float]) -> TransformerNet:
    """The network whose weights are a mean of those of related ones.

    Args:
        nets: networks of one architecture, on one device.
        parts: how much of each, in sum 1.
    """
    blended = copy.deepcopy(max(nets, key=lambda net: net.margin))
    for weight, *weights in zip(*(net.parameters() for net in (blended, *nets)), strict=True):
        mean = sum(part * w.float() for part, w in zip(parts, weights, strict=True))
        weight.copy_(mean)
    return blended


def _trunk(net: TransformerNet) -> Tensor:
    """The convolutions of the residual blocks as one vector."""
    return torch.cat([w.float().flatten() for w in net.trunk.parameters() if w.dim() == 4])
