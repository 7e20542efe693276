"""Steady videos in any style: strokes stay where they are, or move with what they are painted on.

A network paints each frame anew, and changes of the photo that nobody sees let strokes jump. Here
the last painting is moved along the optical flow and kept wherever it still shows the photo, as in
Ruder et al. (arXiv 1604.08610), but after the painting instead of in an optimisation.
"""

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from media import VIDEO_HINT

MAX_STEADINESS = 2.0
SEEN_SIDE = 480  # px, longer side of the frames that are compared
SMOOTH = 3.0  # px, of the flow: strokes on even ground would break up otherwise
NEAR = 2.0  # px, within which differences are averaged
# What is kept fades out between these two: grey levels between a photo and the one whose painting
# it has, and how far that has been stretched since (1 is twice the size).
DIFFERENCE = 6.0, 12.0
STRETCH = 0.4, 0.6
# Part of the longer side: what has entered there by more than so many px has to find its strokes.
BORDER, ENTERING = 0.025, (0.25, 1.0)
# With less of a frame to be kept it is a new scene, whose even parts only seem to go on.
NEW_SCENE = 0.2


class Steadiness:
    """Paintings of a video's frames, each like the one before where the photo is.

    Args:
        amount: 0 leaves paintings as they are; with more, a photo may change more before it is
            painted anew.

    Raises:
        ValueError: the amount is out of range, or OpenCV is missing.
    """

    def __init__(self, amount: float = 1.0) -> None:
        if not 0 <= amount <= MAX_STEADINESS:
            raise ValueError(f"--steadiness {amount:g}: must be from 0 to {MAX_STEADINESS:g}")
        self.amount = amount
        if amount:
            self.cv2 = _opencv()
            self.flow = self.cv2.DISOpticalFlow_create(self.cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self.painting: np.ndarray | None = None  # the last one, (H, W, 3) float32 in grey levels
        self.seen: np.ndarray | None = None  # its photo, smaller, (h, w, 3)
        self.painted: np.ndarray | None = None  # the photo of its strokes, moved with them
        self.strain: np.ndarray | None = None  # how they were stretched, (h, w, 4)

    def __call__(self, photo: Tensor, painting: Tensor) -> Tensor:
        """The next frame's painting, with strokes of the last one.

        Args:
            photo: (1, 3, H, W) uint8 RGB.
            painting: likewise; another size, as of a sheet of several, stays as it is.

        Returns:
            uint8 RGB of the painting's size.
        """
        if not self.amount or painting.shape != photo.shape:
            return painting
        seen, new = self._shrunk(_rows(photo)), _rows(painting).astype(np.float32)
        if self.painting is None or self.painting.shape != new.shape:
            self._begin(seen)
        else:
            new = self._with_last(seen, new)
        self.seen, self.painting = seen, new
        levels = torch.from_numpy(new.round().clip(0, 255).astype(np.uint8))
        return levels.permute(2, 0, 1)[None].contiguous()

    def _begin(self, seen: np.ndarray) -> None:
        self.painted = seen
        self.strain = np.zeros((*seen.shape[:2], 4), np.float32)

    def _with_last(self, seen: np.ndarray, new: np.ndarray) -> np.ndarray:
        flow = self._flow_from_last(seen)
        painted = self._moved(self.painted, flow)
        strain = self._moved(self.strain, flow)
        strain += np.dstack([*np.gradient(flow[..., 0]), *np.gradient(flow[..., 1])])
        low, high = (self.amount * level for level in DIFFERENCE)
        keep = (
            _fading(self._blurred(np.abs(painted - seen).mean(2), NEAR), low, high)
            * _fading(self._blurred(np.linalg.norm(strain, axis=2), NEAR), *STRETCH)
            * _from_inside(flow)
        )[..., None]
        if keep.mean() < NEW_SCENE:
            self._begin(seen)
            return new
        self.painted = seen + keep * (painted - seen)
        self.strain = keep * strain
        height, width = new.shape[:2]
        scale = np.float32([width / flow.shape[1], height / flow.shape[0]])
        flow = scale * self.cv2.resize(flow, (width, height))
        keep = self.cv2.resize(keep, (width, height))[..., None]
        new += keep * (self._moved(self.painting, flow) - new)
        return new

    def _shrunk(self, image: np.ndarray) -> np.ndarray:
        scale = min(1, SEEN_SIDE / max(image.shape[:2]))
        height, width = (max(16, round(scale * side)) for side in image.shape[:2])
        small = self.cv2.resize(image, (width, height), interpolation=self.cv2.INTER_AREA)
        return small.astype(np.float32)

    def _flow_from_last(self, seen: np.ndarray) -> np.ndarray:
        """(h, w, 2): where each pixel was in the last photo, x and y in px from here."""
        grey = [image.mean(2).round().astype(np.uint8) for image in (seen, self.seen)]
        return self._blurred(self.flow.calc(*grey, None), SMOOTH)

    def _moved(self, image: np.ndarray, flow: np.ndarray) -> np.ndarray:
        """At each pixel what lies at the end of its flow."""
        x, y = _ends(flow)
        cv2, reflect = self.cv2, self.cv2.BORDER_REFLECT
        moved = cv2.remap(image, x, y, cv2.INTER_LANCZOS4, borderMode=reflect)
        # Softer filters blur strokes within some frames. This one exaggerates them, by a few per
        # cent a frame, and is kept within what is there.
        near = np.ones((3, 3), np.uint8)
        low, high = (
            cv2.remap(extreme(image, near), x, y, cv2.INTER_NEAREST, borderMode=reflect)
            for extreme in (cv2.erode, cv2.dilate)
        )
        return np.clip(moved, low, high, out=moved)

    def _blurred(self, image: np.ndarray, sigma: float) -> np.ndarray:
        return self.cv2.GaussianBlur(image, (0, 0), sigma)


def _opencv() -> ModuleType:
    """OpenCV, for its optical flow by dense inverse search (Kroeger et al., arXiv 1603.03590)."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(f"steady videos need OpenCV: {VIDEO_HINT}; or --steadiness 0") from error
    return cv2


def _rows(image: Tensor) -> np.ndarray:
    """(1, 3, H, W) as (H, W, 3)."""
    return image[0].permute(1, 2, 0).cpu().contiguous().numpy()


def _fading(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """1 up to the low value, 0 from the high one on."""
    return ((high - values) / (high - low)).clip(0, 1)


def _ends(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x and y, (h, w) each in px, of the place where each pixel's flow ends."""
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y


def _from_inside(flow: np.ndarray) -> np.ndarray:
    """(h, w): 0 where a pixel comes from beyond the border, 1 if from well within or at rest."""
    height, width = flow.shape[:2]
    x, y = _ends(flow)
    inside = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y))
    at_rest = _fading(np.linalg.norm(flow, axis=2), *ENTERING)
    return np.maximum(inside / (BORDER * max(height, width)), at_rest).clip(0, 1)
