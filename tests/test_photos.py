import tarfile
import zipfile
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from fast.training.data import PhotoCrops, StreamedCrops, collate
from fast.training.photos import find_photos
from fast.training.rows import PhotoStream
from media import write_image
from tests.conftest import make_parquet, smooth_image


@pytest.fixture
def contents(photos):
    """The files' contents in their order."""
    return [path.read_bytes() for path in sorted(photos.iterdir())]


def make_zip(photos, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/readme.txt", "no image")
        for photo in sorted(photos.iterdir()):
            archive.write(photo, f"train/{photo.name}")


def make_tar(photos, path):
    with tarfile.open(path, "w") as archive:
        for photo in sorted(photos.iterdir()):
            archive.add(photo, photo.name)
        archive.add(__file__, "0.txt")


pytestmark = pytest.mark.usefixtures("data_sets")


@pytest.mark.parametrize(
    ("make", "name"), [(make_zip, "a.zip"), (make_tar, "a.tar"), (make_parquet, "a.parquet")]
)
def test_photos_lie_in_archives_and_tables(make, name, photos, contents, tmp_path):
    folder = tmp_path / "archives"
    folder.mkdir()
    make(photos, folder / name)
    for data in (folder / name, folder):  # by itself, and as the content of a folder
        found = find_photos(data)
        assert [photo.read() for photo in found] == contents
        assert PhotoCrops(found, lambda item: 32, [2])[0][0].shape == (3, 32, 32)
    assert len(find_photos(folder / name, limit=2)) == 2


def test_folder_is_searched_with_the_folders_in_it(photos, contents):
    (photos / "deeper").mkdir()
    (photos / "2.png").rename(photos / "deeper" / "2.png")
    assert [photo.read() for photo in find_photos(photos)] == contents


def test_destroyed_archive_and_rows_without_an_image_are_named(photos, tmp_path):
    import datasets

    make_zip(photos, tmp_path / "a.zip")
    content = (tmp_path / "a.zip").read_bytes()
    start = content.index(b"PK\x01\x02")
    (tmp_path / "a.zip").write_bytes(content[:start] + bytes(20) + content[start + 20 :])
    with pytest.raises(ValueError, match="damaged"):
        find_photos(tmp_path / "a.zip")

    kinds = datasets.Features({"picture": datasets.Image()})
    rows = datasets.Dataset.from_dict({"picture": [None]}, features=kinds)
    rows.to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(ValueError, match="row 0 holds no image"):
        find_photos(tmp_path / "a.parquet")[0].read()


def test_damaged_member_of_an_archive_is_left_out(photos, tmp_path):
    make_zip(photos, tmp_path / "a.zip")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    start = content.index(b"IDAT")
    content[start : start + 40] = bytes(40)
    (tmp_path / "a.zip").write_bytes(content)
    crops = PhotoCrops(find_photos(tmp_path / "a.zip"), lambda item: 32, range(3))
    failures = [name for _, names in crops for name in names]
    assert len(failures) == 1 and "0.png" in failures[0]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("nowhere", "no such folder or file"),
        (__file__, "no zip or plain tar archive"),
        ("empty", "no image in it"),
        ("text.parquet", "text.parquet"),
    ],
)
def test_what_holds_no_photos_is_refused(data, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=what):
        find_photos(data)


def test_stream_comes_again_and_again_in_another_order(photos, contents, tmp_path):
    make_parquet(photos, tmp_path / "a.parquet")
    stream = PhotoStream(tmp_path / "a.parquet")
    assert [photo.read() for photo in stream] == contents
    read = [photo.read() for photo in islice(stream.shuffled(seed=1), 30)]
    epochs = [read[i : i + 3] for i in range(0, 30, 3)]
    assert all(sorted(epoch) == sorted(contents) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert read == [photo.read() for photo in islice(stream.shuffled(seed=1), 30)]
    assert len(list(PhotoStream(tmp_path / "a.parquet", limit=2))) == 2


def test_held_out_photos_do_not_come_again(photos, tmp_path):
    for number in range(22):
        write_image(photos / f"{number:02}.png", smooth_image(16, 16, seed=number))
    for photo in photos.glob("?.png"):
        photo.unlink()
    contents = [path.read_bytes() for path in sorted(photos.iterdir())]
    make_parquet(photos, tmp_path / "a.parquet")
    stream = PhotoStream(tmp_path / "a.parquet")
    assert [photo.read() for photo in stream.hold_out(8, at_least=20)] == contents[:2]
    assert {photo.read() for photo in islice(stream.shuffled(seed=0), 40)} == set(contents[2:])
    assert [photo.read() for photo in stream] == contents[2:]
    stream = PhotoStream(tmp_path / "a.parquet")
    assert [photo.read() for photo in stream.hold_out(1, at_least=50)] == contents[:1]
    with pytest.raises(ValueError, match="20 photos to train on.* fewer than the 21"):
        PhotoStream(tmp_path / "a.parquet").hold_out(8, at_least=21)


def test_stream_of_nothing_but_held_out_photos_ends(photos, tmp_path):
    make_parquet(photos, tmp_path / "a.parquet")
    stream = PhotoStream(tmp_path / "a.parquet")
    stream.held_out = list(stream)
    with pytest.raises(ValueError, match="equal those held out"):
        next(stream.shuffled(seed=0))


def test_crop_of_a_stream_depends_on_seed_and_item_alone(photos, tmp_path):
    """The second photo is broken: the one after it stands in, wherever the reading begins."""
    (photos / "1.png").write_bytes(b"broken")
    make_parquet(photos, tmp_path / "a.parquet")
    stream = PhotoStream(tmp_path / "a.parquet")
    whole = list(StreamedCrops(stream, lambda item: 32, range(12), seed=1))
    assert len(whole) == 12 and sum(len(names) for _, names in whole) >= 4
    for items in (range(5, 12), range(1, 12, 2)):
        part = list(StreamedCrops(stream, lambda item: 32, items, seed=1))
        assert len(part) == len(items)
        assert all(torch.equal(crop, whole[i][0]) for (crop, _), i in zip(part, items, strict=True))


def test_stream_of_broken_photos_ends(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("fast.training.data.MAX_UNREADABLE", 5)
    for photo in photos.iterdir():
        photo.write_bytes(b"broken")
    make_parquet(photos, tmp_path / "a.parquet")
    crops = StreamedCrops(PhotoStream(tmp_path / "a.parquet"), lambda item: 32, range(2))
    with pytest.raises(ValueError, match="none of 5 photos can be read"):
        list(crops)


def test_order_of_a_stream_depends_neither_on_workers_nor_on_other_streams(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr("fast.training.rows.BUFFER", 2)
    (tmp_path / "tables").mkdir()
    for number in range(3):
        make_parquet(photos, tmp_path / "tables" / f"{number}.parquet")
        for index, photo in enumerate(sorted(photos.iterdir())):
            write_image(photo, smooth_image(40, 40, seed=10 * index + number))
    crops = StreamedCrops(PhotoStream(tmp_path / "tables"), lambda item: 32, range(20))
    alone, by_worker = (
        list(DataLoader(crops, collate_fn=collate, num_workers=number)) for number in (0, 1)
    )
    assert len(alone) == 20
    for (crop, _), (same, _) in zip(alone, by_worker, strict=True):
        assert torch.equal(crop, same)


def test_unreadable_rows_have_the_same_name_in_every_epoch(photos, tmp_path):
    import datasets

    rows = [{"bytes": content, "path": None} for content in (b"broken", b"as well")]
    rows += [{"bytes": (photos / "0.png").read_bytes(), "path": None}]
    features = datasets.Features({"image": datasets.Image()})
    table = datasets.Dataset.from_dict({"image": rows}, features=features)
    table.to_parquet(str(tmp_path / "a.parquet"))
    crops = StreamedCrops(PhotoStream(tmp_path / "a.parquet"), lambda item: 32, range(12))
    assert len({name for _, names in crops for name in names}) == 2


def test_hub_is_asked_for_the_named_data_set(photos, contents, monkeypatch):
    import datasets

    images = [{"bytes": content, "path": None} for content in contents]
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": images}, features=features)
    parts = {"test": rows, "train": rows.select([1])}

    def load_dataset(path, *, streaming):
        assert path == "owner/name"
        return {n: r.to_iterable_dataset() for n, r in parts.items()} if streaming else parts

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for found in (find_photos("hf:owner/name"), PhotoStream("hf:owner/name")):
        assert [photo.read() for photo in found] == contents[1:2]
    del parts["train"]
    assert len(find_photos("hf:owner/name")) == 3


def test_a_hub_without_a_name_is_told():
    pytest.importorskip("datasets")
    for read in (find_photos, PhotoStream):
        with pytest.raises(ValueError, match="--data hf: needs the name of a data set"):
            read("hf:")


def test_only_tables_and_hubs_are_streamed(photos):
    for data in (photos, photos / "0.png", "nowhere"):
        with pytest.raises(ValueError, match="to stream"):
            PhotoStream(data)
