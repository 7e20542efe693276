"""All styles on one photo: a sheet to choose from."""

from collections.abc import Sequence
from typing import Any

from fast.model import StyleModel
from media import Picture, contact_sheet

GRID_SIZE = 480  # px: longer side of each picture


def paint_grid(photo: Picture, models: Sequence[tuple[str, StyleModel]], **look: Any) -> Picture:
    """A labelled contact sheet of a photo and its paintings.

    Args:
        photo: of about GRID_SIZE.
        models: what is written under its painting, and the model.
        look: keywords of StyleModel.paint.
    """
    labels, paintings = ["photo"], [photo.pixels]
    for label, model in models:
        labels.append(label)
        paintings.append(model.paint(photo.pixels, **look))
    return Picture(contact_sheet(paintings, labels))
