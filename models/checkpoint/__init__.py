"""What a style's `.pth` is: one file of tensors, numbers and strings that describes itself."""

import io
import warnings
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from models.checkpoint.other_projects import from_other_project
from models.transformer_net import TransformerNet

FORMAT = "style-transfer checkpoint"
VERSION = 1
ARCHITECTURE = "TransformerNet"
DEFAULTS_OF_OLD_FILES = {"grain": 0}  # Values in effect before these arguments existed.


@dataclass(kw_only=True)
class Checkpoint:
    """A trained style, or one in training.

    Args:
        arguments: of TransformerNet, so that it can be built again. Missing ones are taken from
            DEFAULTS_OF_OLD_FILES, or have their default.
        weights: its state dict, on the CPU.
        style: title, artist, licence, file name and SHA-256 of the style image.
        loss: the LossSettings that it was trained with.
        training: the TrainingSettings, and what they came to: step, images seen, hardware.
        figures: measured quality, numbers or None; see fast/evaluate.py.
        resume_state: the optimiser's state in an unfinished training; empty once it is complete.
    """

    arguments: dict[str, int]
    weights: dict[str, Tensor]
    style: dict[str, str | None] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float | None] = field(default_factory=dict)
    resume_state: dict[str, Any] = field(default_factory=dict)

    def build(self) -> TransformerNet:
        """The network, in evaluation mode on the CPU; ValueError if the weights do not fit it."""
        try:
            # Before anything is allocated: a file must not ask for more than it brings along.
            width = self.weights["to_rgb.weight"].shape[1]
            if self.arguments["width"] != width or self.arguments["num_blocks"] > len(self.weights):
                raise ValueError(f"{self.arguments} is not what the weights are of")
            net = TransformerNet(**(DEFAULTS_OF_OLD_FILES | self.arguments))
            net.load_state_dict(self.weights)
        except KeyError as error:
            raise ValueError(f"the checkpoint has no {error}") from error
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"the weights do not fit the architecture: {reason}") from error
        if not all(w.dtype == torch.float32 and w.isfinite().all() for w in self.weights.values()):
            raise ValueError("the weights are not finite float32 numbers")
        return net.eval()

    def to_bytes(self) -> bytes:
        """The content of the `.pth` file."""
        stored = {"format": FORMAT, "version": VERSION, "architecture": ARCHITECTURE}
        stored |= {part.name: getattr(self, part.name) for part in fields(self)}
        buffer = io.BytesIO()
        torch.save(stored, buffer)
        return buffer.getvalue()


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a `.pth` without executing anything from it.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is no checkpoint of this project or of one of those in
            other_projects.py; the message says what it is instead.
    """
    path = Path(path)
    content = path.read_bytes()
    what = _recognise(content)
    if what:
        raise ValueError(f"{path} is not a model: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            check_sums(io.BytesIO(content))
            stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(f"{path} is refused: {_unsafe_part(str(error))}") from error
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} is truncated or damaged") from error

    if not isinstance(stored, dict) or not all(isinstance(name, str) for name in stored):
        raise ValueError(f"{path} is a PyTorch file, but not a checkpoint")
    try:
        _check_size(stored, len(content))
        return _ours(stored) if "format" in stored else _of_other_project(stored)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def read_network(path: Path | str) -> tuple[Checkpoint, TransformerNet]:
    """A checkpoint and its network, in evaluation mode on the CPU.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: the file is no checkpoint that can be read, or its weights fit no network.
    """
    checkpoint = read_checkpoint(path)
    try:
        return checkpoint, checkpoint.build()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _ours(stored: dict[str, Any]) -> Checkpoint:
    """A checkpoint of this project's own format."""
    if stored["format"] != FORMAT:
        raise ValueError(f"it is of an unknown format, {stored['format']}")
    if not isinstance(stored.get("version"), int) or stored["version"] != VERSION:
        raise ValueError(
            f"it has checkpoint version {stored.get('version')}; "
            f"this program reads version {VERSION}"
        )
    if stored.get("architecture") != ARCHITECTURE:
        raise ValueError(f"it holds an unknown architecture: {stored.get('architecture')}")
    names = {part.name for part in fields(Checkpoint)}
    if not names <= stored.keys() or not all(isinstance(stored[name], dict) for name in names):
        raise ValueError("it is an incomplete checkpoint")
    if not all(isinstance(value, str | None) for value in stored["style"].values()):
        raise ValueError("what it tells of its style is no text")
    if not all(value is None or _is_number(value) for value in stored["figures"].values()):
        raise ValueError("its figures are no numbers")
    return Checkpoint(**{name: stored[name] for name in names})


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e15)


def _of_other_project(stored: dict[str, Any]) -> Checkpoint:
    """A bare state dict, or one within a dictionary that tells of its training."""
    inner = stored.get("state_dict")
    project, arguments, weights = from_other_project(inner if isinstance(inner, dict) else stored)
    about = {name: value for name, value in stored.items() if isinstance(value, (str, int, float))}
    return Checkpoint(arguments=arguments, weights=weights, training={"project": project} | about)


def _check_size(stored: dict[str, Any], num_bytes: int) -> None:
    """A tensor may repeat a few numbers; a file must not ask for more memory than it is long."""
    for part in (stored, stored.get("weights"), stored.get("state_dict")):
        values = part.values() if isinstance(part, dict) else ()
        tensors = [value for value in values if isinstance(value, Tensor)]
        size = sum(w.numel() * w.element_size() for w in tensors)
        if size > num_bytes:
            raise ValueError(f"it claims {size} bytes of weights and is {num_bytes} bytes long")


def _recognise(content: bytes) -> str | None:
    """What a file is that cannot be a torch file; None if it may be one."""
    start = content[:512].lstrip().lower()
    kinds = {
        b"\xff\xd8\xff": "it is a JPEG image",
        b"\x89png": "it is a PNG image",
        b"<!doctype html": "it is an HTML page, perhaps a failed download",
        b"<html": "it is an HTML page, perhaps a failed download",
        b"version https://git-lfs": "it is a Git LFS pointer; run 'git lfs pull'",
    }
    if not content:
        return "it is empty"
    for magic, kind in kinds.items():
        if start.startswith(magic):
            return kind
    if content[8:10] == b'{"':
        return "it is a safetensors file"
    if b"pytorch" in content[:64] and not content.startswith((b"PK", b"\x80")):
        return "it is an ONNX model, which other programs run"
    if b"/constants.pkl" in content or b"/archive_format" in content:
        return "it is an exported program, which runs without this project"
    # torch.save writes a zip archive; before torch 1.6 it wrote a bare pickle.
    return None if content.startswith((b"PK\x03\x04", b"\x80")) else "it is of no format known here"


def check_sums(file: BinaryIO) -> None:
    """torch does not compare a zip archive's check sums; zipfile.BadZipFile if one is wrong, or if
    the archive is compressed, for it could be endless. The file is at its beginning again.
    """
    if file.read(2) == b"PK":
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            unpacked = sum(member.file_size for member in archive.infolist())
        if damaged or unpacked > file.seek(0, io.SEEK_END):  # torch.save does not compress
            raise zipfile.BadZipFile(damaged)
    file.seek(0)


def _unsafe_part(message: str) -> str:
    """Which object made the safe loader stop, from its message."""
    _, found, rest = message.partition("GLOBAL ")
    name = rest.split()[0] if found else "something other than tensors, numbers and strings"
    return f"to load it would run code ({name})"
