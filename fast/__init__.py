"""The fast path: one network for each style (Johnson et al., arXiv 1603.08155)."""

import sys

import launch

if sys.argv[:1] == ["-m"]:  # python -m is on its way to one of the command lines in here
    launch.before_torch()

from fast.model import StyleModel, load
from fast.stylize import load_net, stylize

__all__ = ["StyleModel", "load", "load_net", "stylize"]
