"""The slow path: optimising one image directly (Gatys et al., arXiv 1508.06576)."""

from slow.stylize import Iterate, stylize

__all__ = ["Iterate", "stylize"]
