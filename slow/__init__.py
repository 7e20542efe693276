"""The slow path: optimising one image directly (Gatys et al., arXiv 1508.06576)."""

from slow.regions import Region
from slow.settings import PRESETS, SlowSettings
from slow.stylize import Iterate, stylize

__all__ = ["PRESETS", "Iterate", "Region", "SlowSettings", "stylize"]
