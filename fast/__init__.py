"""The fast path: one network for each style (Johnson et al., arXiv 1603.08155)."""

import launch

if launch.is_command_of(__name__):
    launch.before_torch()

from fast.model import StyleModel, load
from fast.stylize import load_net, stylize
from fast.video import paint_video

__all__ = ["StyleModel", "load", "load_net", "paint_video", "stylize"]
