"""The state of an interrupted run: a file beside the result, from which it continues."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from media.files import replacing
from models.checkpoint import check_sums
from slow.optimizers import make_optimizer
from slow.recipe import Recipe, recipe_from
from slow.settings import SlowSettings, scales
from slow.stylize import State

FORMAT = "style-transfer state"


def state_path(output: Path) -> Path:
    """Where the state of a run with this result is kept."""
    return output.with_name(f"{output.name}.state")


def save_state(path: Path, state: State, recipe: Recipe) -> None:
    """Write the state of a run, completely or not at all; OSError if that is impossible."""
    stored = {"format": FORMAT, "recipe": recipe.to_json(), "state": state.state_dict()}
    with replacing(path) as file:
        torch.save(stored, file)


def read_state(path: Path, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Read what State.load_state_dict takes, to a device; nothing in the file is executed.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is damaged, no state, or that of a run with another recipe.
    """
    remedy = "start again with --force"
    with path.open("rb") as file:
        try:
            check_sums(file)
            stored = torch.load(file, map_location=device, weights_only=True)
            theirs = recipe_from(json.loads(stored["recipe"]))
            state = stored["state"]
            if stored["format"] != FORMAT:
                raise ValueError("unknown format")
            _check(state, theirs.settings)
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                what = "is refused: loading it would run code"
            else:
                what = "is damaged or of another version"
            raise ValueError(f"{path} {what}; {remedy}") from error
    differences = recipe.differences(theirs)
    if differences:
        raise ValueError(
            f"{path} is of another run: {differences[0]}; use what it used, or {remedy}"
        )
    return state


def _check(state: dict[str, Any], settings: SlowSettings) -> None:
    """Raise some error unless a state holds what it and its optimiser need."""
    search = make_optimizer(settings)
    if state.keys() != vars(State(torch.empty(0), search)).keys():
        raise ValueError("not what a state holds")
    if state["search"].keys() != search.state_dict().keys():
        raise ValueError("not what the optimiser's state holds")
    image, best = state["image"], state["best"]
    if image.dim() != 4 or (best is not None and best.shape != image.shape):
        raise ValueError("no image")
    if not (0 <= state["scale"] < len(scales(settings)) and 0 < state["step"] <= settings.steps):
        raise ValueError("no such step")
