import pytest
import torch

from media import contact_sheet
from media.sheet import GAP, LABEL_HEIGHT


@pytest.mark.parametrize(
    ("number", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (5, 3, 2), (20, 5, 4)]
)
def test_pictures_stand_in_rows_in_their_order(number, columns, rows):
    pictures = [torch.full((1, 3, 60, 90), i / number) for i in range(number)]
    sheet = contact_sheet(pictures, ["label"] * number)
    height, width = 60 + LABEL_HEIGHT + GAP, 90 + GAP
    assert sheet.dtype == torch.uint8
    assert sheet.shape == (1, 3, GAP + rows * height, GAP + columns * width)
    for i, picture in enumerate(pictures):
        top, left = GAP + i // columns * height, GAP + i % columns * width
        tile = sheet[..., top : top + 60, left : left + 90]
        assert torch.equal(tile, picture.mul(255).round().byte())
        assert sheet[..., top + 60 : top + 60 + LABEL_HEIGHT, left : left + 90].min() < 128


def test_a_label_that_is_too_long_stays_under_its_picture():
    pictures = [torch.zeros(1, 3, 40, 90, dtype=torch.uint8)] * 2
    sheet = contact_sheet(pictures, ["a name that is far too long for it", ""])
    assert (sheet[..., GAP + 40 :, GAP + 90 :] == 255).all()
