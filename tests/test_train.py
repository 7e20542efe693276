import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train as train_cli
from fast.catalogue import CHECKPOINTS, SAMPLES
from fast.training.flags import SHIPPED, parse_args
from fast.training.job import train
from fast.training.settings import TrainingSettings
from media import write_image
from models.checkpoint import read_checkpoint
from models.transformer_net import TransformerNet
from tests.conftest import smooth_image

SMALL = "--batch-size 1 --image-size 32 --style-size 48 --width 4 --num-blocks 1 --workers 0"
TINY = ["--steps", "2", *SMALL.split()]
LAYERS = ["--content-layers", "relu2_1", "--style-layers", "relu1_1,relu2_1"]


def test_command_trains_prints_the_path_and_resumes(run, job):
    arguments = [
        "--style",
        job["style"],
        "--data",
        job["data"],
        "-o",
        job["output"],
        *TINY,
        *LAYERS,
    ]
    code, out, err = run(train_cli, *arguments, "--cpu")
    assert (code, out) == (0, f"{job['output']}\n") and "2/2" in err
    code, _, err = run(train_cli, *arguments, "--cpu")
    assert code == 2 and "--resume" in err
    code, out, _ = run(train_cli, *arguments, "--cpu", "--resume")
    assert code == 0 and out


def test_strength_stability_and_a_quick_run(run, job):
    arguments = ["--style", job["style"], "--data", job["data"], "-o", job["output"], "--cpu"]
    arguments += [*TINY, *LAYERS, "--quick", "--strength", "0.75", "--stability", "50"]
    code, _, err = run(train_cli, *arguments)
    saved = read_checkpoint(job["output"])
    assert code == 0 and saved.loss["style_weight"] == pytest.approx(100**0.75)
    assert saved.training["stability"] == 50 and " instability " in err
    assert saved.training["steps"] == 2  # what is said counts more than --quick


@pytest.mark.parametrize(
    ("flags", "steps", "image_size", "learning_rate", "start"),
    [
        ("", 10_000, 384, 0.03, None),
        ("--quick", 480, 256, 0.015, "starry_night.pth"),
        ("--quick --stem-stride 2 --steps 9", 9, 256, 0.015, "starry_night_lean.pth"),
        ("--quick --init-from the_scream --width 4", 480, 256, 0.015, "the_scream.pth"),
        ("--quick --width 4", 480, 256, 0.03, None),
        ("--init-from the_scream", 10_000, 384, 0.015, "the_scream.pth"),
        ("--init-from the_scream --learning-rate 0.1", 10_000, 384, 0.1, "the_scream.pth"),
    ],
)
def test_a_quick_run_is_short_and_starts_from_a_style(
    monkeypatch, flags, steps, image_size, learning_rate, start
):
    needed = ["train.py", "--style", "s.jpg", "--data", "photos", "-o", "o.pth"]
    monkeypatch.setattr(sys, "argv", needed + flags.split())
    args = parse_args("")
    assert (args.steps, args.image_size, args.learning_rate) == (steps, image_size, learning_rate)
    assert (args.init_from and args.init_from.name) == start


def test_only_a_quick_run_does_without_data(monkeypatch, capsys):
    needed = ["train.py", "--style", "s.jpg", "-o", "o.pth"]
    monkeypatch.setattr(sys, "argv", [*needed, "--quick"])
    assert Path(parse_args("").data) == SAMPLES / "photos"
    monkeypatch.setattr(sys, "argv", [*needed, "--quick", "--data", "mine"])
    assert parse_args("").data == "mine"
    monkeypatch.setattr(sys, "argv", needed)
    with pytest.raises(SystemExit, match="2"):
        parse_args("")
    assert "--data is required" in capsys.readouterr().err


def test_shipped_styles_have_the_networks_that_a_quick_run_starts_from():
    for (width, num_blocks, stem_stride), name in SHIPPED.items():
        net = TransformerNet(width=width, num_blocks=num_blocks, stem_stride=stem_stride)
        net.load_state_dict(read_checkpoint(CHECKPOINTS / name).weights)


def test_no_file_of_an_earlier_training_is_lost_without_force(run, job, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(train_cli, "train", lambda *_, **__: begun.append(True))
    arguments = ["--style", job["style"], "--data", job["data"], "-o", job["output"], "--cpu"]
    kept = tmp_path / "style.step500.pth"
    for there in (kept, tmp_path / "style.jsonl", tmp_path / "style.preview.jpg"):
        there.write_bytes(b"of an earlier training")
        code, _, err = run(train_cli, *arguments)
        assert code == 2 and f"{there} exists" in err
        code, _, err = run(train_cli, *arguments, "--resume")
        if there == kept:
            assert code == 2 and f"{there} is there" in err and not begun
        else:  # killed before its first checkpoint
            assert code == 0 and begun.pop()
        assert there.read_bytes() == b"of an earlier training"
        there.unlink()
    code, _, err = run(train_cli, *arguments, "--resume", "--force")
    assert code == 2 and "give one" in err


def test_resume_tells_of_an_unknown_precision(run, job):
    checkpoint = read_checkpoint(CHECKPOINTS / "starry_night.pth")
    checkpoint.training["mixed_precision"] = "foo"
    job["output"].write_bytes(checkpoint.to_bytes())
    files = ["--style", job["style"], "--data", job["data"], "-o", job["output"]]
    code, _, err = run(train_cli, *files, "--resume", "--cpu")
    assert code == 2 and "style.pth is damaged: its mixed precision is foo" in err


def test_two_trainings_never_write_the_same_files(run, job, tmp_path):
    lock = tmp_path / ".style.pth.lock"
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
    hold += "print('held', flush=True); sys.stdin.read()"
    command = ["--cpu", "--quiet", "--force", *TINY, *LAYERS]
    command += ["--style", job["style"], "--data", job["data"], "-o", job["output"]]
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        code, _, err = run(train_cli, *command)
        assert code == 2 and "another run" in err and len(err.splitlines()) == 1
        assert not job["output"].exists()
        other.kill()
    code, _, err = run(train_cli, *command)
    assert code == 0, err
    assert not lock.exists()


@pytest.mark.parametrize("name", ["style.preview.jpg", "style.jsonl"])
def test_style_is_not_replaced_by_what_is_written(run, job, tmp_path, name):
    style = tmp_path / name
    style.write_bytes(job["style"].read_bytes())
    arguments = ["--style", style, "--data", job["data"], "-o", job["output"], "--force"]
    code, _, err = run(train_cli, *arguments)
    assert code == 2 and f"the training would replace {style}" in err
    assert style.read_bytes() == job["style"].read_bytes()


def test_ctrl_c_before_the_first_step_ends_at_once(run, job, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr("fast.training.job.find_training_data", interrupted)
    code, _, _ = run(train_cli, "--style", job["style"], "--data", job["data"], "-o", job["output"])
    assert code == 130 and not job["output"].exists()


@pytest.mark.parametrize(
    ("workers", "number", "code"),
    [
        ("0", signal.SIGINT, 130),
        ("1", signal.SIGINT, 130),
        ("1", signal.SIGTERM, 143),
        ("1", signal.SIGHUP, 129),
    ],
)
def test_interrupted_command_saves_and_resumes(job, workers, number, code):
    command = [sys.executable, "train.py", "--style", job["style"], "--data", job["data"]]
    command += ["-o", job["output"], *SMALL.split(), *LAYERS, "--cpu", "--workers", workers]
    with subprocess.Popen(
        [*map(str, command), "--steps", "100000"],
        cwd=SAMPLES.parent,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # which nohup has ignored
    ) as process:
        try:
            while "100000" not in process.stderr.read(1000):  # the bar: training has begun
                assert process.poll() is None
            for _ in range(2):  # as a terminal and a scheduler do: to every process, some twice
                os.killpg(process.pid, number)
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == code, err
    saved = read_checkpoint(job["output"])
    assert saved.training["step"] >= 1 and saved.resume_state


@pytest.mark.parametrize(
    ("start", "flags"),
    [
        (["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"], []),
        pytest.param([], ["--accumulation", "2", "--compile"], marks=pytest.mark.slow),
    ],
)
def test_two_processes_and_a_compiled_one_learn_the_same(job, tmp_path, start, flags):
    """As one process that accumulates two batches, as is and compiled."""
    alone, together = tmp_path / "one.pth", tmp_path / "other.pth"
    finish(launch(job, alone, [], ["--accumulation", "2", "--stability", "50"]))
    finish(launch(job, together, start, [*flags, "--stability", "50"]))
    assert read_checkpoint(together).training["processes"] == (2 if start else 1)
    assert_learned_the_same(alone, together)


def test_two_hosts_learn_the_same(job, tmp_path):
    """With a disk each, of which only the first one's gets files."""
    alone, outputs = tmp_path / "one.pth", [tmp_path / f"host{rank}" / "o.pth" for rank in (0, 1)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hosts = []
    for rank, output in enumerate(outputs):
        output.parent.mkdir()
        start = ["-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank)]
        start += ["--master_addr", "127.0.0.1", "--master_port", str(port), "--nproc_per_node", "1"]
        hosts.append(launch(job, output, start, []))
    finish(launch(job, alone, [], ["--accumulation", "2"]), *hosts)
    assert read_checkpoint(outputs[0]).training["processes"] == 2
    assert not list(outputs[1].parent.iterdir())
    assert_learned_the_same(alone, outputs[0])


def test_two_processes_name_a_photo_that_cannot_be_read_once(job, tmp_path):
    names = "broken.jpg", "damaged.jpg", "wrong.png"
    for name in names:
        (job["data"] / name).write_text(f"{name} is no image")
    output, start = tmp_path / "o.pth", ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    text = finish(launch(job, output, [*start, "--standalone"], []))
    assert [text.count(f"left out: {name} ") for name in names] == [1, 1, 1], text
    assert read_checkpoint(output).training["unreadable"] == len(names)


def launch(job, output, start, flags):
    """train.py in a process of its own that computes by itself, or as `start` has it."""
    command = [sys.executable, *start, "train.py", "--style", job["style"], "--data", job["data"]]
    command += [*SMALL.split(), *LAYERS, "--cpu", "--quiet", "--steps", "4", "--warmup-steps", "0"]
    command += ["--mixed-precision", "no"]  # what auto takes is measured, by each run for itself
    return subprocess.Popen(
        [*map(str, command), *flags, "-o", str(output)],
        cwd=SAMPLES.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(*processes):
    """What they have printed, once they have ended well."""
    outputs = [process.communicate()[0].decode() for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return "".join(outputs)


def assert_learned_the_same(*paths):
    one, other = map(read_checkpoint, paths)
    assert one.training["images"] == other.training["images"] == 8
    torch.manual_seed(0)
    initial = TransformerNet(**one.arguments).state_dict()
    way = sum((one.weights[k] - initial[k]).square().sum() for k in initial)
    difference = sum((other.weights[k] - one.weights[k]).square().sum() for k in initial)
    assert way > 0 and difference < 0.01 * way


@pytest.mark.parametrize(
    ("flag", "value", "what"),
    [
        ("--style", "none.jpg", "none.jpg is no file"),
        ("--style", __file__, "not an image"),
        ("--data", "nowhere", "no such folder"),
        ("--batch-size", "5", "4 photos to train on are fewer than the 5"),
        ("-o", "out.jpg", ".pth"),
        ("-o", "nowhere/out.pth", "no folder nowhere"),
        ("--steps", "0", "steps"),
        ("--style-layers", "relu8_1", "relu8_1"),
        ("--mixed-precision", "fp16", "GPU"),
        ("--init-from", "nowhere.pth", "there is no model 'nowhere.pth'; in checkpoints/"),
        ("--tensorboard", __file__, "is no folder"),
        ("--tensorboard", f"{__file__}/deep", "test_train.py is no folder"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run, job, flag, value, what):
    arguments = {"--style": job["style"], "--data": job["data"], "-o": job["output"]}
    flat = [part for pair in {**arguments, flag: value}.items() for part in pair]
    code, out, err = run(train_cli, *flat, "--cpu", "--quiet")
    assert (code, out) == (2, "")
    assert what in err and len(err.splitlines()) == 1
    assert not job["output"].exists()


def test_style_that_is_a_link_to_itself_is_refused(run, job, tmp_path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    code, _, err = run(train_cli, "--style", loop, "--data", job["data"], "-o", job["output"])
    assert code == 2 and "is no file" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch_size": 0}, {"image_size": 8}, {"learning_rate": 0.0}]
)
def test_wrong_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingSettings(**change)


def test_folder_without_a_readable_image_is_told_in_one_line(run, job, photos):
    for photo in photos.iterdir():
        photo.write_bytes(b"broken")
    arguments = ["--style", job["style"], "--data", photos, "-o", job["output"], "--cpu"]
    code, _, err = run(train_cli, *arguments, *SMALL.split(), *LAYERS)
    assert code == 2 and "no photo of 4 can be read" in err and len(err.splitlines()) == 1


def test_unreadable_photo_is_named_once(run, job, photos):
    """Also if it is among those for the preview, of which there are no others here."""
    (photos / "0.png").write_bytes(b"broken")
    arguments = ["--style", job["style"], "--data", photos, "-o", job["output"], "--cpu", "--quiet"]
    code, _, err = run(train_cli, *arguments, *SMALL.split(), *LAYERS, "--steps", "9")
    assert code == 0 and err.count("0.png") == 1


@pytest.mark.parametrize("name", ["style.pth", "style.step3.pth"])
def test_training_never_replaces_what_it_starts_from(run, job, tmp_path, name):
    train(**job, save_every=3, keep=1)
    arguments = ["--style", job["style"], "--data", job["data"], "-o", job["output"], "--force"]
    code, _, err = run(train_cli, *arguments, "--init-from", tmp_path / name)
    assert code == 2 and f"would replace {tmp_path / name}" in err


def test_output_among_the_photos_is_refused(run, job, photos):
    arguments = ["--style", job["style"], "--data", photos, "-o", photos / "style.pth"]
    code, _, err = run(train_cli, *arguments)
    assert code == 2 and "its preview would become a photo" in err


@pytest.mark.parametrize("suffix", [".pth", ".jsonl"])
def test_tensorboard_does_not_take_the_trainings_own_files(run, job, suffix):
    board = job["output"].with_suffix(suffix)
    arguments = ["-o", job["output"], "--style", job["style"], "--data", job["data"]]
    code, _, err = run(train_cli, *arguments, "--tensorboard", board)
    assert code == 2 and f"--tensorboard {board} is a file that" in err and not board.exists()


def test_losses_reach_tensorboard_once_the_training_begins(run, job, tmp_path):
    arguments = ["-o", job["output"], "--style", job["style"], "--tensorboard", tmp_path / "board"]
    arguments += [*TINY, *LAYERS, "--cpu", "--quiet"]
    assert run(train_cli, *arguments, "--data", tmp_path / "none")[0] == 2
    assert not (tmp_path / "board").exists()
    assert run(train_cli, *arguments, "--data", job["data"])[0] == 0
    assert list((tmp_path / "board").rglob("events*"))


def test_link_is_followed(run, job, tmp_path):
    (tmp_path / "link.pth").symlink_to(job["output"])
    arguments = ["--style", job["style"], "--data", job["data"], "-o", tmp_path / "link.pth"]
    code, _, _ = run(train_cli, *arguments, *TINY, *LAYERS, "--cpu", "--quiet")
    assert code == 0 and job["output"].is_file() and (tmp_path / "link.pth").is_symlink()


def test_wrong_use_destroys_nothing(run, job, tmp_path, photos):
    """Not even with --force: all photos but the one for the preview are broken."""
    for number in range(7):
        write_image(photos / f"more{number}.png", smooth_image(40, 40, seed=number))
    train(**job, save_every=3, keep=1)
    before = {file.name: file.read_bytes() for file in tmp_path.glob("style.*")}
    for index, photo in enumerate(sorted(photos.iterdir())):
        if index != 6:
            photo.write_bytes(b"broken")
    arguments = ["--style", job["style"], "--data", photos, "-o", job["output"], "--force"]
    code, _, err = run(train_cli, *arguments, *TINY, *LAYERS, "--cpu", "--quiet")
    assert code == 2 and "none of the photos can be read" in err
    assert {file.name: file.read_bytes() for file in tmp_path.glob("style.*")} == before


def test_folder_without_images_is_refused(run, job, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        train_cli, "--style", job["style"], "--data", tmp_path / "empty", "-o", job["output"]
    )
    assert code == 2 and "no image" in err
