"""Where training photos come from: folders, zip and tar archives, data sets of `datasets`."""

import os
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from media import FORMATS, find_images

if TYPE_CHECKING:
    import datasets

ARCHIVES = (".zip", ".tar")


class Photo(Protocol):
    """An encoded image, somewhere."""

    name: str

    def read(self) -> bytes:
        """The content of the image file; OSError or ValueError if it cannot be read."""


@dataclass(frozen=True)
class FilePhoto:
    """An image file, or a stretch of a tar archive."""

    name: str
    path: Path
    start: int = 0
    length: int = -1

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)


@dataclass(frozen=True)
class ZipPhoto:
    """A member of a zip archive."""

    name: str
    path: Path

    def read(self) -> bytes:
        try:
            return _open_zip(self.path, os.getpid()).read(self.name)
        except Exception as error:  # each method of compression has errors of its own
            reason = str(error) or type(error).__name__
            raise ValueError(f"{self.name} in {self.path}: {reason}") from error


@dataclass(frozen=True)
class RowPhoto:
    """A row of a data set."""

    name: str
    rows: "datasets.Dataset"
    column: str
    index: int

    def read(self) -> bytes:
        image = self.rows[self.index][self.column] or {}
        if image.get("bytes") is not None:
            return image["bytes"]
        if image.get("path") is not None:
            return Path(image["path"]).read_bytes()
        raise ValueError(f"{self.name} holds no image")


def find_photos(data: str | Path, *, limit: int | None = None) -> Sequence[Photo]:
    """All photos of a data set, in a fixed order.

    Args:
        data: a folder of images, with the folders in it, or of zip and tar archives or parquet
            files; one such file (COCO's train2014.zip, a webdataset's tar); or "hf:owner/name", a
            data set of the Hugging Face hub, which is downloaded.
        limit: take the first so many only.

    Raises:
        ValueError: there is nothing of that name, or no image in it.
        OSError: it cannot be read.
    """
    path = Path(data)
    if str(data).startswith("hf:"):
        photos = _photos_in_rows(str(data).removeprefix("hf:"), None)
    elif path.is_dir():
        photos = [FilePhoto(str(p.relative_to(path)), p) for p in find_images(path)]
        archives = [] if photos else sorted(p for p in path.rglob("*") if p.suffix in ARCHIVES)
        for archive in archives:
            photos += _photos_in_archive(archive)
        tables = [] if photos else sorted(path.rglob("*.parquet"))
        if tables:
            photos = _photos_in_rows("parquet", tables)
    elif path.suffix == ".parquet" and path.is_file():
        photos = _photos_in_rows("parquet", [path])
    elif path.is_file():
        photos = _photos_in_archive(path)
    else:
        raise ValueError(f"--data {data}: no such folder or file")
    if not photos:
        raise ValueError(f"--data {data}: no image in it")
    return photos[:limit]


def _photos_in_archive(path: Path) -> list[Photo]:
    try:
        if zipfile.is_zipfile(path):
            names = _open_zip(path, os.getpid()).namelist()
            return [ZipPhoto(name, path) for name in names if _is_image(name)]
        with tarfile.open(path, "r:") as archive:
            return [
                FilePhoto(member.name, path, member.offset_data, member.size)
                for member in archive
                if member.isfile() and _is_image(member.name)
            ]
    except (tarfile.TarError, zipfile.BadZipFile):
        raise ValueError(
            f"--data {path} is no zip or plain tar archive, or a damaged one; a compressed tar "
            "archive has to be unpacked"
        ) from None


def _photos_in_rows(name: str, files: Sequence[Path] | None) -> list[Photo]:
    """The rows of the first column of images, not decoded."""
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "parquet files and data sets of a hub need: pip install datasets"
        ) from None
    shown = files[0] if files else f"hf:{name}"
    try:
        if files:
            rows = datasets.load_dataset(name, data_files=[str(f) for f in files], split="train")
        else:
            parts = datasets.load_dataset(name)
            rows = parts.get("train", next(iter(parts.values())))
    except Exception as error:  # of the network, the file system, the parsers of many formats
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"--data {shown}: {reason}") from error
    columns = [c for c, kind in rows.features.items() if isinstance(kind, datasets.Image)]
    if not columns:
        raise ValueError(f"--data {shown}: no images in its columns {', '.join(rows.features)}")
    rows = rows.cast_column(columns[0], datasets.Image(decode=False))
    return [RowPhoto(f"row {index}", rows, columns[0], index) for index in range(len(rows))]


@lru_cache(maxsize=8)
def _open_zip(path: Path, process: int) -> zipfile.ZipFile:
    """Open once in every process: a file's position must not be shared between loaders."""
    return zipfile.ZipFile(path)


def _is_image(name: str) -> bool:
    file = Path(name)
    return file.suffix.lower() in FORMATS and not file.name.startswith(".")
