"""Which models there are, and what is known about them."""

from collections.abc import Sequence
from pathlib import Path

from models.checkpoint import Checkpoint, read_checkpoint

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
SAMPLES = Path(__file__).parents[1] / "samples"
SAMPLE_PHOTOS = SAMPLES / "photos"


def find_models() -> list[Path]:
    """The checkpoints in checkpoints/, sorted by name; without the steps of trainings."""
    return sorted(path for path in CHECKPOINTS.glob("*.pth") if ".step" not in path.name)


def find_model(name: str) -> Path:
    """The file of a model: a path as it is, a bare name in checkpoints/, with or without ".pth".

    Raises:
        FileNotFoundError: there is no such model; the message lists those there are.
    """
    candidates = [Path(name), CHECKPOINTS / name, CHECKPOINTS / f"{name}.pth"]
    for path in candidates:
        if path.is_file():
            return path
    models = ", ".join(path.stem for path in find_models()) or "none"
    raise FileNotFoundError(f"there is no model '{name}'; in checkpoints/ there are: {models}")


def label(path: Path) -> str:
    """A model's name with artist and title of its style picture."""
    style = style_of(read_checkpoint(path))
    return f"{path.stem}: {style}" if style else path.stem


def style_of(checkpoint: Checkpoint) -> str:
    """Artist and title of the style picture, as far as they are known."""
    known = (checkpoint.style.get("artist"), checkpoint.style.get("title"))
    return ", ".join(part for part in known if part)


def table(paths: Sequence[Path]) -> tuple[list[str], list[Exception]]:
    """The models as lines of a table, and the errors of those that cannot be read."""
    rows = [("model", "style", "size", "width", "blocks", "stride", "loss", "iterations", "photos")]
    errors = []
    for path in paths:
        try:
            rows.append(_row(path, read_checkpoint(path)))
        except (OSError, ValueError) as error:
            errors.append(error)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return lines, errors


def _row(path: Path, checkpoint: Checkpoint) -> tuple[str, ...]:
    arguments, figures = checkpoint.arguments, checkpoint.figures
    return (
        path.stem,
        style_of(checkpoint) or "-",
        f"{path.stat().st_size / 1e6:.1f} MB",
        str(arguments.get("width", "-")),
        str(arguments.get("num_blocks", "-")),
        str(arguments.get("stem_stride", 1)),
        _figure(figures.get("total"), ".3f"),
        _figure(figures.get("from_noise"), ".1f"),
        _figure(figures.get("photos"), ".0f"),
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
