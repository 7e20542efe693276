"""The slow path: optimising one image directly (Gatys et al., arXiv 1508.06576)."""

import launch

if launch.is_command_of(__name__):
    launch.before_torch()

from slow.regions import Region
from slow.settings import PRESETS, SlowSettings
from slow.stylize import Iterate, stylize

__all__ = ["PRESETS", "Iterate", "Region", "SlowSettings", "stylize"]
