"""A contact sheet: pictures in rows, each with a line of text."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from media.pil import from_pil, to_pil

GAP = 12  # px around and between pictures
TEXT_SIZE = 16  # px
LABEL_HEIGHT = 26  # px
PAPER, INK = "white", "black"


def contact_sheet(pictures: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Put pictures of one size into a sheet: up to three in a row, more in about a square.

    Args:
        pictures: (1, 3, H, W) RGB, all of one size, float32 in [0, 1] or uint8.
        labels: a line for each, cut to its picture's width.

    Returns:
        (1, 3, H', W') uint8.
    """
    height, width = pictures[0].shape[-2:]
    tile_height, tile_width = height + LABEL_HEIGHT + GAP, width + GAP
    square = math.ceil(math.sqrt(len(pictures) * tile_height / tile_width))
    columns = min(len(pictures), max(3, square))
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (GAP + columns * tile_width, GAP + rows * tile_height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        row, column = divmod(number, columns)
        left, top = GAP + column * tile_width, GAP + row * tile_height
        sheet.paste(to_pil(picture), (left, top))
        text = _fitting(label, width, font)
        draw.text((left, top + height + LABEL_HEIGHT // 2), text, fill=INK, font=font, anchor="lm")
    return from_pil(sheet).pixels


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """As much of a text as fits, with three dots for the rest."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
