"""What a training leaves on the disk: checkpoints, a sheet of previews, a file of losses."""

import glob
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fast.stylize import stylize
from fast.training.figures import finite, measure, summary
from media import read_image, resize, write_atomically, write_image
from models.checkpoint import Checkpoint
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet

TILE = 256  # px: side of a picture in the sheet
MAX_ROWS, MAX_COLUMNS = 4, 12


def files_of(output: Path) -> list[Path]:
    """All files of a training that are there, see Record."""
    files = *written_files(output), *kept_checkpoints(output)
    return [file for file in files if file.exists()]


def written_files(output: Path) -> tuple[Path, ...]:
    """Those that any training of this output writes."""
    return output, _losses(output), _sheet(output)


def kept_checkpoints(output: Path) -> dict[Path, int]:
    """Kept checkpoints of a training and their steps, the oldest first."""
    steps = {}
    for path in output.parent.glob(f"{glob.escape(output.stem)}.step*.pth"):
        step = path.name.removeprefix(f"{output.stem}.step").removesuffix(".pth")
        if step.isdecimal():
            steps[path] = int(step)
    return dict(sorted(steps.items(), key=lambda item: item[1]))


class Record:
    """The files of a training, all named after its output.

    `NAME.pth` is the latest checkpoint, `NAME.step500.pth` one that is kept; `NAME.jsonl` has a
    line of losses for every report; `NAME.preview.jpg` shows in its first column photos that are
    not trained on (unless there are too few), and in each further one their paintings at a
    checkpoint.

    Args:
        output: the checkpoint's file.
        images: (1, 3, H, W) photos for preview and final figures.
        keep: older checkpoints to keep.
    """

    def __init__(self, output: Path, images: Sequence[Tensor], *, keep: int) -> None:
        self.output = output
        self.images = images
        self.keep = keep
        self.losses, self.sheet = _losses(output), _sheet(output)

    def begin(self, step: int) -> None:
        """Go on from a step; 0 begins new files."""
        self.go_back(step)
        if step == 0:
            self.sheet.unlink(missing_ok=True)

    def go_back(self, step: int) -> None:
        """Drop what lies beyond a step, of this training or of an earlier one."""
        if self.losses.exists():
            lines = self.losses.read_text().splitlines()
            kept = "".join(f"{line}\n" for line in lines if _step(line) <= step)
            write_atomically(self.losses, kept.encode())
        for path, kept_step in kept_checkpoints(self.output).items():
            if kept_step > step:
                path.unlink()

    def log(self, values: dict[str, float]) -> None:
        """Add a line of losses."""
        try:
            with self.losses.open("a") as file:
                file.write(json.dumps(finite(values), allow_nan=False) + "\n")
        except OSError as error:
            error.filename = str(self.losses)  # a full disk names no file
            raise

    def save(self, checkpoint: Checkpoint, net: TransformerNet) -> None:
        """Write the checkpoint and show what the network paints by now."""
        content = checkpoint.to_bytes()
        write_atomically(self.output, content)
        if self.keep:
            name = self.output.with_suffix(f".step{checkpoint.training['step']}.pth")
            write_atomically(name, content)
            for old in list(kept_checkpoints(self.output))[: -self.keep - 1]:
                old.unlink()
        self._extend_sheet(net)

    def finish(self, checkpoint: Checkpoint, net: TransformerNet, loss: PerceptualLoss) -> None:
        """Write the finished checkpoint, with the figures of the photos."""
        checkpoint.figures = summary([measure(net, loss, image) for image in self.images])
        write_atomically(self.output, checkpoint.to_bytes())

    def _extend_sheet(self, net: TransformerNet) -> None:
        photos = self.images[:MAX_ROWS]
        columns = [_column([stylize(net, photo).cpu() for photo in photos])]
        photos_column, earlier = _column(photos), []
        try:
            sheet = read_image(self.sheet).rgb
        except (OSError, ValueError):  # there is none yet, or none that can be continued
            sheet = photos_column
        if sheet.shape[-2] == photos_column.shape[-2]:
            photos_column, *earlier = sheet.split(TILE, dim=-1)
        columns = [photos_column, *(earlier + columns)[1 - MAX_COLUMNS :]]
        write_image(self.sheet, torch.cat(columns, dim=-1))


def _losses(output: Path) -> Path:
    return output.with_suffix(".jsonl")


def _sheet(output: Path) -> Path:
    return output.with_suffix(".preview.jpg")


def _step(line: str) -> float:
    """Of a line of losses; infinite for one that was cut off while it was written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _column(pictures: Sequence[Tensor]) -> Tensor:
    """The middles of pictures as tiles, one below the other."""
    tiles = []
    for picture in pictures:
        height, width = picture.shape[-2:]
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        middle = picture[..., y : y + side, x : x + side]
        tiles.append(resize(middle, (TILE, TILE)))
    return torch.cat(tiles, dim=-2)
