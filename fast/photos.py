"""Where photos come from: folders, zip and tar archives, data sets of `datasets`."""

import os
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from media import FORMATS, decode_image, find_images

if TYPE_CHECKING:
    import datasets

ARCHIVES = (".zip", ".tar")
BUFFER = 1000  # photos of a stream among which the next one is drawn
MIN_SIDE = 16  # px, for the deepest layer of the losses


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
    member: str

    def read(self) -> bytes:
        try:
            return _open_zip(self.path, os.getpid()).read(self.member)
        except Exception as error:  # each method of compression has errors of its own
            raise ValueError(f"{self.name}: {error or type(error).__name__}") from error


@dataclass(frozen=True)
class RowPhoto:
    """A row of a data set."""

    name: str
    rows: "datasets.Dataset"
    column: str
    index: int

    def read(self) -> bytes:
        return _content(self.name, self.rows[self.index][self.column])


@dataclass(frozen=True)
class StreamedPhoto:
    """A row of a stream, here already: its bytes, or the path to them."""

    name: str
    image: dict[str, Any] | None

    def read(self) -> bytes:
        return _content(self.name, self.image)


class PhotoStream:
    """The photos of a data set, read while they are used and stored nowhere.

    Args:
        data: "hf:owner/name", a parquet file or a folder of them.
        limit: take the first so many photos only.

    Raises:
        ValueError: there is nothing of that name, or no image in it.
    """

    def __init__(self, data: str | Path, *, limit: int | None = None) -> None:
        self.name = f"stream of {limit or 'all'} photos of {data}"
        path = Path(data)
        tables = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if str(data).startswith("hf:"):
            rows, self.column = _open_rows(str(data).removeprefix("hf:"), None, streaming=True)
        elif tables and all(p.suffix == ".parquet" and p.is_file() for p in tables):
            rows, self.column = _open_rows("parquet", tables, streaming=True)
        else:
            raise ValueError(f"--data {data} is no data set of a hub and no parquet file to stream")
        self.rows = rows.take(limit) if limit else rows
        self.held_out: list[Photo] = []

    def __iter__(self) -> Iterator[Photo]:
        return self._photos(self.rows)

    def hold_out(self, number: int) -> list[Photo]:
        """The first photos; they are left out from now on."""
        self.held_out = list(islice(self, number))
        return self.held_out

    def shuffled(self, seed: int) -> Iterator[Photo]:
        """All photos, again and again, in another order each time."""
        rows = self.rows.shuffle(seed=seed, buffer_size=BUFFER)
        for epoch in count():
            rows.set_epoch(epoch)
            is_empty = True
            for photo in self._photos(rows):
                # Compared by content: skipping the first rows would keep the files in their order.
                if photo.image not in [held_out.image for held_out in self.held_out]:
                    is_empty = False
                    yield photo
            if is_empty:
                raise ValueError(f"{self.name}: there is none to train on")

    def _photos(self, rows: "datasets.IterableDataset") -> Iterator[Photo]:
        for number, row in enumerate(rows):
            image = row[self.column]
            yield StreamedPhoto((image or {}).get("path") or f"row {number}", image)


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
        others = [] if photos else sorted(path.rglob("*"))
        for archive in (p for p in others if p.suffix.lower() in ARCHIVES):
            photos += _photos_in_archive(archive)
        tables = [p for p in others if p.suffix.lower() == ".parquet"]
        if tables and not photos:
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


def read_photos(
    photos: Iterable[Photo], size: int, *, count: int | None = None
) -> dict[str, Tensor]:
    """Photos (1, 3, H, W) by name, each scaled to a longer side of `size` px.

    The first `count` that can be read; one that cannot is left out with a warning. ValueError if
    none can.
    """
    images, failure = {}, None
    for photo in photos:
        if len(images) == count:
            break
        try:
            image = decode_image(BytesIO(photo.read()), photo.name, long_side=size).rgb
            height, width = image.shape[-2:]
            if min(height, width) < MIN_SIDE:
                raise ValueError(f"{photo.name} is too thin: {width}x{height} px")
        except (OSError, ValueError) as error:
            failure = error
            warnings.warn(f"photo left out: {error}", stacklevel=2)
        else:
            images[photo.name] = image
    if not images:
        raise ValueError(f"none of the photos can be read: {failure}")
    return images


def _photos_in_archive(path: Path) -> list[Photo]:
    try:
        if zipfile.is_zipfile(path):
            names = _open_zip(path, os.getpid()).namelist()
            return [ZipPhoto(f"{path.name}/{n}", path, n) for n in names if _is_image(n)]
        with tarfile.open(path, "r:") as archive:
            return [
                FilePhoto(f"{path.name}/{member.name}", path, member.offset_data, member.size)
                for member in archive
                if member.isfile() and _is_image(member.name)
            ]
    except (tarfile.TarError, zipfile.BadZipFile):
        raise ValueError(
            f"--data {path} is no zip or plain tar archive, or a damaged one; a compressed tar "
            "archive has to be unpacked"
        ) from None


def _photos_in_rows(name: str, files: Sequence[Path] | None) -> list[Photo]:
    rows, column = _open_rows(name, files)
    shown = files[0].name if files else name
    return [RowPhoto(f"{shown} row {index}", rows, column, index) for index in range(len(rows))]


def _open_rows(
    name: str, files: Sequence[Path] | None, *, streaming: bool = False
) -> tuple[Any, str]:
    """A data set, and the name of its first column of images, which are not decoded."""
    try:
        import datasets
    except ImportError:
        raise ValueError(
            "parquet files and data sets of a hub need: pip install datasets"
        ) from None
    shown = files[0] if files else f"hf:{name}"
    files = {"data_files": [str(f) for f in files]} if files else {}
    try:
        parts = datasets.load_dataset(name, **files, streaming=streaming)
    except Exception as error:  # of the network, the file system, the parsers of many formats
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"--data {shown}: {reason}") from error
    rows = parts.get("train", next(iter(parts.values())))
    columns = [c for c, kind in (rows.features or {}).items() if isinstance(kind, datasets.Image)]
    if not columns:
        known = ", ".join(rows.features or ["of unknown kind"])
        raise ValueError(f"--data {shown}: no images in its columns {known}")
    return rows.cast_column(columns[0], datasets.Image(decode=False)), columns[0]


def _content(name: str, image: dict[str, Any] | None) -> bytes:
    """The file of an image that `datasets` has not decoded."""
    image = image or {}
    if image.get("bytes") is not None:
        return image["bytes"]
    if image.get("path") is None:
        raise ValueError(f"{name} holds no image")
    import fsspec  # comes with `datasets`; a stream's path may lead into an archive or to a server

    with fsspec.open(image["path"], "rb") as file:
        return file.read()


@cache
def _open_zip(path: Path, process: int) -> zipfile.ZipFile:
    """Open once in every process: a file's position must not be shared between loaders."""
    return zipfile.ZipFile(path)


def _is_image(name: str) -> bool:
    file = Path(name)
    return file.suffix.lower() in FORMATS and not file.name.startswith(".")
