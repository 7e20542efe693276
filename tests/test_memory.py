"""What a run needs, tiles that fit, and what happens when they do not."""

import copy

import pytest
import torch

from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from slow import SlowSettings, memory, stylize
from slow.memory import (
    BoundedObjective,
    Room,
    choose_side,
    measure_room,
    memory_needed,
    pixels_per_step,
    shrinking_objective,
)
from slow.objective import tiled_objective
from tests.conftest import SHALLOW, smooth_image, whole_image

SETTINGS = SlowSettings(size=300, min_size=0, steps=3)
CONTENT, STYLE = smooth_image(40, 300), smooth_image(48, 48, seed=1)


def need(size, side, settings=SETTINGS, loss=SHALLOW):
    return memory_needed(size, side, settings, loss, torch.float32)


def test_memory_by_hand():
    settings = SlowSettings(optimizer="adam")
    loss = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1",))
    images, targets = 10 * 3 * 4 * 1000 * 600, 4 * 128 / 4 * 1000 * 600
    tile = memory.FIXED_BYTES + memory.TILE_BYTES[4] * (200 + 2 * 4) ** 2  # relu2_1 reaches 4 px
    assert need((1000, 600), 200, settings, loss) == images + targets + tile
    # A step, when there is no tile, takes more than a small tile of a large image.
    images, targets = 16 * 3 * 4 * 5000 * 4000, 4 * 128 / 4 * 5000 * 4000
    assert need((5000, 4000), 200, settings, loss) == images + targets


def test_lbfgs_counts_its_history():
    few, many = (SlowSettings(history=n, steps=100) for n in (5, 15))
    assert need((500, 500), 128, many) - need((500, 500), 128, few) == 20 * 3 * 4 * 500 * 500


def test_largest_tiles_that_fit_are_chosen():
    size = (800, 1200)
    whole = need(size, 1200)
    assert choose_side(size, whole, SETTINGS, SHALLOW, torch.float32) == 1200
    side = choose_side(size, whole - 1, SETTINGS, SHALLOW, torch.float32)
    assert side == 600
    assert need(size, side) < whole
    assert choose_side(size, 0, SETTINGS, SHALLOW, torch.float32) == memory.SMALLEST_SIDE


def test_work_of_tiles_by_hand():
    """Two tiles of 128 with a halo of 4 px on one side each; the first is passed forward twice."""
    assert pixels_per_step((128, 256), 256, ("relu2_1",)) == 128 * 256
    assert pixels_per_step((128, 256), 128, ("relu2_1",)) == 128 * 132 * 2.5


def test_plan_is_told_once_and_before_the_first_step():
    plans, steps = [], []
    settings = SlowSettings(size=128, min_size=32, steps=6)
    objective = BoundedObjective(
        settings,
        (40, 300),
        Room(10**9, 10**9),
        report=lambda plan: plans.append((plan, len(steps))),
    )
    stylize(CONTENT, [STYLE], settings, SHALLOW, objective=objective, callback=steps.append)
    ((plan, steps_before),) = plans
    assert steps_before == 0 and len(steps) == 6
    assert plan.size == (17, 128) and plan.side >= 128
    assert 10**9 < plan.memory < 1.4e9 and plan.seconds > 0
    assert "128x17 px as a whole: about" in str(plan)


def test_the_plan_of_a_resumed_run_counts_the_steps_that_are_left(monkeypatch):
    monkeypatch.setattr(memory, "seconds_per_pixel", lambda *_: 0.001)
    settings = SlowSettings(size=128, min_size=64, steps=30)  # 9, 10 and 11 steps
    states, plans = [], []

    def interrupt(iterate):
        if iterate.step == 25:
            states.append(copy.deepcopy(iterate.state.state_dict()))

    stylize(CONTENT, [STYLE], settings, SHALLOW, callback=interrupt)
    objective = BoundedObjective(
        settings, (40, 300), Room(0, 1e9), steps_done=25, report=plans.append
    )
    stylize(CONTENT, [STYLE], settings, SHALLOW, objective=objective, resume=states[0])
    assert plans[0].seconds == pytest.approx(5 * 0.001 * 17 * 128)


def test_too_little_memory_is_refused_before_the_first_step():
    objective = BoundedObjective(SETTINGS, (40, 300), measure_room(torch.device("cpu"), 1e6))
    with pytest.raises(ValueError, match="--max-memory 0.001 is not enough for 300x40 px"):
        stylize(CONTENT, [STYLE], SETTINGS, SHALLOW, objective=objective)


def test_a_limit_leads_to_tiles_and_to_the_same_loss():
    seen = []
    limit = need((40, 300), 160)
    objective = BoundedObjective(SETTINGS, (40, 300), Room(0, limit, limit), report=seen.append)
    losses = [[], []]
    for values, make in zip(losses, (objective, whole_image), strict=True):
        stylize(
            CONTENT,
            [STYLE],
            SETTINGS,
            SHALLOW,
            objective=make,
            callback=lambda it, values=values: values.append(it.loss),
        )
    assert seen[0].side < 300 and "in tiles of" in str(seen[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 400000 bytes. Error code 12 (Cannot allocate memory)"
        ),
    ],
)
def test_out_of_memory_leads_to_smaller_tiles(monkeypatch, error):
    loss = PerceptualLoss(SHALLOW, [STYLE])
    sides = []

    def limited(loss, content, side):
        sides.append(side)
        objective = tiled_objective(loss, content, side)

        def evaluate(image):
            if side > 150:
                raise error
            return objective(image)

        return evaluate

    monkeypatch.setattr(memory, "tiled_objective", limited)
    evaluate = shrinking_objective(loss, CONTENT, 10_000)
    image = smooth_image(40, 300, seed=2).requires_grad_(True)
    with pytest.warns(UserWarning, match="out of memory; going on in tiles of 150 px"):
        terms = evaluate(image)
    evaluate(image)
    assert sides == [300, 150]
    expected = whole_image(loss, CONTENT)(image)
    assert terms.total.item() == pytest.approx(expected.total.item(), rel=1e-5)


def test_out_of_memory_with_the_smallest_tiles_is_an_error(monkeypatch):
    def fail(loss, content, side):
        raise MemoryError

    monkeypatch.setattr(memory, "tiled_objective", fail)
    with pytest.warns(UserWarning), pytest.raises(MemoryError, match="128 px: MemoryError"):
        shrinking_objective(None, CONTENT, 300)(CONTENT.clone())


def test_other_errors_pass(monkeypatch):
    def fail(loss, content, side):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(memory, "tiled_objective", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        shrinking_objective(None, CONTENT, 300)(CONTENT.clone())


def test_room_is_what_a_limit_leaves(monkeypatch):
    monkeypatch.setattr(memory, "taken_memory", lambda device: 300)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    assert measure_room(torch.device("cpu"), 1200) == Room(300, 840, 1200)
    assert measure_room(torch.device("cpu")) == Room(300, 850)
