"""The slow path: optimising one image directly (Gatys et al., arXiv 1508.06576)."""

from slow.settings import PRESETS, SlowSettings
from slow.stylize import Iterate, stylize

__all__ = ["PRESETS", "Iterate", "SlowSettings", "stylize"]
