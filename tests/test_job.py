import dataclasses

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from fast.training.job import train
from fast.training.learner import Learner
from fast.training.losses import MARGIN_IN_TRAINING, BatchLosses
from fast.training.record import Record
from fast.training.settings import TrainingSettings, accelerate_name, crop_size
from media import write_image
from models.checkpoint import read_checkpoint
from models.loss_settings import LossSettings
from models.losses import PerceptualLoss
from models.transformer_net import TransformerNet
from tests.conftest import NEEDS_INT8, SETTINGS, SHALLOW, make_parquet, smooth_image


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


@NEEDS_INT8
def test_8_bit_integers_train_about_the_same_and_go_on(job, tmp_path, report_every_step):
    exact = train(**job | {"output": tmp_path / "exact.pth"})
    other = "no" if accelerate_name("int8") == "bf16" else "bf16"
    job["int8"] = True
    with pytest.raises(ValueError, match="int8 needs the mixed precision"):
        train(**job | {"accelerator": with_precision(other)})
    job["accelerator"] = with_precision(accelerate_name("int8"))
    whole, _ = assert_resumes_to_the_same_weights(job, tmp_path, stop_at=4)
    assert whole.training["mixed_precision"] == "int8"
    assert whole.figures["total"] == pytest.approx(exact.figures["total"], rel=0.05)


def with_precision(name):
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=name, cpu=True)


def test_training_starts_from_another_style(job, tmp_path):
    first = train(**job)
    first.arguments |= {"margin": 0, "grain": 0}  # of the photos, not of the weights
    job["output"].write_bytes(first.to_bytes())
    job["output"] = tmp_path / "second.pth"
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "learning_rate": 1e-12})
    second = train(**job, init_from=tmp_path / "style.pth")
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight)
    assert second.training["init_from"]
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "width": 8})
    with pytest.raises(ValueError, match="--init-from .* of width 4, this training's of width 8;"):
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


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("training", "margin", 8), ("arguments", "margin", 8), ("arguments", "grain", 0)],
)
def test_resume_notices_what_else_is_done_to_photos(job, part, name, value):
    train(**job)
    checkpoint = read_checkpoint(job["output"])
    checkpoint.training.pop(name, None)  # older checkpoints have that margin among the arguments
    getattr(checkpoint, part)[name] = value
    job["output"].write_bytes(checkpoint.to_bytes())
    with pytest.raises(ValueError, match=f"another training: with another {name}"):
        train(**job, resume=True)


def test_older_trainings_go_on_with_the_margin_that_they_had(job):
    finished = train(**job)
    del finished.training["margin"]
    finished.arguments["margin"] = MARGIN_IN_TRAINING
    job["output"].write_bytes(finished.to_bytes())
    assert train(**job, resume=True).training["step"] == SETTINGS.steps


def test_older_trainings_go_on_without_what_they_knew_nothing_of(job):
    job["settings"] = dataclasses.replace(SETTINGS, checkerboard=0.0)
    finished = train(**job)
    del finished.training["checkerboard"]
    job["output"].write_bytes(finished.to_bytes())
    assert train(**job, resume=True).training["step"] == SETTINGS.steps
    job["settings"] = SETTINGS
    with pytest.raises(ValueError, match="--checkerboard was 0.0, now 300.0"):
        train(**job, resume=True)


def test_crops_that_will_not_fit_into_memory_are_told_before_the_first_step(job, monkeypatch):
    compute = BatchLosses._compute

    def lack_memory(self, content, *, seed):
        if content.shape[-1] == 64:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute(self, content, seed=seed)

    monkeypatch.setattr(BatchLosses, "_compute", lack_memory)
    job["settings"] = dataclasses.replace(SETTINGS, first_size=32, image_size=64)
    with pytest.raises(ValueError, match="crops of 64 px.* do not fit into memory"):
        train(**job)
    assert not job["output"].exists()


def test_growing_crops_whose_losses_are_sums_do_not_look_like_a_collapse(job, monkeypatch):
    seen = []
    update = Learner.update

    def note(self, step, loss):
        seen.append(loss.item())
        update(self, step, loss)

    monkeypatch.setattr(Learner, "update", note)
    job["loss"] = LossSettings(**{**vars(SHALLOW), "content_reduction": "sum"})
    job["settings"] = dataclasses.replace(SETTINGS, first_size=32, image_size=128)
    train(**job)
    assert max(seen) < 3 * min(seen)


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
    assert painted[0] == (side + 2 * MARGIN_IN_TRAINING,) * 2
    assert seen[0].shape == (2, 3, side, side)
    assert seen[0].min() == 0 and seen[0].max() == 1


def test_figures_are_made_up_for(job, monkeypatch):
    """A training that ended between its last step and its figures gets them by going on."""
    whole = train(**job)
    job["output"] = job["output"].with_name("part.pth")

    def end(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Record, "finish", end)
        train(**job)
    part = read_checkpoint(job["output"])
    assert part.training["step"] == SETTINGS.steps and not part.figures
    train(**job, resume=True)
    finished = read_checkpoint(job["output"])
    assert finished.figures["total"] == whole.figures["total"] and not finished.resume_state
    assert all(torch.equal(finished.weights[k], whole.weights[k]) for k in whole.weights)


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


@pytest.mark.filterwarnings("ignore:the loss is")
def test_weights_that_are_not_finite_are_never_saved(job):
    train(**job)
    good = job["output"].read_bytes()
    job["settings"] = TrainingSettings(**{**vars(SETTINGS), "learning_rate": 1e30})
    with pytest.raises(FloatingPointError, match="3 attempts"):
        train(**job)
    assert job["output"].read_bytes() == good


@pytest.mark.filterwarnings("ignore:the loss is")
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


@pytest.mark.filterwarnings("ignore:the loss is")
def test_an_interrupt_is_remembered_when_the_loss_diverges_at_the_same_step(job, monkeypatch):
    check, steps = Learner.check, []

    def fail_once(self):
        if len(steps) == 2:
            self.recent.append(torch.tensor(float("nan")))
        check(self)

    def interrupt_once(progress):
        steps.append(progress.step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "check", fail_once)
    monkeypatch.setattr("fast.training.progress.Clock.is_due", lambda self: True)
    with pytest.warns(UserWarning, match="back to step 0"), pytest.raises(KeyboardInterrupt):
        train(**job, callback=interrupt_once)
    assert steps == [1, 2, 1]
    assert read_checkpoint(job["output"]).training["step"] == 1


def test_every_batch_moves_by_other_amounts(job, monkeypatch):
    backward, seeds = BatchLosses.backward, []

    def noting(self, content, *, seed):
        seeds.append(seed)
        return backward(self, content, seed=seed)

    monkeypatch.setattr(BatchLosses, "backward", noting)
    settings = {**vars(SETTINGS), "steps": 2, "batch_size": 1, "accumulation": 2}
    train(**job | {"settings": TrainingSettings(**settings)})
    assert len(set(seeds)) == 4


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


def test_thin_style_is_told(job, tmp_path):
    write_image(tmp_path / "thin.png", smooth_image(2, 400))
    with pytest.raises(ValueError, match=r"--style .*thin.png: an image of \d+x1 px is too small"):
        train(**job | {"style": tmp_path / "thin.png"})


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
