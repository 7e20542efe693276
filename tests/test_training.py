import dataclasses
import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
from functools import wraps

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

import train as train_cli
from fast.training.data import FLAT, FLAT_STRIDE, PhotoCrops, make_loader
from fast.training.learner import FEW, Diverged, Learner, Schedule, make_optimizers, of_length_one
from fast.training.loop import train
from fast.training.photos import find_photos
from fast.training.progress import Clock
from fast.training.record import TILE, Record
from fast.training.settings import TrainingSettings, crop_size
from media import as_float, read_image, write_image
from models.checkpoint import read_checkpoint
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.transformer_net import MARGIN, TransformerNet
from tests.conftest import SAMPLES, make_parquet, smooth_image

SETTINGS = TrainingSettings(
    steps=6, batch_size=2, image_size=32, style_size=48, width=4, num_blocks=1, warmup_steps=1
)
SHALLOW = LossSettings(content_layers=("relu2_1",), style_layers=("relu1_1", "relu2_1"))


@pytest.fixture
def job(tmp_path, photos):
    """The arguments of a small training."""
    write_image(tmp_path / "style.png", smooth_image(60, 48, seed=9))
    write_image(photos / "fourth.png", smooth_image(40, 40, seed=8))
    return {
        "style": tmp_path / "style.png",
        "data": photos,
        "output": tmp_path / "style.pth",
        "settings": SETTINGS,
        "loss": SHALLOW,
        "accelerator": Accelerator(cpu=True),
        "num_workers": 0,
    }


def always_32(item):
    return 32


@pytest.fixture
def report_every_step(monkeypatch):
    monkeypatch.setattr(Clock, "is_due", lambda self: True)


def test_training_lowers_the_loss_and_describes_itself(job, report_every_step):
    values = []
    job |= {"settings": TrainingSettings(**{**vars(SETTINGS), "steps": 40})}

    train(**job, credits={"title": "Waves"}, callback=lambda p: values.append(p.loss))
    assert len(values) == 40
    assert sum(values[-5:]) < 0.85 * sum(values[:5])
    saved = read_checkpoint(job["output"])
    assert saved.style["file"] == "style.png" and saved.style["title"] == "Waves"
    assert saved.training["images"] == 80 and saved.training["seed"] == 0
    assert saved.loss["style_layers"] == ["relu1_1", "relu2_1"]
    assert saved.resume_state == {}
    assert saved.build()(smooth_image(20, 20)).shape == (1, 3, 20, 20)
    assert job["output"].with_suffix(".preview.jpg").exists()


def test_resumed_training_ends_at_the_very_same_weights(job, tmp_path, report_every_step):
    assert_resumes_to_the_same_weights(job, tmp_path, stop_at=1)


def test_everything_at_once_resumes_to_the_very_same_weights(job, tmp_path, report_every_step):
    changes = {"accumulation": 2, "batch_size": 1, "stability": 50.0}
    changes |= {"image_size": 96, "first_size": 32}
    job |= {"settings": TrainingSettings(**{**vars(SETTINGS), **changes}), "num_workers": 2}
    assert crop_size(job["settings"], 2, 0) < crop_size(job["settings"], 2, 11)
    assert_resumes_to_the_same_weights(job, tmp_path, stop_at=3)


@pytest.mark.filterwarnings("ignore:photo left out")
@pytest.mark.usefixtures("data_sets")
def test_stream_is_trained_on_and_resumed(job, photos, tmp_path, report_every_step):
    for number in range(9):
        write_image(photos / f"more{number}.png", smooth_image(40, 40, seed=number))
    (photos / "more9.png").write_bytes(b"broken")
    make_parquet(photos, tmp_path / "photos.parquet")
    job |= {"data": tmp_path / "photos.parquet", "streaming": True, "num_workers": 1}
    whole, resumed = assert_resumes_to_the_same_weights(job, tmp_path, stop_at=4)
    assert whole.training["unreadable"] == resumed.training["unreadable"] == 1


def assert_resumes_to_the_same_weights(job, tmp_path, *, stop_at):
    def stop(progress):
        if progress.step == stop_at:
            raise KeyboardInterrupt

    whole = train(**job)
    job = {**job, "output": tmp_path / "again.pth"}
    with pytest.raises(KeyboardInterrupt):
        train(**job, callback=stop)
    part = read_checkpoint(job["output"])
    assert part.training["step"] == stop_at and part.resume_state
    resumed = train(**job, resume=True)
    assert all(torch.equal(resumed.weights[k], whole.weights[k]) for k in whole.weights)
    return whole, resumed


@pytest.mark.parametrize("width", [8, 32])  # from 128 channels on float32 goes another way
def test_bfloat16_training_stays_close_to_float32(width):
    # Accelerate keeps one state for a process; what mixed precision does to the network is
    # autocast.
    from models.losses import PerceptualLoss

    torch.manual_seed(0)
    net, content = TransformerNet(width=width, num_blocks=1), smooth_image(64, 64)
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        loss = PerceptualLoss(SHALLOW, [smooth_image(64, 64, seed=3)], dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            stylized = net(content)
        assert stylized.dtype == torch.float32
        net.zero_grad()
        loss(stylized, loss.content_targets(content)).total.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_periodic_checkpoints_can_be_resumed(job, tmp_path):
    def keep_the_last_periodic_one(progress):
        if progress.step == SETTINGS.steps:
            periodic.append(job["output"].read_bytes())

    periodic = []
    whole = train(**job, save_every=2, callback=keep_the_last_periodic_one)
    job["output"] = tmp_path / "again.pth"
    job["output"].write_bytes(periodic[0])
    assert read_checkpoint(job["output"]).training["step"] == 4
    resumed = train(**job, resume=True)
    assert all(torch.equal(resumed.weights[k], whole.weights[k]) for k in whole.weights)


def test_training_starts_from_another_style(job, tmp_path):
    first = train(**job)
    job["output"] = tmp_path / "second.pth"
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "learning_rate": 1e-12})
    second = train(**job, init_from=tmp_path / "style.pth")
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight)
    assert second.training["init_from"]
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "width": 8})
    with pytest.raises(ValueError, match="--init-from .*'width': 4"):
        train(**job, init_from=tmp_path / "style.pth")


def test_resume_notices_another_picture_of_the_same_name(job):
    train(**job)
    write_image(job["style"], smooth_image(60, 48, seed=10))
    with pytest.raises(ValueError, match="another training: --style"):
        train(**job, resume=True)


def test_resume_notices_other_photos(job):
    train(**job)
    write_image(job["data"] / "fifth.png", smooth_image(40, 40))
    with pytest.raises(ValueError, match="--data, --data-limit and --streaming gave other photos"):
        train(**job, resume=True)


def test_resume_notices_another_margin(job):
    train(**job)
    checkpoint = read_checkpoint(job["output"])
    checkpoint.arguments["margin"] = 8
    job["output"].write_bytes(checkpoint.to_bytes())
    with pytest.raises(ValueError, match="another training: with another margin"):
        train(**job, resume=True)


def test_loss_sees_what_prediction_would_show(job, monkeypatch):
    """The margin is painted and cut off, and nothing is beyond black and white."""
    painted, seen = [], []
    forward, loss = TransformerNet.forward, PerceptualLoss.forward

    def paint(self, image):
        painted.append(image.shape[-2:])
        return 100 * (forward(self, image) - 0.5)

    def look(self, image, *args, **kwargs):
        seen.append(image.detach())
        return loss(self, image, *args, **kwargs)

    monkeypatch.setattr(TransformerNet, "forward", paint)
    monkeypatch.setattr(PerceptualLoss, "forward", look)
    job["settings"] = dataclasses.replace(SETTINGS, steps=1)
    train(**job)
    side = SETTINGS.image_size
    assert painted[0] == (side + 2 * MARGIN, side + 2 * MARGIN)
    assert seen[0].shape == (2, 3, side, side)
    assert seen[0].min() == 0 and seen[0].max() == 1


def test_finished_training_is_left_alone(job):
    train(**job)
    written = job["output"].stat().st_mtime_ns
    train(**job, resume=True)
    assert job["output"].stat().st_mtime_ns == written


def test_resume_refuses_another_training(job):
    train(**job)
    for change in (
        {"settings": TrainingSettings(**{**vars(SETTINGS), "seed": 5})},
        {"loss": LossSettings(**{**vars(SHALLOW), "style_weight": 3.0})},
    ):
        with pytest.raises(ValueError, match="another training: --(seed|style-weight)"):
            train(**{**job, **change}, resume=True)


def test_update_is_that_of_the_optimisers_with_gradients_of_length_one():
    torch.manual_seed(0)
    net, expected = (TransformerNet(width=4, num_blocks=1) for _ in range(2))
    expected.load_state_dict(net.state_dict())
    learner = Learner(net, Schedule(0.01, 0, 10), Accelerator(cpu=True))
    optimizers = make_optimizers(expected, 0.01)
    pairs = list(zip(net.parameters(), expected.parameters(), strict=True))
    for step in range(3):
        for weight, other in pairs:
            weight.grad, other.grad = (5 * torch.randn_like(weight),) * 2
        norm = torch.stack([other.grad.norm() for _, other in pairs]).norm()
        for _, other in pairs:
            other.grad = other.grad / norm
        learner.update(step, torch.tensor(1.0))
        torch.testing.assert_close(learner.norms[-1], norm)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0][
                "initial_lr"
            ] * learner.schedule.share(step)
            optimizer.step()
    for weight, other in pairs:
        torch.testing.assert_close(weight, other)


def test_weights_that_are_not_finite_are_no_good_state():
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.01, 0, 10), Accelerator(cpu=True))
    learner.keep_as_good(0)
    with torch.no_grad():
        net.to_rgb.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(Diverged, match="no longer finite"):
        learner.keep_as_good(1)
    assert learner.good_step == 0


@pytest.mark.filterwarnings("ignore:the loss is")
def test_weights_that_are_not_finite_are_never_saved(job):
    train(**job)
    good = job["output"].read_bytes()
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match="3 attempts"):
        train(**job)
    assert job["output"].read_bytes() == good


def test_diverged_training_goes_back_and_on_with_smaller_steps(job, monkeypatch):
    check = Learner.check
    seen = []

    def fail_twice(self):
        seen.append(self.factor)
        if len(seen) in (2, 3):
            self.recent.append(torch.tensor(float("nan")))
        check(self)

    monkeypatch.setattr(Learner, "check", fail_twice)
    steps = []
    with pytest.warns(UserWarning, match="back to step 2 with 0.25"):
        saved = train(**job, save_every=2, callback=lambda p: steps.append(p.step))
    assert seen == [1.0, 1.0, 0.5, 0.25, 0.25]  # steps 2, 4, again 4, and again, 6
    assert saved.training["step"] == 6
    assert all(weight.isfinite().all() for weight in saved.weights.values())


def test_learning_rate_rises_over_at_most_a_tenth_of_the_steps_and_falls_to_zero():
    for warmup_steps, highest in ((100, 20), (5, 5), (0, 0)):
        shares = [Schedule(0.03, warmup_steps, 200).share(step) for step in range(201)]
        assert shares[: highest + 1] == sorted(shares[: highest + 1])
        assert shares[highest:] == sorted(shares[highest:], reverse=True)
        assert shares[highest] > 0.97 and shares[200] < 1e-9


@pytest.mark.parametrize(
    ("losses", "norm", "message"),
    [
        ([9.0, 11.0], 1.0, "10, it was 3"),
        ([2.0, 2.0], math.inf, "none of .* gradients is finite"),
    ],
)
def test_collapse_is_noticed(job, losses, norm, message):
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])

    def check(losses, norm=1.0, *, times=FEW):
        learner.recent += times * [torch.tensor(loss) for loss in losses]
        learner.norms += times * [torch.tensor(norm)]
        learner.check()

    check([2.0, 4.0])
    check([9.0, 1.0])  # an outlier alone is none
    check([20.0], times=2)  # nor are a few hard images
    learner.recent, learner.norms = [], []
    with pytest.raises(Diverged, match=message):
        check(losses, norm)


def take_step(learner: Learner, step: int, image: Tensor) -> None:
    """Towards black."""
    loss = learner.net(image).square().mean()
    learner.accelerator.backward(loss)
    learner.update(step, loss.detach())


def test_way_back_may_be_taken_again(job):
    """What the optimisers do after the first time must not reach the state that is kept."""
    net = TransformerNet(width=4, num_blocks=1)
    learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])
    ends = []
    take_step(learner, 0, smooth_image(16, 16))
    learner.keep_as_good(1)
    with pytest.warns(UserWarning, match="back to step 1"):
        for _ in range(2):
            learner.go_back(Diverged("test"))
            learner.factor = 1.0
            take_step(learner, 1, smooth_image(16, 16, seed=1))
            ends.append(learner.state())
    (weights, states), (again, states_again) = ends
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    moments = states["adam"]["state"][0]["exp_avg"]
    assert torch.equal(moments, states_again["adam"]["state"][0]["exp_avg"])


def test_accumulated_batches_are_one_step_of_many_images(job, tmp_path):
    """Without the style, whose Gram matrix is of a batch, two batches of 1 equal one of 2.

    After two steps: rounding errors grow from step to step.
    """
    job["loss"] = LossSettings(**{**vars(SHALLOW), "style_weight": 0.0})
    settings = {**vars(SETTINGS), "steps": 2}
    job["settings"] = TrainingSettings(**settings)
    whole = train(**job)
    job["output"] = tmp_path / "parts.pth"
    job["settings"] = TrainingSettings(**{**settings, "batch_size": 1, "accumulation": 2})
    parts = train(**job)
    assert parts.training["images"] == whole.training["images"] == 4
    for name, weight in whole.weights.items():
        torch.testing.assert_close(parts.weights[name], weight, rtol=1e-3, atol=1e-3)


def test_losses_previews_and_old_checkpoints_are_kept(job, tmp_path, report_every_step):
    def losses():
        lines = (tmp_path / "style.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    def stop(progress):
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(**job, save_every=2, keep=2, callback=stop)
    assert losses() == [1, 2, 3, 4, 5]
    with (tmp_path / "style.jsonl").open("a") as file:
        file.write('{"step": 6}\n{"st')  # beyond the checkpoint, as after a crash
    (tmp_path / "style.preview.jpg").write_bytes(b"broken")
    (tmp_path / "style.stepfoo.pth").write_bytes(b"not ours")
    train(**job, save_every=2, keep=1, resume=True)
    assert losses() == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in tmp_path.glob("style.step*.pth")) == [
        "style.step5.pth",
        "style.step6.pth",
        "style.stepfoo.pth",
    ]
    assert read_checkpoint(tmp_path / "style.step5.pth").training["step"] == 5
    sheet = read_image(tmp_path / "style.preview.jpg").rgb
    assert sheet.shape[-1] == 2 * TILE  # a new sheet: the photo, and step 6


def test_force_removes_the_kept_checkpoints_of_an_earlier_training(job, tmp_path):
    (tmp_path / "style.step9000.pth").write_bytes(b"old")
    train(**job, save_every=3, keep=1)
    assert sorted(path.name for path in tmp_path.glob("style.step*")) == [
        "style.step3.pth",
        "style.step6.pth",
    ]


def test_no_file_of_an_earlier_training_is_lost_without_force(run, job, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(train_cli, "train", wraps(train)(lambda *_, **__: begun.append(True)))
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


def test_two_trainings_never_write_the_same_files(run, job, tmp_path):
    pytest.importorskip("fcntl")
    lock = tmp_path / "style.lock"
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); "
    hold += "print('held', flush=True); sys.stdin.read()"
    command = ["--cpu", "--quiet", "--force", *TINY, *LAYERS]
    command += ["--style", job["style"], "--data", job["data"], "-o", job["output"]]
    with subprocess.Popen(
        [sys.executable, "-c", hold, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        code, _, err = run(train_cli, *command)
        assert code == 2 and "another training" in err and len(err.splitlines()) == 1
        assert not job["output"].exists()
        other.kill()
    code, _, err = run(train_cli, *command)
    assert code == 0, err
    assert not lock.exists()


def test_thin_style_is_told(job, tmp_path):
    write_image(tmp_path / "thin.png", smooth_image(2, 400))
    with pytest.raises(ValueError, match=r"--style .*thin.png: an image of \d+x1 px is too small"):
        train(**job | {"style": tmp_path / "thin.png"})


@pytest.mark.parametrize("name", ["style.preview.jpg", "style.jsonl"])
def test_style_is_not_replaced_by_what_is_written(run, job, tmp_path, name):
    style = tmp_path / name
    style.write_bytes(job["style"].read_bytes())
    arguments = ["--style", style, "--data", job["data"], "-o", job["output"], "--force"]
    code, _, err = run(train_cli, *arguments)
    assert code == 2 and "would replace the style picture" in err
    assert style.read_bytes() == job["style"].read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": 2.5},
        {"step": -1},
        {"step": 10**9},
        {"resume_state": {"muon": "x"}},
        {"resume_state": {"lowest": None}},
    ],
)
def test_edited_checkpoint_is_told(run, job, tmp_path, change):
    def stop(progress):
        raise KeyboardInterrupt if progress.step == 1 else None

    with pytest.raises(KeyboardInterrupt):
        train(**job, callback=stop)
    checkpoint = read_checkpoint(job["output"])
    for name, value in change.items():
        if name == "step":
            checkpoint.training[name] = value
        else:
            checkpoint.resume_state |= value
    job["output"].write_bytes(checkpoint.to_bytes())
    with pytest.raises(ValueError, match=r"style.pth is damaged"):
        train(**job, resume=True)


def test_photos_that_are_gone_end_the_training_with_a_checkpoint(job, photos):
    def remove(progress):
        for photo in photos.iterdir():
            photo.unlink()

    with pytest.raises(RuntimeError, match="style.pth has the state of step"):
        train(**job, callback=remove)
    assert 0 < read_checkpoint(job["output"]).training["step"] < job["settings"].steps


def test_ctrl_c_before_the_first_step_ends_at_once(run, job, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr("fast.training.loop.find_training_data", interrupted)
    code, _, _ = run(train_cli, "--style", job["style"], "--data", job["data"], "-o", job["output"])
    assert code == 130 and not job["output"].exists()


def test_finished_checkpoint_holds_figures_of_held_out_photos(job, photos):
    for number in range(10):
        write_image(photos / f"more{number}.png", smooth_image(40, 40, seed=number))
    saved = train(**job)
    assert saved.figures["photos"] == 1
    weights = saved.loss["content_weight"], saved.loss["style_weight"]
    total = weights[0] * saved.figures["content"] + weights[1] * saved.figures["style"]
    assert saved.figures["total"] == pytest.approx(total, rel=1e-5)


def test_full_disk_keeps_the_last_checkpoint(job, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    train(**job)
    good = job["output"].read_bytes()
    (tmp_path / "style.jsonl").unlink()  # which would be written anew at once
    monkeypatch.setattr("media.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        train(**job)
    assert raised.value.filename == str(job["output"])
    assert job["output"].read_bytes() == good
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_is_told_with_the_name_of_the_losses(tmp_path):
    record = Record(tmp_path / "a.pth", [], first_step=0, keep=0)
    record.losses.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        record.log({"step": 1})
    assert raised.value.filename == str(record.losses)


def test_crops_depend_on_seed_and_item_alone(photos):
    paths = find_photos(photos)
    crop, _ = PhotoCrops(paths, always_32, range(9), seed=1)[5]
    assert crop.shape == (3, 32, 32)
    assert torch.equal(crop, PhotoCrops(paths, always_32, [5], seed=1)[0][0])
    assert not torch.equal(crop, PhotoCrops(paths, always_32, [5], seed=2)[0][0])


def test_flat_parts_of_a_photo_are_not_trained_on(tmp_path):
    image = torch.tensor([0.8, 0.6, 0.4]).view(1, 3, 1, 1).repeat(1, 1, 64, 200)
    image[..., 60:140] = smooth_image(64, 80)  # most crops show some of it
    write_image(tmp_path / "flat.png", image)
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(30))
    seen = [crop[:, ::FLAT_STRIDE, ::FLAT_STRIDE].float() for crop, _ in crops]
    assert all(pixels.std((1, 2)).max() >= FLAT for pixels in seen)

    write_image(tmp_path / "flat.png", image[..., :64])  # there is nothing else
    assert crops[0][0].shape == (3, 32, 32)


def test_photos_smaller_than_the_crops_are_not_blurred(tmp_path):
    sharp = torch.rand(1, 3, 32, 32).round()
    write_image(tmp_path / "small.png", sharp)
    crops = PhotoCrops(find_photos(tmp_path), lambda item: 64, range(40))
    contrast = torch.tensor([as_float(crop).std() for crop, _ in crops])
    mosaics = contrast > 0.9 * sharp.std()  # of four whole photos, none of them enlarged
    assert 0.5 < mosaics.float().mean() < 0.9
    mosaic = as_float(crops[int(contrast.argmax())][0])
    assert mosaic.shape == (3, 64, 64)
    photo = sharp[0] if torch.allclose(mosaic[:, :32, :32], sharp[0]) else sharp[0].flip(-1)
    torch.testing.assert_close(mosaic[:, :32, :32], photo)


def test_crops_are_enlarged_only_if_the_photo_is_smaller(tmp_path):
    sharp = torch.rand(1, 3, 40, 40).round()
    write_image(tmp_path / "photo.png", sharp)
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(20))
    assert all(as_float(crop).std() > 0.5 * sharp.std() for crop, _ in crops)
    large = PhotoCrops(find_photos(tmp_path), lambda item: 100, range(20))  # not even half as large
    assert all(as_float(crop).std() < 0.9 * sharp.std() for crop, _ in large)


@pytest.mark.parametrize("scale", [1e-6, 1e12, math.inf, math.nan])
def test_gradients_of_all_steps_have_the_same_length(scale):
    gradient = scale * torch.tensor([0.0, 3.0, 4.0])
    expected = [0.0, 0.6, 0.8] if math.isfinite(scale) else [0.0, 0.0, 0.0]
    torch.testing.assert_close(of_length_one(gradient, gradient.norm()), torch.tensor(expected))


def test_crops_grow_from_the_first_size_to_the_last():
    settings = TrainingSettings(steps=100, image_size=256, first_size=96)
    sizes = [crop_size(settings, 4, item) for item in range(400)]
    assert sizes == sorted(sizes) and sizes[0] == 96 and sizes[-1] == 256
    assert all(len(set(sizes[i : i + 4])) == 1 for i in range(0, 400, 4))  # within a step
    odd = TrainingSettings(steps=100, image_size=300, first_size=128)
    assert (crop_size(odd, 1, 0), crop_size(odd, 1, 99)) == (140, 300)
    small = TrainingSettings(steps=3, image_size=64, first_size=96)
    assert {crop_size(small, 1, item) for item in range(3)} == {64}


def test_every_photo_comes_once_before_any_comes_again(tmp_path):
    for grey in range(5):
        write_image(tmp_path / f"{grey}.png", torch.full((1, 3, 40, 40), grey / 255))
    crops = PhotoCrops(find_photos(tmp_path), always_32, range(20))
    orders = [[int(crops[5 * e + i][0].max()) for i in range(5)] for e in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_unreadable_photos_are_replaced_and_named(photos):
    (photos / "1.png").write_bytes(b"broken")
    items = list(PhotoCrops(find_photos(photos), always_32, range(3)))
    assert all(crop.shape == (3, 32, 32) for crop, _ in items)
    assert [name for _, names in items for name in names] == [
        "1.png is not an image: its content is of no image format that Pillow knows"
    ]


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"batch_size": 0}, {"image_size": 8}, {"learning_rate": 0.0}]
)
def test_wrong_settings_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingSettings(**change)


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
    code, _, _ = run(train_cli, *arguments)
    saved = read_checkpoint(job["output"])
    assert code == 0 and saved.loss["style_weight"] == pytest.approx(100**0.75)
    assert saved.training["stability"] == 50
    assert saved.training["steps"] == 2  # what is said counts more than --quick


def test_a_quick_run_has_few_steps_with_small_crops(monkeypatch):
    needed = ["train.py", "--style", "s.jpg", "--data", "photos", "-o", "o.pth"]
    for flags, expected in (["--quick"], (1500, 160)), ([], (20_000, 256)):
        monkeypatch.setattr(sys, "argv", needed + flags)
        args = train_cli.parse_args()
        assert (args.steps, args.image_size) == expected


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
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0, output.decode()


def assert_learned_the_same(*paths):
    one, other = map(read_checkpoint, paths)
    assert one.training["images"] == other.training["images"] == 8
    torch.manual_seed(0)
    initial = TransformerNet(**one.arguments).state_dict()
    way = sum((one.weights[k] - initial[k]).square().sum() for k in initial)
    difference = sum((other.weights[k] - one.weights[k]).square().sum() for k in initial)
    assert way > 0 and difference < 0.01 * way


def test_shares_of_the_processes_are_disjoint_and_complete(photos):
    class Process:
        num_processes, device = 3, torch.device("cpu")

        def __init__(self, index):
            self.process_index = index

    settings = TrainingSettings(steps=4, batch_size=2, accumulation=2, image_size=32)
    shares = [
        list(
            make_loader(
                find_photos(photos), settings, Process(index), first_step=1, num_workers=0
            ).dataset.items
        )
        for index in range(3)
    ]
    assert shares[1][:4] == [14, 15, 20, 21]  # a step is of 12 crops
    assert sorted(sum(shares, [])) == list(range(12, 48))


def test_scaled_gradients_make_the_same_step(job, monkeypatch):
    """What float16 does on a GPU: the loss is scaled up, the gradients down again."""
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        monkeypatch.setattr(job["accelerator"], "scaler", scaler)
        torch.manual_seed(0)
        net = TransformerNet(width=4, num_blocks=1)
        learner = Learner(net, Schedule(0.03, 0, 10), job["accelerator"])
        for step in range(3):
            take_step(learner, step, smooth_image(16, 16))
        ends.append(learner.state())
    (weights, _), (scaled, states) = ends
    for name, weight in weights.items():
        torch.testing.assert_close(scaled[name], weight, rtol=1e-3, atol=1e-5)
    assert states["scaler"]["scale"] == 1024.0 and states["scaler"]["_growth_tracker"] == 3


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
    ("flag", "value", "what"),
    [
        ("--style", "none.jpg", "none.jpg"),
        ("--style", __file__, "not an image"),
        ("--data", "nowhere", "no such folder"),
        ("--batch-size", "5", "4 photos to train on are fewer than the 5"),
        ("-o", "out.jpg", ".pth"),
        ("-o", "nowhere/out.pth", "no folder nowhere"),
        ("--steps", "0", "steps"),
        ("--style-layers", "relu8_1", "relu8_1"),
        ("--mixed-precision", "fp16", "GPU"),
        ("--init-from", "nowhere.pth", "no such file"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run, job, flag, value, what):
    arguments = {"--style": job["style"], "--data": job["data"], "-o": job["output"]}
    flat = [part for pair in {**arguments, flag: value}.items() for part in pair]
    code, out, err = run(train_cli, *flat, "--cpu", "--quiet")
    assert (code, out) == (2, "")
    assert what in err and len(err.splitlines()) == 1
    assert not job["output"].exists()


def test_style_from_a_pipe_is_refused(run, job, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = run(
        train_cli, "--style", tmp_path / "pipe", "--data", job["data"], "-o", job["output"]
    )
    assert code == 2 and "pipe, not an image" in err


def test_folder_without_a_readable_image_is_told_in_one_line(run, job, photos):
    for photo in photos.iterdir():
        photo.write_bytes(b"broken")
    arguments = ["--style", job["style"], "--data", photos, "-o", job["output"], "--cpu"]
    code, _, err = run(train_cli, *arguments, *SMALL.split(), *LAYERS)
    assert code == 2 and "none of 4 photos can be read" in err and len(err.splitlines()) == 1


def test_folder_without_images_is_refused(run, job, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run(
        train_cli, "--style", job["style"], "--data", tmp_path / "empty", "-o", job["output"]
    )
    assert code == 2 and "no image" in err
