"""The state of an interrupted run: a file beside the result, from which it goes on."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from media.files import replacing
from slow.recipe import Recipe, recipe_from
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
    """What State.load_state_dict takes, on a device; nothing in the file is executed.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is damaged, no state, or that of a run with another recipe.
    """
    remedy = "start anew by --force"
    with path.open("rb") as file:
        try:
            stored = torch.load(file, map_location=device, weights_only=True)
            theirs = recipe_from(json.loads(stored["recipe"]))
            state = stored["state"]
            if stored["format"] != FORMAT or not isinstance(state, dict):
                raise ValueError("unknown format")
        except MemoryError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
                what = "is refused: to load it would run code"
            else:
                what = "is damaged or of another version"
            raise ValueError(f"{path} {what}; {remedy}") from error
    differences = recipe.differences(theirs)
    if differences:
        raise ValueError(f"{path} is of another run: {differences[0]}; go on as there, or {remedy}")
    return state
