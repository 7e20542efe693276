"""Photos in data sets of the `datasets` library: parquet files and those of the hub."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

BUFFER = 1000  # photos of a stream among which the next one is drawn
HUB = "hf:"


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

    image: dict[str, Any] | None

    @property
    def name(self) -> str:
        image = self.image or {}  # many rows may have the same path, or none
        sha256 = hashlib.sha256(image.get("bytes") or b"").hexdigest()
        return f"{image.get('path') or 'image'} (SHA-256 {sha256[:8]})"

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
        files = parquet_files(Path(data))
        if not files and not str(data).startswith(HUB):
            raise ValueError(f"--data {data} is no data set of a hub and no parquet file to stream")
        rows, self.column = _open(data, files, streaming=True)
        self.rows = rows.take(limit) if limit else rows
        self.held_out: list[StreamedPhoto] = []

    def __iter__(self) -> Iterator[StreamedPhoto]:
        return self._photos(self.rows)

    def hold_out(self, most: int, *, at_least: int) -> list[StreamedPhoto]:
        """The first photos, one in ten, but at most so many; they are left out from now on.

        ValueError if it turns out that fewer than `at_least` are left.
        """
        first = list(islice(self, 10 * most))
        self.held_out = first[: len(first) // 10]
        left = len(first) - len(self.held_out)
        if len(first) < 10 * most and left < at_least:
            raise ValueError(
                f"--data: {left} photos to train on, in the {self.name}, are fewer than the "
                f"{at_least} of a step"
            )
        return self.held_out

    def shuffled(self, seed: int) -> Iterator[StreamedPhoto]:
        """All photos, again and again, in another order each time."""
        for epoch in count():
            # The library shuffles the files; its way with a buffer depends on the worker process.
            rows = self.rows.shuffle(seed=seed, buffer_size=1)
            rows.set_epoch(epoch)
            random = np.random.default_rng((seed, epoch))
            buffer: list[StreamedPhoto] = []
            for photo in self._photos(rows):
                if len(buffer) < BUFFER:
                    buffer.append(photo)
                else:
                    drawn = random.integers(BUFFER)
                    yield buffer[drawn]
                    buffer[drawn] = photo
            if not buffer:
                raise ValueError(f"{self.name}: all that are left equal those held out")
            yield from (buffer[i] for i in random.permutation(len(buffer)))

    def _photos(self, rows: "datasets.IterableDataset") -> Iterator[StreamedPhoto]:
        # Recognised by content: to skip the first rows would fix the order of the files.
        held_out = [photo.image for photo in self.held_out]
        try:
            for row in rows:
                if row[self.column] not in held_out:
                    yield StreamedPhoto(row[self.column])
        except Exception as error:  # of the network, the file system, the parsers of many formats
            raise OSError(f"{self.name}: {_reason(error)}") from error


def parquet_files(path: Path) -> list[Path]:
    """The file itself, or those in a folder and in the folders in it."""
    candidates = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [p for p in candidates if p.suffix.lower() == ".parquet" and p.is_file()]


def photos_in_rows(data: str | Path, files: Sequence[Path] = ()) -> list[RowPhoto]:
    """The photos in parquet files, or in a data set of the hub, "hf:owner/name"."""
    rows, column = _open(data, files, streaming=False)
    shown = files[0].name if files else str(data).removeprefix(HUB)
    return [RowPhoto(f"{shown} row {index}", rows, column, index) for index in range(len(rows))]


def _open(data: str | Path, files: Sequence[Path], *, streaming: bool) -> tuple[Any, str]:
    """A data set, and the name of its first column of images, which are not decoded."""
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise ValueError(
            'parquet files and data sets of a hub need: pip install -e ".[data]"'
        ) from None
    if str(data) == HUB:
        raise ValueError(f"--data {HUB} needs the name of a data set, {HUB}owner/name")
    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.logging.set_verbosity(logging.CRITICAL)  # the reason comes with the error
    arguments = {"path": str(data).removeprefix(HUB)}
    if files:
        arguments = {"path": "parquet", "data_files": [str(file) for file in files]}
    try:
        parts = datasets.load_dataset(**arguments, streaming=streaming)
    except Exception as error:  # as above
        raise ValueError(f"--data {data}: {_reason(error)}") from error
    rows = parts.get("train", next(iter(parts.values())))
    columns = [c for c, kind in (rows.features or {}).items() if isinstance(kind, datasets.Image)]
    if not columns:
        known = ", ".join(rows.features or ["of unknown kind"])
        raise ValueError(f"--data {data}: no images in its columns {known}")
    return rows.cast_column(columns[0], datasets.Image(decode=False)), columns[0]


def _content(name: str, image: dict[str, Any] | None) -> bytes:
    """The file of an image that has not been decoded."""
    image = image or {}
    if image.get("bytes") is not None:
        return image["bytes"]
    if image.get("path") is None:
        raise ValueError(f"{name} holds no image")
    import fsspec  # comes with `datasets`; a stream's path may lead into an archive or to a server

    try:
        with fsspec.open(image["path"], "rb") as file:
            return file.read()
    except Exception as error:  # as above
        raise OSError(f"{name}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The first line of what went wrong in the first place."""
    while error.__cause__:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]
