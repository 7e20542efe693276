"""What the paintings of one run share."""

from pathlib import Path

from models.loss_settings import LossSettings
from slow.shared_losses import SharedLosses
from tests.conftest import smooth_image


def test_targets_are_kept_for_one_style():
    losses = SharedLosses(LossSettings(content_layers=("relu1_1",), style_layers=("relu1_1",)))
    image, a, b = [smooth_image(16, 16)], (Path("a.png"),), (Path("b.png"),)

    def made(styles, image, colors="style"):
        return losses.maker(styles, colors=colors, regions=[])(image)

    first = made(a, image)
    assert made(a, image) is first
    assert made(a, [smooth_image(20, 20)]) is not first
    assert made(a, image, colors="match") is not first  # these images depend on the photo
    assert made(b, image) is not first
