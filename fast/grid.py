"""All styles on one photo: a sheet to choose from."""

from collections.abc import Mapping
from typing import Any

from fast.model import StyleModel
from media import Picture, contact_sheet

GRID_SIZE = 480  # px: longer side of each picture


def paint_grid(photo: Picture, models: Mapping[str, StyleModel], **look: Any) -> Picture:
    """A labelled contact sheet of a photo and its paintings.

    Args:
        photo: of about GRID_SIZE.
        models: by what is written under their paintings.
        look: keywords of StyleModel.paint.
    """
    paintings = [model.paint(photo.pixels, **look) for model in models.values()]
    return Picture(contact_sheet([photo.pixels, *paintings], ["photo", *models]))
