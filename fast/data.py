"""Training photos as an endless, repeatable stream of random crops."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fast.photos import Photo
from media import decode_image


class PhotoCrops(Dataset[tuple[Tensor, list[str]]]):
    """Random square crops of photos; item i is a function of the seed and i alone.

    Every photo comes once before any comes again, in another order each time. Because an item
    depends on nothing else, training resumes at any item without a saved random state, and workers
    and processes may share the items out in any way.

    Args:
        photos: encoded images.
        size_of: side of an item's crop in px.
        seed: of order, crop and mirroring.
        zoom: the photo's short side is scaled to 1...zoom times the crop's side.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        size_of: Callable[[int], int],
        *,
        seed: int = 0,
        zoom: float = 2.0,
    ) -> None:
        self.photos = photos
        self.size_of = size_of
        self.seed = seed
        self.zoom = zoom

    def __getitem__(self, item: int) -> tuple[Tensor, list[str]]:
        """An item (3, S, S), S as size_of says, and what was unreadable on the way to it."""
        return self.crop(item, self.size_of(item))

    def crop(self, item: int, size: int) -> tuple[Tensor, list[str]]:
        """(3, size, size) float32 RGB in [0, 1]; an unreadable photo is replaced by the next."""
        epoch, position = divmod(item, len(self.photos))
        random = np.random.default_rng((self.seed, epoch, position)).random(4).tolist()
        unreadable = []
        for index in np.roll(self._order(epoch), -position):
            try:
                return self._read(self.photos[index], size, *random), unreadable
            except (OSError, ValueError) as error:
                unreadable.append(str(error))
        raise ValueError(f"none of the photos can be read: {unreadable[0]}")

    @lru_cache(maxsize=1)  # noqa: B019 - one data set lives as long as the training
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))

    def _read(
        self, photo: Photo, size: int, scale: float, top: float, left: float, mirror: float
    ) -> Tensor:
        short_side = round(size * (1 + (self.zoom - 1) * scale))
        image = decode_image(BytesIO(photo.read()), photo.name, short_side=short_side).rgb[0]
        height, width = image.shape[-2:]
        y, x = round(top * (height - size)), round(left * (width - size))
        crop = image[:, y : y + size, x : x + size]
        return crop.flip(-1) if mirror < 0.5 else crop.clone()


def collate(items: Sequence[tuple[Tensor, list[str]]]) -> tuple[Tensor, list[str]]:
    """Items of one size as a batch (B, 3, S, S), and all that was unreadable."""
    crops, unreadable = zip(*items, strict=True)
    return torch.stack(crops), sum(unreadable, [])
