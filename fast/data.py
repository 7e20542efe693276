"""Training photos as endless, repeatable random crops."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from fast.photos import Photo, PhotoStream
from media import decode_image

# A crop (3, S, S), float32 RGB in [0, 1], and what was unreadable on the way to it.
Item = tuple[Tensor, list[str]]

ZOOM = 2.0  # a photo's short side is scaled to 1...ZOOM times the crop's side
MAX_UNREADABLE = 1000  # photos of a stream, one after the other


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

    def __init__(
        self,
        photos: Sequence[Photo],
        size_of: Callable[[int], int],
        items: Sequence[int],
        *,
        seed: int = 0,
    ) -> None:
        self.photos = photos
        self.size_of = size_of
        self.items = items
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        """An item; an unreadable photo is replaced by the next."""
        item = self.items[index]
        epoch, position = divmod(item, len(self.photos))
        unreadable = []
        for photo in np.roll(self._order(epoch), -position):
            try:
                key = self.seed, epoch, position
                return random_crop(self.photos[photo], self.size_of(item), key), unreadable
            except (OSError, ValueError) as error:
                unreadable.append(str(error))
        raise ValueError(f"none of the photos can be read: {unreadable[0]}")

    @lru_cache(maxsize=1)  # noqa: B019 - one data set lives as long as the training
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))


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

    def __init__(
        self,
        stream: PhotoStream,
        size_of: Callable[[int], int],
        items: Sequence[int],
        *,
        seed: int = 0,
    ) -> None:
        self.stream = stream
        self.size_of = size_of
        self.items = items
        self.seed = seed

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
                    unreadable.append(str(error))
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

    Args:
        photo: an encoded image.
        size: side in px.
        key: of the random numbers.

    Returns:
        (3, size, size) float32 RGB in [0, 1].

    Raises:
        OSError, ValueError: the photo cannot be read.
    """
    scale, top, left, mirror = np.random.default_rng(key).random(4).tolist()
    short_side = round(size * (1 + (ZOOM - 1) * scale))
    image = decode_image(BytesIO(photo.read()), photo.name, short_side=short_side).rgb[0]
    height, width = image.shape[-2:]
    y, x = round(top * (height - size)), round(left * (width - size))
    crop = image[:, y : y + size, x : x + size]
    return crop.flip(-1) if mirror < 0.5 else crop.clone()


def collate(items: Sequence[Item]) -> Item:
    """Items of one size as a batch (B, 3, S, S), and all that was unreadable."""
    crops, unreadable = zip(*items, strict=True)
    return torch.stack(crops), sum(unreadable, [])
