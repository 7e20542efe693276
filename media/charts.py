"""Line charts, drawn with Pillow."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from media.pil import from_pil

# Okabe and Ito's colours, which colour-blind people can tell apart, without their yellow.
LINE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SIZE = (960, 540)  # px
MARGINS = (80, 46, 190, 56)  # px: left, top, right (for the legend), bottom


def line_chart(lines: dict[str, Sequence[float]], *, title: str, x_title: str) -> Tensor:
    """Lines over their index, on a logarithmic scale.

    Args:
        lines: values of each line from index 1 on, by what the legend calls it; what is not above
            0 is left out.
        title: above the chart.
        x_title: below it.

    Returns:
        (1, 3, H, W) RGB in [0, 1].

    Raises:
        ValueError: there is no value above 0.
    """
    values = [v for line in lines.values() for v in line if 0 < v < math.inf]
    if not values:
        raise ValueError("a logarithmic chart needs a value above 0")
    longest = max(map(len, lines.values()))
    low, high = math.log10(min(values)), math.log10(max(values))
    low, high = low - 0.02 * (high - low + 1), high + 0.02 * (high - low + 1)
    left, top, right, bottom = MARGINS
    width, height = SIZE[0] - left - right, SIZE[1] - top - bottom

    def place(index: int, value: float) -> tuple[float, float]:
        x = left + width * (index - 1) / max(longest - 1, 1)
        return x, top + height * (high - math.log10(value)) / (high - low)

    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.text((left, 14), title, "black", ImageFont.load_default(18))
    draw.text((left + width / 2, SIZE[1] - 14), x_title, "black", font, anchor="mb")
    for value in _ticks(low, high):
        y = place(1, value)[1]
        draw.line([(left, y), (left + width, y)], "#E0E0E0")
        draw.text((left - 8, y), f"{value:g}", "black", font, anchor="rm")
    for index in sorted({1, *(round(longest * share / 4) or 1 for share in range(1, 5))}):
        x = place(index, 10**low)[0]
        draw.text((x, top + height + 6), str(index), "black", font, anchor="mt")
    draw.rectangle([left, top, left + width, top + height], outline="#808080")

    for number, (name, line) in enumerate(lines.items()):
        color = LINE_COLORS[number % len(LINE_COLORS)]
        points = [place(i, v) if 0 < v < math.inf else None for i, v in enumerate(line, start=1)]
        for start, end in pairwise(points):
            if start and end:
                draw.line([start, end], color, width=2)
        y = top + 10 + 22 * number
        draw.line([(left + width + 14, y), (left + width + 38, y)], color, width=3)
        draw.text((left + width + 46, y), name, "black", font, anchor="lm")
    return from_pil(image).rgb


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round values between powers of ten, as few as are useful."""
    factors = (1, 2, 5) if high - low < 3 else (1,)
    for exponent in range(math.floor(low), math.ceil(high) + 1):
        for factor in factors:
            if low <= math.log10(factor) + exponent <= high:
                yield factor * 10.0**exponent
