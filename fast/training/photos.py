"""Where photos come from: folders, zip and tar archives, data sets of `datasets`."""

import os
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fast.training.rows import HUB, parquet_files, photos_in_rows
from media import FORMATS, decode_image, find_images

ARCHIVES = (".zip", ".tar")
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
    if str(data).startswith(HUB):
        photos = photos_in_rows(data)
    elif path.is_dir():
        photos = _photos_in_folder(path)
    elif tables := parquet_files(path):
        photos = photos_in_rows(data, tables)
    elif path.is_file():
        photos = _photos_in_archive(path)
    else:
        raise ValueError(f"--data {data}: no such folder or file")
    if not photos:
        raise ValueError(f"--data {data}: no image in it")
    return photos[:limit]


def read_photos(
    photos: Iterable[Photo],
    size: int,
    *,
    count: int | None = None,
    reported: set[str] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Names of photos and the photos (1, 3, H, W), each scaled to a longer side of `size` px.

    Those that cannot be read are left out with a warning; see warn_unreadable.

    Args:
        photos: to read.
        size: longer side in px.
        count: end after so many; all by default.
        reported: photos already warned of.

    Raises:
        ValueError: none can be read.
    """
    found, failures = 0, []
    reported = set() if reported is None else reported
    for photo in photos:
        try:
            image = decode_image(BytesIO(photo.read()), photo.name, long_side=size).rgb
            height, width = image.shape[-2:]
            if min(height, width) < MIN_SIDE:
                raise ValueError(f"{photo.name} is too thin: {width}x{height} px")
        except (OSError, ValueError) as error:
            failures.append(reason(photo, error))
            continue
        # Only once one could be read: if none can, there is one error and no warning.
        warn_unreadable(failures, reported)
        yield photo.name, image
        found += 1
        if found == count:
            return
    if not found:
        raise ValueError(f"no photo of {len(failures)} can be read: {failures[0]}")
    warn_unreadable(failures, reported)


def warn_unreadable(failures: Iterable[str], reported: set[str]) -> None:
    """Warn of unreadable photos, once each.

    Args:
        failures: why each cannot be read, with its name.
        reported: those already warned of; new ones are added.
    """
    for failure in failures:
        if failure not in reported:
            reported.add(failure)
            warnings.warn(f"photo left out: {failure}", stacklevel=2)


def reason(photo: Photo, error: OSError | ValueError) -> str:
    """Why a photo cannot be read, with its name, which errors of the system may lack."""
    is_of_system = isinstance(error, OSError) and error.strerror
    return f"{photo.name}: {error.strerror}" if is_of_system else str(error)


def _photos_in_folder(path: Path) -> Sequence[Photo]:
    """Its images; where there are none, those in its archives; else those in its tables."""
    if images := find_images(path):
        return [FilePhoto(str(image.relative_to(path)), image) for image in images]
    archives = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in ARCHIVES)
    if photos := [photo for archive in archives for photo in _photos_in_archive(archive)]:
        return photos
    tables = parquet_files(path)
    return photos_in_rows(path, tables) if tables else []


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


@cache
def _open_zip(path: Path, process: int) -> zipfile.ZipFile:
    """Open once in every process: a file's position must not be shared between loaders."""
    return zipfile.ZipFile(path)


def _is_image(name: str) -> bool:
    file = Path(name)
    return file.suffix.lower() in FORMATS and not file.name.startswith(".")
