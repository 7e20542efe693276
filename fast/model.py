"""A trained style as an object: call it with a tensor, a PIL image or a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fast.bandwise import bandwise
from fast.blending import are_related, average_weights
from fast.catalogue import find_model
from fast.mixing import composite, mix
from fast.stroke import Stroke, check_stroke, restore_detail, seen_size, stroke_for
from fast.stylize import load_net, stylize
from media import (
    Picture,
    PilImage,
    from_pil,
    read_image,
    read_mask,
    resize,
    to_pil,
    write_image,
)
from media.colors import keep_colors
from media.images import MAX_PIXELS, scaled_size
from models.transformer_net import TransformerNet

MAX_STRENGTH = 1.5


class StyleModel:
    """One trained network, or several whose paintings are blended.

    Args:
        nets: networks from `load_net`.
        parts: how much of each, in sum 1.
        max_memory: bytes that the process may take; see `stylize`.
    """

    def __init__(
        self,
        nets: Sequence[TransformerNet],
        parts: Sequence[float],
        max_memory: float | None = None,
    ) -> None:
        self.nets = nets
        self.parts = parts
        self.max_memory = max_memory

    def __call__(
        self,
        photo: Tensor | PilImage | np.ndarray | Path | str,
        *,
        strength: float = 1.0,
        stroke: Stroke = 1.0,
        preserve_color: bool = False,
        size: int | None = None,
        mask: Tensor | PilImage | np.ndarray | Path | str | None = None,
        invert_mask: bool = False,
        output: Path | str | None = None,
    ) -> Tensor | PilImage | Path:
        """Paint a photo.

        Args:
            photo: (B, 3, H, W) RGB, float32 in [0, 1] or uint8; a PIL image; a numpy array
                as for media.from_pil, RGB, RGBA or grey; or an image file.
            strength: 0 is the photo, 1 the painting; up to 1.5 the painting is painted again.
            stroke: size of the brush strokes, from 0.1 to 10 times the usual one, or "auto", see
                stroke_for.
            preserve_color: only the brightness is painted, the colours are the photo's.
            size: longer side of the result in px; the photo's own by default.
            mask: what to paint, white or opaque, of the photo's proportions; its border is
                softened. A PIL image, a numpy array or an image file; or, of the result's size, a
                tensor (H, W), bool or in [0, 1].
            invert_mask: paint what the mask leaves out.
            output: image file to write, in the format of its suffix, of a single photo; an existing
                one is replaced.

        Returns:
            A tensor for a tensor, else a PIL image; the output's path if there is one. Transparency
            is kept.

        Raises:
            OSError: a file cannot be read or written.
            TypeError: photo or mask is nothing that could be an image.
            ValueError: a file is no image, or a setting is out of its range.
        """
        check_look(strength, stroke)
        if size is not None and size < 1:
            raise ValueError(f"--size {size}: must be 1 px or more")
        if invert_mask and mask is None:
            raise ValueError("invert_mask needs a mask")
        if isinstance(photo, Tensor):
            _check_tensor(photo)
            if output is not None and len(photo) > 1:
                raise ValueError(f"{output} takes one painting, not a batch of {len(photo)}")
            height, width = photo.shape[-2:]
            new_width, new_height = scaled_size((width, height), size)
            pixels = resize(photo, (new_height, new_width))
            picture = Picture(pixels, original_size=(width, height))
        else:
            is_file = isinstance(photo, (str, Path))
            picture = (read_image if is_file else from_pil)(photo, long_side=size)
        painted = self.paint(
            picture.pixels,
            strength=strength,
            stroke=stroke,
            preserve_color=preserve_color,
            mask=None if mask is None else as_mask(mask, picture, invert=invert_mask),
        )
        if output is not None:
            write_image(output, painted, like=picture)
            return Path(output)
        return painted if isinstance(photo, Tensor) else to_pil(painted, like=picture)

    def paint(
        self,
        photo: Tensor,
        *,
        strength: float,
        stroke: Stroke,
        preserve_color: bool,
        mask: Tensor | None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """The same for tensors alone.

        Args:
            photo: (B, 3, H, W) RGB, float32 in [0, 1] or uint8.
            strength, stroke, preserve_color: as above.
            mask: (1, 1, H, W), from as_mask, or None to paint all.
            progress: called now and then with the share of the work that was done since the last
                call.

        Returns:
            (B, 3, H, W) RGB of the photo's kind, on its device.
        """
        check_look(strength, stroke)
        stroke = stroke_for(photo, stroke)
        seen_height, seen_width = seen_size(*photo.shape[-2:], stroke)
        if seen_height * seen_width > max(MAX_PIXELS, photo[0, 0].numel()):
            raise ValueError(
                f"--stroke {stroke:g}: the network would have to see {seen_width}x{seen_height} px"
            )
        seen = resize(photo, (seen_height, seen_width))
        times = 2 if strength > 1 else 1
        report = progress and (lambda share: progress(share / times))
        painting = self._blended(seen, preserve_color, report)
        if strength > 1:
            again = self._blended(painting, preserve_color, report)
            painting = mix(painting, again, (strength - 1) / (MAX_STRENGTH - 1))
        if stroke != 1:
            painting = restore_detail(painting, seen, photo)
            if preserve_color:  # those of the small photo are coarse
                painting = bandwise(keep_colors, painting, photo)
        if strength < 1:
            painting = mix(photo, painting, strength)
        return painting if mask is None else composite(mask.to(photo.device), painting, photo)

    def _blended(
        self, photo: Tensor, preserve_color: bool, progress: Callable[[float], None] | None
    ) -> Tensor:
        painting, whole = None, 0.0
        num_nets = sum(part > 0 for part in self.parts)
        report = progress and (lambda share: progress(share / num_nets))
        for net, part in zip(self.nets, self.parts, strict=True):
            whole += part
            if part:
                one = stylize(
                    net,
                    photo,
                    preserve_color=preserve_color,
                    max_memory=self.max_memory,
                    progress=report,
                )
                painting = one if painting is None else mix(painting, one, part / whole)
        return painting


def load(
    *models: str | Path,
    blend: Sequence[float] | None = None,
    device: str | None = None,
    precision: str = "auto",
    max_memory: float | None = None,
) -> StyleModel:
    """A trained style, or several to be blended, ready to paint.

    Models from a common start are blended in their weights, as one network; of others the paintings
    are.

    Args:
        models: paths of `.pth` files, or bare names of those in checkpoints/.
        blend: how much of each model; equal parts by default.
        device: "cpu", "cuda", "mps"...; the best there is by default.
        precision: of the convolutions: "float32", "bfloat16", "float16", "int8", or "auto" for the
            fastest that is safe. Statistics are float32 in any case.
        max_memory: bytes that the process may take in all, half of what is free by default; with
            less, large photos take longer.

    Raises:
        OSError: there is no such file.
        ValueError: a file is not a checkpoint, the parts do not fit the models, or device or
            precision cannot be used.
    """
    parts = check_blend(len(models), blend)
    paths = [find_model(str(model)) for model in models]
    nets = [load_net(path, device=device, precision=precision) for path in paths]
    if len(nets) > 1 and are_related(nets):
        nets, parts = [average_weights(nets, parts)], [1.0]
    return StyleModel(nets, parts, max_memory)


def as_mask(
    mask: Tensor | PilImage | np.ndarray | Path | str, photo: Picture, *, invert: bool
) -> Tensor:
    """(1, 1, H, W) of the photo's size, 1 (or 255 in uint8) where it is to be painted.

    Raises:
        OSError: there is no such file.
        TypeError: it is nothing that could be a mask.
        ValueError: the mask is no image, or not of the photo's proportions.
    """
    height, width = photo.pixels.shape[-2:]
    if not isinstance(mask, Tensor):
        mask = read_mask(mask, photo)
    elif mask.shape[-2:] != (height, width) or mask.numel() != height * width:
        raise ValueError(f"a mask of {tuple(mask.shape)} does not fit {height} rows of {width} px")
    elif mask.dtype == torch.bool:
        mask = mask.float()
    elif not mask.is_floating_point():
        raise ValueError(f"a mask must be bool or from 0 to 1, not {mask.dtype}")
    elif not 0 <= mask.min() <= mask.max() <= 1:  # which NaN is not, either
        raise ValueError("a mask must be bool or from 0 to 1")
    mask = mask.reshape(1, 1, height, width)
    if invert:
        mask = (255 if mask.dtype == torch.uint8 else 1) - mask
    return mask


def _check_tensor(photo: Tensor) -> None:
    is_image = photo.dim() == 4 and photo.shape[1] == 3 and 0 not in photo.shape
    if not is_image or not (photo.is_floating_point() or photo.dtype == torch.uint8):
        kind = f"{tuple(photo.shape)} of {str(photo.dtype).removeprefix('torch.')}"
        raise ValueError(f"a tensor must be (B, 3, H, W) of floating point or uint8, not {kind}")


def check_look(strength: float, stroke: Stroke) -> None:
    """ValueError unless a painting can be made with these settings."""
    if not 0 <= strength <= MAX_STRENGTH:
        raise ValueError(f"--strength {strength:g}: must be from 0 to {MAX_STRENGTH}")
    check_stroke(stroke)


def check_blend(num_models: int, blend: Sequence[float] | None) -> list[float]:
    """The parts of the models, in sum 1; ValueError unless there is one for each."""
    if not num_models:
        raise ValueError("there is no model to load")
    parts = [1.0] * num_models if blend is None else list(blend)
    shown = ",".join(f"{part:g}" for part in parts)
    if len(parts) != num_models:
        raise ValueError(f"--blend {shown}: {len(parts)} parts for {num_models} models")
    if not all(0 <= part < float("inf") for part in parts) or not sum(parts):
        raise ValueError(f"--blend {shown}: parts must be 0 or more, and one above 0")
    return [part / sum(parts) for part in parts]
