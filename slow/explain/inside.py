"""What the loss network sees of a photo and of a style, as pictures: feature maps, Gram matrices,
reconstructions from single layers, and the course of an optimisation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from media import resize
from media.animation import write_animation
from media.charts import line_chart
from models.loss_settings import LossSettings
from models.losses import loss_network
from models.style import gram_matrix
from slow.explain.captioned_folder import CaptionedFolder
from slow.explain.feature_pictures import feature_picture, gram_picture
from slow.settings import DEFAULT_PRESET, PRESETS, SlowSettings
from slow.start import resize_long_side
from slow.stylize import Iterate, stylize

MAX_FRAMES = 60
FRAMES_PER_SECOND = 10


class Recorder:
    """A callback that keeps the errors of each layer and some images of a run.

    Args:
        steps: of the run.
        tick: called after each step.
    """

    def __init__(self, steps: int, tick: Callable[[], None]) -> None:
        self.every, self.tick = -(-steps // MAX_FRAMES), tick
        self.content: dict[str, list[float]] = {}
        self.style: dict[str, list[float]] = {}
        self.frames: list[Tensor] = []

    def __call__(self, iterate: Iterate) -> None:
        for lines, errors in (
            (self.content, iterate.content_errors),
            (self.style, iterate.style_errors),
        ):
            for layer, error in errors.items():
                lines.setdefault(layer, []).append(error)
        if (iterate.step - 1) % self.every == 0:
            self.frames.append(iterate.best.cpu())
        self.tick()


def content_reconstruction(loss: LossSettings, layer: str) -> LossSettings:
    """The losses that turn noise into what a layer keeps of the content image."""
    only = {"content_layers": (layer,), "style_layers": (layer,), "style_layer_weights": ()}
    return replace(loss, **only, style_weight=0.0, tv_weight=0.0)


def style_reconstruction(loss: LossSettings, layers: tuple[str, ...]) -> LossSettings:
    """The losses that turn noise into what some layers know of the style."""
    only = {"content_layers": layers[-1:], "style_layers": layers, "style_layer_weights": ()}
    return replace(loss, **only, content_weight=0.0, tv_weight=0.0)


def painting_settings(
    layers: tuple[str, ...], size: int, steps: int
) -> tuple[SlowSettings, LossSettings]:
    """How the photo is painted: as usual, but with the layers to look at."""
    settings, loss = PRESETS[DEFAULT_PRESET]
    loss = replace(loss, style_layers=layers, style_layer_weights=())
    return replace(settings, size=size, steps=steps), loss


def explain(
    photo: Tensor,
    style: Tensor,
    folder: Path,
    *,
    layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
    size: int = 256,
    steps: int = 100,
    dtype: torch.dtype = torch.float32,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Write the pictures, one after the other.

    Content reconstructions are from one layer each, style reconstructions from all layers up to
    one, as in figure 1 of Gatys et al. (arXiv 1508.06576).

    Args:
        photo: (1, 3, H, W) RGB in [0, 1].
        style: (1, 3, h, w) RGB in [0, 1].
        folder: where to write; it must exist.
        layers: to look at, from the first to the deepest.
        size: longer side of photo and style in px.
        steps: evaluations of the loss for each reconstruction, and for the painted photo.
        dtype: precision of the convolutions.
        tick: called after every evaluation.

    Yields:
        The path of each picture once it is written.
    """
    album = CaptionedFolder(folder)
    photo, style = resize_long_side(photo, size), resize_long_side(style, size)
    yield album.add("photo.png", photo, "The photo.")
    yield album.add("style.png", style, "The style picture.")

    recorder = Recorder(steps, tick)
    settings, loss = painting_settings(layers, size, steps)
    painted = stylize(photo, [style], settings, loss, dtype=dtype, callback=recorder)
    yield album.add("painted.png", painted, "The photo painted in the style.")
    yield from _show_run(album, recorder, photo.shape[-2:])

    vgg = loss_network(loss, dtype=dtype, device=photo.device)
    with torch.no_grad():
        features = [vgg(image, layers) for image in (photo, painted, style)]
    for layer in layers:
        yield album.add(
            f"features_{layer}.png",
            feature_picture(features[0][layer]),
            f"The feature maps of {layer} that vary most over the photo, each from dark (0) to "
            "light (its maximum).",
        )
    for layer in layers:
        yield album.add(
            f"gram_{layer}.png",
            gram_picture([gram_matrix(of_image[layer])[0] for of_image in features]),
            f"Gram matrices of {layer} for the style's strongest channels, on a logarithmic scale: "
            "the photo's, the painted photo's and the style's. The last two have become alike.",
        )

    # From noise and at one scale, so that a layer gets no help from what it saw in a smaller image.
    settings = SlowSettings(size=size, min_size=0, steps=steps)

    def reconstruct(image: Tensor, losses: LossSettings) -> Tensor:
        return stylize(image, [image], settings, losses, dtype=dtype, callback=lambda _: tick())

    for layer in layers:
        yield album.add(
            f"content_{layer}.png",
            reconstruct(photo, content_reconstruction(loss, layer)),
            f"What {layer} keeps of the photo: noise, changed until its features there are the "
            "photo's. Deeper layers keep what is where, and lose the pixels.",
        )
    for number, layer in enumerate(layers, start=1):
        yield album.add(
            f"style_{layer}.png",
            reconstruct(style, style_reconstruction(loss, layers[:number])),
            f"What {' and '.join(layers[:number])} know of the style: noise, changed until its "
            "statistics there are the style's. Deeper layers bring larger forms; nothing says what "
            "is where.",
        )


def _show_run(album: CaptionedFolder, recorder: Recorder, size: tuple[int, int]) -> Iterator[Path]:
    """Charts of the losses and an animation."""
    for name, lines in (("content", recorder.content), ("style", recorder.style)):
        yield album.add(
            f"losses_{name}.png",
            line_chart(lines, title=f"{name.capitalize()} error by layer", x_title="step"),
            f"The {name} error of each layer, relative to the style's own features. It jumps when "
            "the image is enlarged to the next scale.",
        )
    frames = [resize(frame, size) for frame in recorder.frames]
    write_animation(album.folder / "optimisation.gif", frames, frames_per_second=FRAMES_PER_SECOND)
    yield album.add_file(
        "optimisation.gif", f"The best image so far, at {len(frames)} of the steps."
    )
