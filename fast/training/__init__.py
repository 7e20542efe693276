"""Training a style's network on photos (Johnson et al., arXiv 1603.08155), through accelerate."""
