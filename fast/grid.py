"""All styles on one photo: a sheet to choose from."""

from collections.abc import Callable, Sequence
from typing import Any

from fast.model import StyleModel
from media import Picture, contact_sheet

GRID_SIZE = 480  # px: longer side of each picture


def paint_grid(
    photo: Picture,
    models: Sequence[tuple[str, StyleModel]],
    *,
    progress: Callable[[float], None] | None = None,
    **look: Any,
) -> Picture:
    """A labelled contact sheet of a photo and its paintings.

    Args:
        photo: of about GRID_SIZE.
        models: what is written under its painting, and the model.
        progress: called now and then with the share of the work that was done since the last call.
        look: other keywords of StyleModel.paint.
    """
    report = progress and (lambda share: progress(share / len(models)))
    labels, paintings = ["photo"], [photo.pixels]
    for label, model in models:
        labels.append(label)
        paintings.append(model.paint(photo.pixels, progress=report, **look))
    return Picture(contact_sheet(paintings, labels))
