"""The slow path: optimising one image directly (Gatys et al., arXiv 1508.06576)."""

import sys

import launch

if sys.argv[:1] == ["-m"]:  # python -m is on its way to one of the command lines in here
    launch.before_torch()

from slow.regions import Region
from slow.settings import PRESETS, SlowSettings
from slow.stylize import Iterate, stylize

__all__ = ["PRESETS", "Iterate", "Region", "SlowSettings", "stylize"]
