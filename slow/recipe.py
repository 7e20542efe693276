"""What a painting was made from and how: embedded in its file as JSON, so that it can be made
again.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch

from media import read_text
from models.loss_settings import LossSettings
from slow.settings import SlowSettings

Kind = TypeVar("Kind")

PROGRAM = "slow-fast-style-transfer"
# What a recipe's own fields are called on the command line, where it is not --name.
ARGUMENTS = {
    "content": "CONTENT",
    "styles": "STYLE",
    "content_masks": "--content-mask",
    "style_masks": "--style-mask",
}


def program_version() -> str:
    """The version of this project, or that it is not installed."""
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a painting depends on, and its result.

    Args:
        content: path of the content image, as it was given.
        styles: paths of the style images.
        style_blend: a weight for each style image; empty for equal ones.
        content_masks, style_masks: paths of masks.
        settings: sizes, steps and optimiser.
        loss: layers and weights.
        precision: of the convolutions.
        files: SHA-256 of each input file, by its path.
        result: step, loss and terms of the image with the lowest loss; empty before there is one.
        complete: whether the run reached its end.
        program, version, torch: what it was made with.
    """

    content: str
    styles: tuple[str, ...]
    style_blend: tuple[float, ...] = ()
    content_masks: tuple[str, ...] = ()
    style_masks: tuple[str, ...] = ()
    settings: SlowSettings
    loss: LossSettings
    precision: str
    files: dict[str, str]
    result: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    program: str = PROGRAM
    version: str = field(default_factory=program_version)
    torch: str = torch.__version__

    def to_json(self, indent: int | None = None) -> str:
        """The recipe as ASCII text."""
        return json.dumps(asdict(self), indent=indent)

    def differences(self, other: "Recipe") -> list[str]:
        """Sentences that tell why this recipe and the other one ("there") make two paintings."""
        ours, theirs = (
            asdict(recipe) | asdict(recipe.settings) | asdict(recipe.loss)
            for recipe in (self, other)
        )
        apart = {"files", "settings", "loss", "result", "complete", "program", "version", "torch"}
        settings = [
            f"{_flag(name)} is {_format(ours[name])} here and {_format(theirs[name])} there"
            for name in ours
            if name not in apart and ours[name] != theirs[name]
        ]
        files = [
            f"{name} {'has changed' if name in other.files else 'is not used there'}"
            for name, checksum in self.files.items()
            if other.files.get(name) != checksum
        ]
        return settings + files


def _flag(name: str) -> str:
    return ARGUMENTS.get(name, f"--{name.replace('_', '-')}")


def _format(value: Any) -> str:
    return ",".join(map(str, value)) or "not given" if isinstance(value, tuple) else str(value)


def read_recipe(path: Path) -> Recipe:
    """The recipe in an image file.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        ValueError: it is no image, holds no recipe, or one with a setting that is unknown or out of
            range.
    """
    text = read_text(path)
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict) or stored.get("program") != PROGRAM:
        raise ValueError(f"{path} holds no recipe of this program")
    try:
        return recipe_from(stored)
    except ValueError as error:
        raise ValueError(f"the recipe in {path} cannot be used: {error}") from error


def recipe_from(stored: dict[str, Any]) -> Recipe:
    """A recipe from what its JSON holds; ValueError if a value is missing, unknown or wrong."""
    parts = dict(stored)
    for name, kind in (("settings", SlowSettings), ("loss", LossSettings)):
        if not isinstance(parts.get(name), dict):
            raise ValueError(f"{name} is missing")
        parts[name] = _build(kind, parts[name])
    return _build(Recipe, parts)


def _build(kind: type[Kind], values: dict[str, Any]) -> Kind:
    """A dataclass from values that must have the types of its fields."""
    hints = get_type_hints(kind)
    unknown = values.keys() - {part.name for part in fields(kind)}
    if unknown:
        raise ValueError(f"unknown setting {sorted(unknown)[0]}")
    converted = {name: _convert(name, value, hints[name]) for name, value in values.items()}
    try:
        return kind(**converted)
    except TypeError as error:  # a field without default is missing
        raise ValueError(str(error)) from error


def _convert(name: str, value: Any, hint: Any) -> Any:
    """A value of JSON as the type of its field: a list as a tuple, an integer as a float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(name, item, arguments[0]) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(name, item, arguments[1]) for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if origin or type(value) is not hint:
        raise ValueError(f"{name} cannot be {json.dumps(value, default=repr)[:50]}")
    return value
