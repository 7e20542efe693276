"""What a run shows and keeps as it goes: a bar, a preview, its state, the best image."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from media import write_image
from slow.settings import SlowSettings, scales
from slow.stylize import Iterate, State

PREVIEW_SECONDS = 3.0  # at least, between two previews


class Progress:
    """A callback for stylize.

    One bar covers all scales. It counts pixels, because a step at twice the size takes four times
    as long; so the remaining time is right from the start.

    Args:
        settings: of the run.
        save: writes the state; None for never.
        save_every: steps between two calls of it.
        preview: an image file to update, or None.
        quiet: show no bar.
        description: text before the bar.
    """

    def __init__(
        self,
        settings: SlowSettings,
        *,
        save: Callable[[State], None] | None = None,
        save_every: int = 0,
        preview: Path | None = None,
        quiet: bool = False,
        description: str = "",
    ) -> None:
        self.save, self.save_every = save, save_every
        self.preview, self.last_preview = preview, 0.0
        self.quiet, self.description = quiet, description
        self.pixels = [0]  # up to each step
        for scale in scales(settings):
            for _ in range(scale.steps):
                self.pixels.append(self.pixels[-1] + scale.size**2)
        self.bar: tqdm | None = None
        self.latest: Iterate | None = None
        self.is_stopped = False  # by stop(), so that the state is that of a finished step
        self.interrupt: KeyboardInterrupt | None = None

    def __call__(self, iterate: Iterate) -> None:
        self.latest = iterate
        self._show(iterate)
        if self.save and self.save_every and iterate.step % self.save_every == 0:
            self.save(iterate.state)
        if self.preview and time.monotonic() - self.last_preview > PREVIEW_SECONDS:
            self._write_preview(iterate.best)
            self.last_preview = time.monotonic()
        if self.interrupt:
            self.is_stopped = True
            raise self.interrupt

    def stop(self, error: KeyboardInterrupt) -> None:
        """End the run with this error after the current step."""
        self.interrupt = error
        if self.bar is not None:
            self.bar.set_description_str("stopping after this step: ")

    def _show(self, iterate: Iterate) -> None:
        if self.bar is None:  # only now is the input known to be usable
            self.bar = tqdm(
                total=self.pixels[-1],
                initial=self.pixels[iterate.step - 1],
                disable=self.quiet,
                desc=self.description,
                bar_format="{desc}{percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
            )
        height, width = iterate.size
        self.bar.set_postfix_str(
            f"{iterate.step}/{len(self.pixels) - 1} {width}x{height} px, loss {iterate.loss:.4g} "
            f"content {iterate.content:.4g} style {iterate.style:.4g}",
            refresh=False,
        )
        self.bar.update(self.pixels[iterate.step] - self.bar.n)

    def finish(self, painting: Tensor | None = None) -> None:
        """End the bar, and bring the preview up to date with the finished painting."""
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
        if self.preview and painting is not None:
            self._write_preview(painting)

    def _write_preview(self, painting: Tensor) -> None:
        try:
            write_image(self.preview, painting)
        except OSError as error:  # no reason to lose the run
            reason = error.strerror or error
            warnings.warn(f"--preview {self.preview} cannot be written: {reason}", stacklevel=2)
