import pytest
import torch

from fast.training.data import FLAT, FLAT_STRIDE, PhotoCrops, make_loader
from fast.training.photos import find_photos
from fast.training.settings import TrainingSettings, crop_size, share_of_work
from media import as_float, write_image
from tests.conftest import smooth_image


def always_32(item):
    return 32


def test_crops_depend_on_seed_and_item_alone(photos):
    paths = find_photos(photos)
    crop, _ = PhotoCrops(paths, always_32, range(9), seed=1)[5]
    assert crop.shape == (3, 32, 32)
    assert torch.equal(crop, PhotoCrops(paths, always_32, [5], seed=1)[0][0])
    assert not torch.equal(crop, PhotoCrops(paths, always_32, [5], seed=2)[0][0])


def test_every_photo_comes_once_before_any_comes_again(tmp_path):
    for grey in range(5):
        write_image(tmp_path / f"{grey}.png", torch.full((1, 3, 40, 40), grey / 255))
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(20))
    orders = [[int(crops[5 * e + i][0].max()) for i in range(5)] for e in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_crops_grow_from_the_first_size_to_the_last():
    settings = TrainingSettings(steps=100, image_size=256, first_size=96)
    sizes = [crop_size(settings, 4, item) for item in range(400)]
    assert sizes == sorted(sizes) and sizes[0] == 96 and sizes[-1] == 256
    assert all(len(set(sizes[i : i + 4])) == 1 for i in range(0, 400, 4))  # within a step
    odd = TrainingSettings(steps=100, image_size=300, first_size=128)
    assert (crop_size(odd, 1, 0), crop_size(odd, 1, 99)) == (140, 300)
    small = TrainingSettings(steps=3, image_size=64, first_size=96)
    assert {crop_size(small, 1, item) for item in range(3)} == {64}


def test_share_of_work_is_that_of_the_pixels():
    settings = TrainingSettings(steps=400, first_size=64, image_size=512)
    pixels = [crop_size(settings, 1, step) ** 2 for step in range(400)]
    for step in (0, 100, 300, 400):
        expected = sum(pixels[:step]) / sum(pixels)
        assert share_of_work(settings, step) == pytest.approx(expected, abs=0.01)
    small = TrainingSettings(steps=4, first_size=256, image_size=64)
    assert share_of_work(small, 3) == 0.75


def test_flat_parts_of_a_photo_are_not_trained_on(tmp_path):
    image = torch.tensor([0.8, 0.6, 0.4]).view(1, 3, 1, 1).repeat(1, 1, 64, 200)
    image[..., 60:140] = smooth_image(64, 80)  # most crops show some of it
    write_image(tmp_path / "flat.png", image)
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(30))
    seen = [crop[:, ::FLAT_STRIDE, ::FLAT_STRIDE].float() for crop, _ in crops]
    assert all(pixels.std((1, 2)).max() >= FLAT for pixels in seen)

    write_image(tmp_path / "flat.png", image[..., :64])  # there is nothing else
    assert crops[0][0].shape == (3, 32, 32)


def test_photos_smaller_than_the_crops_are_not_blurred(tmp_path):
    sharp = torch.rand(1, 3, 32, 32).round()
    write_image(tmp_path / "small.png", sharp)
    crops = PhotoCrops(find_photos(tmp_path), lambda item: 64, range(40))
    contrast = torch.tensor([as_float(crop).std() for crop, _ in crops])
    mosaics = contrast > 0.9 * sharp.std()  # of four whole photos, none of them enlarged
    assert 0.5 < mosaics.float().mean() < 0.9
    mosaic = as_float(crops[int(contrast.argmax())][0])
    assert mosaic.shape == (3, 64, 64)
    photo = sharp[0] if torch.allclose(mosaic[:, :32, :32], sharp[0]) else sharp[0].flip(-1)
    torch.testing.assert_close(mosaic[:, :32, :32], photo)


def test_crops_are_enlarged_only_if_the_photo_is_smaller(tmp_path):
    sharp = torch.rand(1, 3, 40, 40).round()
    write_image(tmp_path / "photo.png", sharp)
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(20))
    assert all(as_float(crop).std() > 0.5 * sharp.std() for crop, _ in crops)
    large = PhotoCrops(find_photos(tmp_path), lambda item: 100, range(20))  # not even half as large
    assert all(as_float(crop).std() < 0.9 * sharp.std() for crop, _ in large)


def test_unreadable_photos_are_replaced_and_named(photos):
    (photos / "1.png").write_bytes(b"broken")
    items = list(PhotoCrops(find_photos(photos), always_32, range(3)))
    assert all(crop.shape == (3, 32, 32) for crop, _ in items)
    assert [name for _, names in items for name in names] == [
        "1.png is not an image: its content is of no image format that Pillow knows"
    ]


def test_shares_of_the_processes_are_disjoint_and_complete(photos):
    class Process:
        num_processes, device = 3, torch.device("cpu")

        def __init__(self, index):
            self.process_index = index

    settings = TrainingSettings(steps=4, batch_size=2, accumulation=2, image_size=32)
    shares = [
        list(
            make_loader(
                find_photos(photos), settings, Process(index), first_step=1, num_workers=0
            ).dataset.items
        )
        for index in range(3)
    ]
    assert shares[1][:4] == [14, 15, 20, 21]  # a step is of 12 crops
    assert sorted(sum(shares, [])) == list(range(12, 48))
