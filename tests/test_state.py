"""Interrupted runs: what they leave, and that they go on to the same image."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from media import claimed, read_image, write_image
from slow import __main__ as slow_cli
from slow import progress as progress_module
from slow.memory import Room
from slow.recipe import read_recipe
from slow.state import state_path
from slow.stylize import stylize
from tests.conftest import smooth_image
from tests.test_architecture import ROOT

# Two scales of 12 and 6 steps.
FEW = "--size 40 --min-size 20 --scale-factor 2 --decay 0.6 --steps 18 --init noise"
SHALLOW = "--content-layers relu2_1 --style-layers relu1_1,relu2_1"
FEW = [*FEW.split(), *SHALLOW.split(), "--precision", "float32", "--quiet"]


@pytest.fixture
def files(tmp_path):
    write_image(tmp_path / "content.png", smooth_image(32, 40))
    write_image(tmp_path / "style.png", smooth_image(48, 48, seed=1))
    return tmp_path / "content.png", tmp_path / "style.png", "-o", tmp_path / "out.png"


@pytest.fixture
def whole(run, files):
    """The file of a run that nothing interrupts, which is then deleted."""
    assert run(slow_cli, *files, *FEW)[0] == 0
    content = files[3].read_bytes()
    files[3].unlink()
    return content


def at_step(monkeypatch, step, what):
    """Call something after a step, from within the run."""
    show = progress_module.Progress._show

    def show_and_act(self, iterate):
        show(self, iterate)
        if iterate.step == step:
            what()

    monkeypatch.setattr(progress_module.Progress, "_show", show_and_act)


def fail():
    raise RuntimeError("out of paint")


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("step", [5, 12, 13, 17])
def test_a_crashed_run_goes_on_to_the_same_file(run, files, optimizer, step, monkeypatch):
    arguments = [*files, *FEW, "--optimizer", optimizer, "--averaging", "0.9"]
    assert run(slow_cli, *arguments)[0] == 0
    whole = files[3].read_bytes()
    files[3].unlink()

    with monkeypatch.context() as patch:
        at_step(patch, step, fail)
        code, out, err = run(slow_cli, *arguments, "--save-every", 4)
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert "out of paint" in err and f"best image so far is in {files[3]}" in err
    assert read_image(files[3]).rgb.shape == (1, 3, 32, 40)
    assert not read_recipe(files[3]).complete and state_path(files[3]).exists()

    code, out, _ = run(slow_cli, *arguments, "--resume")
    assert (code, out) == (0, f"{files[3]}\n")
    assert files[3].read_bytes() == whole
    assert not state_path(files[3]).exists()


@pytest.mark.parametrize(
    ("number", "step", "expected"),
    [
        (signal.SIGINT, 1, (130, "interrupted\n")),
        (signal.SIGINT, 12, (130, "interrupted\n")),
        (signal.SIGTERM, 15, (143, "terminated\n")),
    ],
)
def test_a_signal_saves_image_and_state_of_that_step(
    run, files, whole, number, step, expected, monkeypatch
):
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        code, out, err = run(slow_cli, *files, *FEW)
    assert (code, err) == expected and out == f"{files[3]}\n"
    stored = torch.load(state_path(files[3]), weights_only=True)
    assert stored["state"]["step"] == step
    assert read_image(files[3]).rgb.shape == (1, 3, 32, 40)
    assert run(slow_cli, *files, *FEW, "--resume")[0] == 0
    assert files[3].read_bytes() == whole


def test_a_killed_run_goes_on_to_the_same_file(run, files, whole):
    command = [sys.executable, "-m", "slow", *map(str, files), *FEW, "--save-every", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not state_path(files[3]).exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    if process.wait() != -signal.SIGKILL:
        pytest.skip("it was complete before it was killed")
    assert not files[3].exists()
    assert run(slow_cli, *files, *FEW, "--resume")[0] == 0
    assert files[3].read_bytes() == whole
    leftovers = {path.suffix for path in files[3].parent.iterdir()} - {".png"}
    assert leftovers <= {".part"}  # of a file that was being written when it was killed


def test_a_result_that_could_not_be_written_is_written_later(run, files, whole, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("slow.job.write_image", fail)
        code, out, err = run(slow_cli, *files, *FEW)  # fewer steps than --save-every
    assert (code, out) == (1, "") and "No space left" in err and not files[3].exists()
    assert run(slow_cli, *files, *FEW, "--resume")[0] == 0
    assert files[3].read_bytes() == whole


def test_an_interrupted_run_is_not_started_anew_by_mistake(run, files, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 6, fail)
        run(slow_cli, *files, *FEW, "--save-every", 2)
    files[3].unlink()
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "--resume" in err and "--force" in err
    assert state_path(files[3]).exists()
    assert run(slow_cli, *files, *FEW, "--force")[0] == 0
    assert not state_path(files[3]).exists()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("harm", ["settings", "input", "cut", "byte", "step", "parts", "code"])
def test_a_state_that_does_not_fit_is_refused(run, files, harm, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        at_step(patch, 6, fail)
        run(slow_cli, *files, *FEW, "--save-every", 2)
    state = state_path(files[3])
    changed = []
    if harm == "settings":
        changed, what = ["--style-weight", "3"], "--style-weight is 3.0 here and 10.0 there"
    elif harm == "input":
        write_image(files[1], smooth_image(48, 48, seed=5))
        what = f"of another run: {files[1]} has changed; use what it used, or start again"
    elif harm == "cut":
        state.write_bytes(state.read_bytes()[:-300])
        what = "damaged"
    elif harm == "byte":
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
        what = "damaged"
    elif harm in ("step", "parts"):
        stored = torch.load(state, weights_only=True)
        stored["state"] |= {"scale": -5} if harm == "step" else {"search": {}}
        torch.save(stored, state)
        what = "damaged"
    else:
        state.write_bytes(pickle.dumps(Bomb(), protocol=2))
        what = "run code"
    code, out, err = run(slow_cli, *files, *FEW, *changed, "--resume")
    assert (code, out) == (2, "") and what in err and len(err.splitlines()) == 1
    assert state.exists() and not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail at ...] .")]
)
def test_a_state_that_cannot_be_saved_does_not_end_the_run(run, files, whole, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("slow.job.save_state", fail)
    code, _, err = run(slow_cli, *files, *FEW, "--save-every", 2)
    assert code == 0 and "could not be saved" in err
    assert files[3].read_bytes() == whole


def test_finished_results_are_left_alone(run, files, whole):
    run(slow_cli, *files, *FEW)
    before = files[3].stat().st_mtime_ns
    code, out, err = run(slow_cli, *files, *FEW, "--resume")
    assert (code, out) == (0, "") and "is finished;" in err
    code, _, err = run(slow_cli, *files, *FEW, "--resume", "--seed", 3)
    assert code == 0 and "made differently: --seed is 3 here and 0 there; --force" in err
    assert files[3].stat().st_mtime_ns == before


def test_an_interrupted_result_without_its_state_is_not_replaced(run, files, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 6, fail)
        run(slow_cli, *files, *FEW, "--save-every", 0)
    before = files[3].read_bytes()
    code, out, err = run(slow_cli, *files, *FEW, "--resume")
    assert (code, out) == (2, "") and "whose state is gone; delete it" in err
    assert files[3].read_bytes() == before
    code, _, err = run(slow_cli, *files, *FEW, "--resume", "--force")
    assert code == 2 and "give one of them" in err


def test_another_picture_is_not_taken_for_a_finished_one(run, files):
    write_image(files[3], smooth_image(32, 40))
    code, out, err = run(slow_cli, *files, *FEW, "--resume")
    assert (code, out) == (2, "") and f"{files[3]} holds no recipe" in err
    bitmap = files[3].with_suffix(".bmp")  # which has no room for one
    write_image(bitmap, smooth_image(32, 40))
    code, _, err = run(slow_cli, *files[:3], bitmap, *FEW, "--resume")
    assert code == 0 and "is finished" in err


def test_a_link_that_leads_nowhere_is_not_replaced(run, files):
    files[3].symlink_to("nowhere.png")
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "exists" in err and files[3].is_symlink()


def test_two_runs_do_not_make_the_same_file(run, files):
    with claimed(files[3]):
        code, out, err = run(slow_cli, *files, *FEW)
    assert (code, out) == (2, "") and "another run is writing it" in err


def test_a_file_that_appears_before_the_painting_begins_is_not_replaced(run, files, monkeypatch):
    def appear(*_):
        files[3].write_bytes(b"mine")
        return Room(0, 1e12)

    monkeypatch.setattr(slow_cli, "measure_room", appear)
    code, _, err = run(slow_cli, *files, *FEW)
    assert code == 2 and "exists" in err and files[3].read_bytes() == b"mine"


def test_a_signal_after_the_last_step_ends_the_program(run, files, whole, monkeypatch):
    def signalled(*arguments, **keywords):
        painting = stylize(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGTERM)
        return painting

    monkeypatch.setattr("slow.job.stylize", signalled)
    code, out, err = run(slow_cli, *files, *FEW)
    assert (code, out, err) == (143, f"{files[3]}\n", "terminated\n")
    assert files[3].read_bytes() == whole and not state_path(files[3]).exists()


def test_what_stays_the_photo_is_sharp_in_an_interrupted_painting(run, files, monkeypatch):
    mask = files[0].with_name("mask.png")
    Image.new("L", (40, 32), 255).save(mask)
    with Image.open(mask) as image:
        image.paste(0, (0, 0, 20, 32))
        image.save(mask)
    at_step(monkeypatch, 3, fail)  # at 20 px
    run(slow_cli, *files, *FEW, "--content-mask", mask)
    left = [read_image(path).rgb[..., :15] for path in (files[0], files[3])]
    assert torch.equal(*left)


def test_preview_shows_the_painting(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "PREVIEW_SECONDS", 0)
    sizes = []
    preview = tmp_path / "preview.png"
    at_step(monkeypatch, 3, lambda: sizes.append(read_image(preview).rgb.shape))
    assert run(slow_cli, *files, *FEW, "--preview", preview)[0] == 0
    assert sizes == [(1, 3, 16, 20)]
    assert torch.equal(read_image(preview).rgb, read_image(files[3]).rgb)


def test_a_preview_that_cannot_be_written_does_not_end_the_run(run, files, whole, monkeypatch):
    def fail(path, *_):
        # At the end, the result is there before its preview is tried.
        finished.append(files[3].exists() and read_recipe(files[3]).complete)
        raise OSError(28, "No space left on device", str(path))

    finished = []
    monkeypatch.setattr(progress_module, "PREVIEW_SECONDS", 0)
    monkeypatch.setattr(progress_module, "write_image", fail)
    preview = files[3].with_name("preview.png")
    code, out, err = run(slow_cli, *files, *FEW, "--preview", preview)
    assert (code, out) == (0, f"{files[3]}\n")
    assert f"warning: --preview {preview} cannot be written: No space left on device" in err
    assert files[3].read_bytes() == whole and not state_path(files[3]).exists()
    assert finished == [False] * 18 + [True]
