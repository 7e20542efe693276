"""Training photos as an endless, repeatable stream of random crops."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from media import find_images, read_image


class PhotoCrops(Dataset[Tensor]):
    """Random square crops of photos; item i is a function of the seed and i alone.

    Every photo comes once before any comes again, in another order each time. Because an item
    depends on nothing else, training resumes at any item without a saved random state, and workers
    and processes may share the items out in any way.

    Args:
        photos: image files.
        size_of: side of an item's crop in px.
        seed: of order, crop and mirroring.
        zoom: the photo's short side is scaled to 1...zoom times the crop's side.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        size_of: Callable[[int], int],
        *,
        seed: int = 0,
        zoom: float = 2.0,
    ) -> None:
        self.photos = photos
        self.size_of = size_of
        self.seed = seed
        self.zoom = zoom

    def __getitem__(self, item: int) -> Tensor:
        """An item (3, S, S), S as size_of says."""
        return self.crop(item, self.size_of(item))

    def crop(self, item: int, size: int) -> Tensor:
        """(3, size, size) float32 RGB in [0, 1]; an unreadable photo is replaced by the next."""
        epoch, position = divmod(item, len(self.photos))
        random = np.random.default_rng((self.seed, epoch, position)).random(4).tolist()
        for index in np.roll(self._order(epoch), -position):
            try:
                return self._read(self.photos[index], size, *random)
            except (OSError, ValueError) as error:
                warnings.warn(f"photo left out: {error}", stacklevel=2)
        raise ValueError("none of the photos can be read")

    @lru_cache(maxsize=1)  # noqa: B019 - one data set lives as long as the training
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.photos))

    def _read(
        self, path: Path, size: int, scale: float, top: float, left: float, mirror: float
    ) -> Tensor:
        photo = read_image(path, short_side=round(size * (1 + (self.zoom - 1) * scale))).rgb[0]
        height, width = photo.shape[-2:]
        y, x = round(top * (height - size)), round(left * (width - size))
        crop = photo[:, y : y + size, x : x + size]
        return crop.flip(-1) if mirror < 0.5 else crop.clone()


def find_photos(folder: Path) -> list[Path]:
    """Image files below a folder; ValueError if it is no folder or holds none."""
    if not folder.is_dir():
        raise ValueError(f"--data {folder}: no such folder")
    photos = find_images(folder)
    if not photos:
        raise ValueError(f"--data {folder}: no image in it")
    return photos
