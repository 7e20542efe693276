"""What a training starts from: another style's weights, or its own unfinished state."""

from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from models.checkpoint import Checkpoint, read_network
from models.transformer_net import TransformerNet

# Settings of before there were such, in checkpoints that lack them.
EARLIER = {"checkerboard": 0.0}

# What to say of a setting that is no flag by itself, or whose value is a hash.
CHANGES = {
    "style": "--style was another picture",
    "data": "--data, --data-limit and --streaming gave other photos",
    "init_from": "--init-from, or what --quick starts from, was another file or none",
    "processes": "the number of processes was another one",
    "margin": "with another margin around the crops",
    "grain": "with another grain",
}


def initial_weights(path: Path, net: TransformerNet) -> dict[str, Tensor]:
    """Weights of another style's network of the same architecture."""
    try:
        _, initial = read_network(path)
    except ValueError as error:
        raise ValueError(f"--init-from {error}") from error
    free = {name: net.arguments[name] for name in ("margin", "grain")}  # no weights depend on them
    given = initial.arguments | free
    differing = [name for name, value in net.arguments.items() if given[name] != value]
    if differing:
        was, wanted = (
            ", ".join(f"{name} {arguments[name]}" for name in differing)
            for arguments in (given, net.arguments)
        )
        raise ValueError(
            f"--init-from {path} is a network of {was}, this training's of {wanted}; see --width, "
            "--num-blocks and --stem-stride"
        )
    return initial.state_dict()


def unfinished(output: Path, wanted: Checkpoint, accelerator: Accelerator) -> Checkpoint | None:
    """The checkpoint to go on from, if there is one; it may be that of the finished training."""
    # Hosts need not share a disk: the main process reads for all.
    is_there = accelerator.is_main_process and output.exists()
    [saved] = broadcast_object_list([read_network(output)[0] if is_there else None])
    if saved:
        _check_same_training(saved, wanted, output)
        step, steps = saved.training.get("step"), wanted.training["steps"]
        if not isinstance(step, int) or not 0 <= step <= steps:
            raise ValueError(f"{output} is damaged: it is of step {step}")
        if not saved.resume_state and step < steps:
            raise ValueError(f"{output} holds no unfinished training")
    return saved


def _check_same_training(saved: Checkpoint, wanted: Checkpoint, output: Path) -> None:
    """Resuming must not mix two trainings: everything but what a run adds has to be equal."""
    pairs = [("style", saved.style.get("sha256"), wanted.style["sha256"])]
    pairs += [(name, saved.loss.get(name), value) for name, value in wanted.loss.items()]
    pairs += [
        (name, saved.training.get(name, EARLIER.get(name)), value)
        for name, value in wanted.training.items()
        if name != "step" and name not in wanted.arguments
    ]
    # Of the network as it is built and trained: older checkpoints lack what came later.
    arguments = saved.build().arguments
    arguments["margin"] = saved.training.get("margin", arguments["margin"])
    wanted_arguments = wanted.arguments | {"margin": wanted.training["margin"]}
    pairs += [(name, arguments[name], value) for name, value in wanted_arguments.items()]
    changes = [
        CHANGES.get(name, f"--{name.replace('_', '-')} was {old}, now {new}")
        for name, old, new in pairs
        if old != new
    ]
    if changes:
        raise ValueError(
            f"{output} holds another training: {', '.join(changes)}; go on with what it was, start "
            "anew by --force instead of --resume, or choose another output"
        )
