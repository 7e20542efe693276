import tarfile
import zipfile

import pytest

from fast.data import PhotoCrops
from fast.photos import find_photos


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


def make_parquet(photos, path):
    import datasets

    rows = [{"bytes": p.read_bytes(), "path": p.name} for p in sorted(photos.iterdir())]
    columns = {"label": list(range(len(rows))), "picture": rows}
    kinds = datasets.Features({"label": datasets.Value("int32"), "picture": datasets.Image()})
    datasets.Dataset.from_dict(columns, features=kinds).to_parquet(str(path))


@pytest.fixture(autouse=True)
def no_cache_at_home(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


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
        assert PhotoCrops(found, lambda item: 32)[2][0].shape == (3, 32, 32)
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
    crops = PhotoCrops(find_photos(tmp_path / "a.zip"), lambda item: 32)
    failures = [name for item in range(3) for name in crops[item][1]]
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
