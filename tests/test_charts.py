import math

import pytest
import torch

from media.charts import LINE_COLORS, line_chart


def rows_of_line(chart: torch.Tensor, number: int) -> torch.Tensor:
    """For each column of the plot the mean row of a line, NaN where it is not."""
    wanted = [int(LINE_COLORS[number][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    is_line = (chart[0, :, :, :760] - torch.tensor(wanted).view(3, 1, 1)).abs().amax(0) < 0.01
    rows = torch.arange(is_line.shape[0]).float().view(-1, 1)
    return (is_line * rows).sum(0) / is_line.sum(0)


def test_lines_of_powers_are_straight_and_in_order():
    falling = [10.0 ** (-k / 20) for k in range(100)]
    chart = line_chart({"a": falling, "b": [2 * v for v in falling]}, title="t", x_title="x")
    assert chart.shape == (1, 3, 540, 960) and 0 <= chart.min() and chart.max() <= 1
    a, b = rows_of_line(chart, 0), rows_of_line(chart, 1)
    inside = ~(a.isnan() | b.isnan())
    assert inside.sum() > 500
    assert (b[inside] < a[inside]).all()  # larger values are higher up
    slopes = a[inside].diff()
    assert (slopes > -1.01).all() and abs(slopes[:200].mean() - slopes[-200:].mean()) < 0.05


def test_values_that_have_no_logarithm_are_left_out():
    chart = line_chart({"a": [1.0, 0.0, math.nan, 0.1, math.inf, 0.01]}, title="", x_title="")
    assert chart.isfinite().all()
    with pytest.raises(ValueError, match="above 0"):
        line_chart({"a": [0.0]}, title="", x_title="")
