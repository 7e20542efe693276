import errno
import json
import os

import pytest

from fast.training.job import train
from fast.training.record import TILE, Record
from media import read_image, write_image
from models.checkpoint import read_checkpoint
from tests.conftest import smooth_image


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
    record = Record(tmp_path / "a.pth", [], keep=0)
    record.losses.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        record.log({"step": 1})
    assert raised.value.filename == str(record.losses)


def test_loss_that_is_no_number_is_null_in_the_file(tmp_path):
    record = Record(tmp_path / "style.pth", [], keep=0)
    record.log({"step": 3, "loss": float("nan")})
    assert json.loads((tmp_path / "style.jsonl").read_text()) == {"step": 3, "loss": None}
