"""Pictures that explain the slow path: python -m slow.explain."""
