"""The fast path: one network for each style (Johnson et al., arXiv 1603.08155)."""

from fast.stylize import load, stylize

__all__ = ["load", "stylize"]
