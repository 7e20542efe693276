from itertools import islice

import pytest
import torch
from PIL import Image

from benchmarks.textbook import (
    TextbookLoss,
    textbook_optimization,
    textbook_training,
)
from benchmarks.training import COCO_SIZE, CUTS, write_photos
from benchmarks.turns import run_alone
from fast.catalogue import SAMPLE_PHOTOS
from fast.training.photos import find_photos
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from tests.conftest import smooth_image


def test_textbook_loss_computes_the_same():
    settings, style = LossSettings(), smooth_image(64, 48, seed=1)
    image, content = smooth_image(48, 64, seed=2), smooth_image(48, 64, seed=3)
    ours = PerceptualLoss(settings, [style])
    expected = TextbookLoss(settings, style)(image, content)
    result = ours(image, ours.content_targets(content)).total
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=0)


def test_photos_are_of_the_size_of_coco(tmp_path):
    write_photos(tmp_path)
    photos = sorted(tmp_path.iterdir())
    assert len(photos) == CUTS * len(list(SAMPLE_PHOTOS.iterdir()))
    assert {Image.open(photo).size for photo in photos} == {COCO_SIZE}
    assert 110e3 < sum(photo.stat().st_size for photo in photos) / len(photos) < 163e3


def test_textbook_learns(photos):
    style = smooth_image(64, 64, seed=1)
    steps = textbook_training(style, find_photos(photos), size=64, batch_size=2)
    weights = [next(steps).to_rgb.weight.detach().clone() for _ in range(2)]
    assert not torch.equal(*weights)


def test_textbook_optimization_lowers_the_loss():
    content, style = smooth_image(32, 40, seed=1), smooth_image(48, 48, seed=2)
    losses = textbook_optimization(TextbookLoss(LossSettings(), style), content.mT, content.mT)
    values = list(islice(losses, 25))
    assert len(values) == 25 and min(values) < 0.5 * values[0]


def test_a_failed_run_is_an_error_of_one_line():
    with pytest.raises(RuntimeError, match="failed: python -m benchmarks.none --only ours"):
        run_alone("benchmarks.none", ["--only", "ours"], large_pages=True)
    assert run_alone("this", [], large_pages=False).startswith("The Zen of Python")
