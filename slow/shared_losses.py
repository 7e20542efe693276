"""Losses of several paintings: the loss network, loaded once, and the targets of a style."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from models.loss_settings import LossSettings
from models.losses import PerceptualLoss, loss_network
from slow.regions import Region, RegionalLoss


class SharedLosses:
    """The loss network, and the targets of the style that was used last.

    Args:
        settings: layers and weights.
        style_blend: a weight for each style image of a blend; empty for equal ones.
        dtype: precision of the convolutions.
        device: where to compute.
    """

    def __init__(
        self,
        settings: LossSettings,
        *,
        style_blend: Sequence[float] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.style_blend = settings, style_blend
        self.vgg = loss_network(settings, dtype=dtype, device=device)
        self.styles: tuple[Path, ...] = ()
        self.by_size: dict[tuple, PerceptualLoss] = {}

    def maker(
        self, styles: tuple[Path, ...], *, colors: str, regions: Sequence[Region]
    ) -> Callable[[Sequence[Tensor]], PerceptualLoss]:
        """The make_losses of stylize for one painting.

        Args:
            styles: files of the style images.
            colors: of its SlowSettings; but for "style", style images depend on the content image.
            regions: from its masks; empty without.
        """
        if regions:
            return partial(RegionalLoss, self.settings, regions=regions, vgg=self.vgg)
        if colors != "style":
            return self._new_losses
        if styles != self.styles:
            self.styles, self.by_size = styles, {}
        return self._losses_by_size

    def _losses_by_size(self, images: Sequence[Tensor]) -> PerceptualLoss:
        sizes = tuple(image.shape for image in images)
        if sizes not in self.by_size:
            self.by_size[sizes] = self._new_losses(images)
        return self.by_size[sizes]

    def _new_losses(self, images: Sequence[Tensor]) -> PerceptualLoss:
        return PerceptualLoss(
            self.settings, images, style_blend=self.style_blend or None, vgg=self.vgg
        )
