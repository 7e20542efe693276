"""Training photos as endless, repeatable random crops."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

import interrupt
from fast.training.photos import Photo, find_photos, reason
from fast.training.rows import PhotoStream
from fast.training.settings import TrainingSettings, crop_size
from media import Window, decode_image

# A crop (3, S, S), uint8 RGB, and what was unreadable on the way to it.
Item = tuple[Tensor, list[str]]

NUM_HELD_OUT = 8  # photos that are not trained on
ZOOM = 2.0  # a photo's short side is scaled to 1...ZOOM times the crop's side
MOSAIC = 0.7  # share of the crops of photos smaller than they that are made of four
MAX_UNREADABLE = 1000  # photos of a stream, one after the other
FLAT = 1.0  # deviation of the most varied channel, of 255
FLAT_STRIDE = 4  # between the pixels that are looked at for it
MAX_DRAWS = 10  # of a photo's crops, if they are flat


@dataclass(frozen=True)
class TrainingData:
    """Photos to train on, and some that are kept out of them; names stands for the former."""

    photos: Sequence[Photo] | PhotoStream
    held_out: Sequence[Photo]
    names: str


def find_training_data(
    data: str | Path, *, limit: int | None, streaming: bool, at_least: int
) -> TrainingData:
    """The photos of a data set, one in ten of them held out, but at most NUM_HELD_OUT.

    Args:
        data: as for find_photos, or for PhotoStream when streaming.
        limit: take the first so many only.
        streaming: read them while they are used.
        at_least: how many have to be left to train on.

    Raises:
        ValueError: there is nothing of that name, or there are too few images in it.
        OSError: it cannot be read.
    """
    if streaming:
        stream = PhotoStream(data, limit=limit)
        held_out = stream.hold_out(NUM_HELD_OUT, at_least=at_least)
        return TrainingData(stream, held_out, stream.name)
    photos = find_photos(data, limit=limit)
    number = min(NUM_HELD_OUT, len(photos) // 10)
    chosen = {round((i + 0.5) * len(photos) / number) for i in range(number)}  # from all over it
    parts: tuple[list[Photo], list[Photo]] = [], []
    for index, photo in enumerate(photos):
        parts[index in chosen].append(photo)
    if len(parts[0]) < at_least:
        raise ValueError(
            f"--data {data}: {len(parts[0])} photos to train on are fewer than the {at_least} "
            "of a step"
        )
    return TrainingData(*parts, "\n".join(photo.name for photo in parts[0]))


def make_loader(
    photos: Sequence[Photo] | PhotoStream,
    settings: TrainingSettings,
    accelerator: Accelerator,
    *,
    first_step: int,
    num_workers: int,
) -> DataLoader[Item]:
    """Batches for this process from a step on to the end: crops (B, 3, S, S) and unreadables.

    Processes take turns, a batch each. Item i is the same crop in every run.
    """
    processes = accelerator.num_processes
    images_per_step = settings.images_per_step(processes)
    items = Share(
        range(first_step * images_per_step, settings.steps * images_per_step),
        batch_size=settings.batch_size,
        process=accelerator.process_index,
        processes=processes,
    )
    streaming = isinstance(photos, PhotoStream)
    return DataLoader(
        (StreamedCrops if streaming else PhotoCrops)(
            photos, partial(crop_size, settings, images_per_step), items, seed=settings.seed
        ),
        batch_size=settings.batch_size,
        num_workers=min(1, num_workers) if streaming else num_workers,
        collate_fn=collate,
        worker_init_fn=interrupt.leave_to_main_process,
        pin_memory=accelerator.device.type == "cuda",
    )


@dataclass(frozen=True)
class Share(Sequence[int]):
    """The items of one process, where processes take batches in turn; `items`, those of all, must
    be whole turns.
    """

    items: range
    batch_size: int
    process: int
    processes: int

    def __len__(self) -> int:
        return len(self.items) // self.processes

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(index)
        turn, place = divmod(index, self.batch_size)
        return self.items[(turn * self.processes + self.process) * self.batch_size + place]


@dataclass(eq=False)
class PhotoCrops(Dataset[Item]):
    """Random square crops of photos: some of its items, in any order.

    Item i is a function of the seed and i alone: training resumes at any item without a saved
    random state, and workers and processes may share the items out in any way. Every photo comes
    once before any comes again, in another order each time.

    Args:
        photos: encoded images.
        size_of: side of an item's crop in px.
        items: the numbers of those to give.
        seed: of order, crop and mirroring.
    """

    photos: Sequence[Photo]
    size_of: Callable[[int], int]
    items: Sequence[int]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        """An item; an unreadable photo is replaced by the next."""
        item = self.items[index]
        epoch, position = divmod(item, len(self.photos))
        order, unreadable = self._order(epoch), []
        for number in range(position, position + len(order)):
            photo = self.photos[order[number % len(order)]]
            try:
                key = self.seed, epoch, position
                return random_crop(photo, self.size_of(item), key), unreadable
            except (OSError, ValueError) as error:
                unreadable.append(reason(photo, error))
        raise ValueError(f"none of the photos can be read: {unreadable[0]}")

    @lru_cache(maxsize=1)  # noqa: B019 - one data set lives as long as the training
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))


@dataclass(eq=False)
class StreamedCrops(IterableDataset[Item]):
    """Random square crops of a stream's photos: some of its items, in their order.

    Item i is a crop of the stream's photo number i, or of the first readable one after it. To get
    there, all photos before it are read, too, but not decoded.

    Args:
        stream: encoded images.
        size_of: side of an item's crop in px.
        items: the numbers of those to give, ascending.
        seed: of order, crop and mirroring.
    """

    stream: PhotoStream
    size_of: Callable[[int], int]
    items: Sequence[int]
    seed: int = 0

    def __iter__(self) -> Iterator[Item]:
        items = iter(self.items)
        upcoming = next(items)
        waiting, unreadable = [], []
        for number, photo in enumerate(self.stream.shuffled(self.seed)):
            if number == upcoming:
                waiting.append(number)
                upcoming = next(items, None)
            if waiting:
                try:
                    crops = [random_crop(photo, self.size_of(i), (self.seed, i)) for i in waiting]
                except (OSError, ValueError) as error:
                    unreadable.append(reason(photo, error))
                    if len(unreadable) == MAX_UNREADABLE:
                        raise ValueError(
                            f"none of {MAX_UNREADABLE} photos can be read: {error}"
                        ) from error
                else:
                    for crop in crops:
                        yield crop, unreadable
                        unreadable = []
                    waiting = []
            if upcoming is None and not waiting:
                return


def random_crop(photo: Photo, size: int, key: tuple[int, ...]) -> Tensor:
    """A square of a photo, mirrored or not.

    A flat crop is drawn again, at most MAX_DRAWS times: it teaches nothing, and yet each
    normalisation enlarges its gradient, up to 300 times.

    Args:
        photo: an encoded image.
        size: side in px.
        key: of the random numbers.

    Returns:
        (3, size, size) uint8 RGB.

    Raises:
        OSError, ValueError: the photo cannot be read.
    """
    random, content = np.random.default_rng(key), photo.read()
    for _ in range(MAX_DRAWS):
        crop = _draw(content, photo.name, size, random)
        if crop[:, ::FLAT_STRIDE, ::FLAT_STRIDE].float().std((1, 2)).max() >= FLAT:
            break
    return crop


def _draw(content: bytes, name: str, size: int, random: np.random.Generator) -> Tensor:
    """A square that is no more enlarged than it has to be; from a photo that is smaller often a
    mosaic of four: a network that has only seen blurred ones loses the detail of sharp photos.
    """
    zoom, top, left, mirror, tiled = random.random(5).tolist()
    short_side = round(size * (1 + (ZOOM - 1) * zoom))
    window = Window(size, top, left)
    crop = decode_image(
        BytesIO(content), name, short_side=short_side, enlarge=False, window=window
    ).pixels[0]
    smallest = min(crop.shape[1:])  # less than the size if the photo is smaller
    if size / 2 <= smallest < size and tiled < MOSAIC:
        tiles = [_draw(content, name, math.ceil(size / 2), random) for _ in range(4)]
        rows = torch.cat(tiles[:2], dim=2), torch.cat(tiles[2:], dim=2)
        return torch.cat(rows, dim=1)[:, :size, :size]
    if smallest < size:
        crop = decode_image(BytesIO(content), name, short_side=size, window=window).pixels[0]
    return crop.flip(-1) if mirror < 0.5 else crop


def collate(items: Sequence[Item]) -> Item:
    """Items of one size as a batch (B, 3, S, S) uint8, and all that was unreadable."""
    crops, unreadable = zip(*items, strict=True)
    return torch.stack(crops), sum(unreadable, [])
