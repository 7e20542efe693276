"""Folders of contents and styles."""

from unittest.mock import Mock

import pytest
import torch

from media import read_image, write_image
from slow import __main__ as slow_cli
from slow import shared_losses
from slow.batch import plan_jobs
from slow.recipe import read_recipe
from tests.conftest import smooth_image

FEW = ["--size", 40, "--steps", 3, "--content-layers", "relu2_1", "--style-layers", "relu1_1"]


@pytest.fixture
def styles(tmp_path):
    folder = tmp_path / "styles"
    folder.mkdir()
    for name, seed in (("a.png", 5), ("b.jpg", 6)):
        write_image(folder / name, smooth_image(40, 40, seed=seed))
    return folder


def test_one_painting_for_each_pair(run, photos, styles, tmp_path, monkeypatch):
    networks, targets = [], []
    monkeypatch.setattr(shared_losses, "loss_network", count(shared_losses.loss_network, networks))
    monkeypatch.setattr(
        shared_losses, "PerceptualLoss", count(shared_losses.PerceptualLoss, targets)
    )
    code, out, _ = run(slow_cli, photos, styles, "-o", tmp_path / "out", *FEW)
    names = [f"{photo}_{style}.png" for style in "ab" for photo in range(3)]
    assert code == 0 and out.split() == [str(tmp_path / "out" / name) for name in names]
    assert len(networks) == 1 and len(targets) == 2  # one for each style, at one scale

    alone = tmp_path / "alone.png"
    run(slow_cli, photos / "2.png", styles / "b.jpg", "-o", alone, *FEW)
    assert torch.equal(read_image(alone).rgb, read_image(tmp_path / "out" / "2_b.png").rgb)


def count(function, calls):
    def counting(*arguments, **keywords):
        calls.append(arguments)
        return function(*arguments, **keywords)

    return counting


@pytest.mark.parametrize("colors", ["match", "luminance"])
def test_styles_that_depend_on_the_content_are_not_shared(run, photos, styles, colors, tmp_path):
    flags = [*FEW, "--colors", colors]
    assert run(slow_cli, photos, styles, "-o", tmp_path / "out", *flags)[0] == 0
    alone = tmp_path / "alone.png"
    run(slow_cli, photos / "2.png", styles / "b.jpg", "-o", alone, *flags)
    assert torch.equal(read_image(alone).rgb, read_image(tmp_path / "out" / "2_b.png").rgb)


def test_a_small_style_is_told_once_for_all_photos(run, photos, styles, tmp_path):
    write_image(styles / "small.png", smooth_image(19, 19, seed=7))
    write_image(styles / "half.png", smooth_image(20, 20, seed=8))
    code, out, err = run(slow_cli, photos, styles, "-o", tmp_path / "out", *FEW, "--quiet")
    assert code == 0 and len(out.split()) == 12
    (line,) = err.splitlines()
    assert line.startswith(f"warning: {styles / 'small.png'} has 19 px on its longer side")
    assert "(40 px)" in line and "larger scan" in line


def test_finished_pairs_are_skipped_and_failures_reported(run, photos, styles, tmp_path):
    out_folder = tmp_path / "out"
    (photos / "1.png").write_bytes(b"no image")
    code, out, err = run(slow_cli, photos, styles, "-o", out_folder, *FEW)
    assert code == 1 and len(out.split()) == 4 and err.count("error:") == 2
    assert "1.png is not an image" in err

    code, _, err = run(slow_cli, photos, styles, "-o", out_folder, *FEW)
    assert code == 2 and "exists" in err
    write_image(photos / "1.png", smooth_image(48, 60, seed=1))
    code, out, err = run(slow_cli, photos, styles, "-o", out_folder, *FEW, "--resume")
    assert code == 0 and out.split() == [str(out_folder / f"1_{style}.png") for style in "ab"]
    assert err.count("is finished") == 4


def test_ctrl_c_ends_the_batch(run, photos, styles, tmp_path, monkeypatch):
    def interrupted(job, *_, announce, **__):
        announce(job.output)
        raise KeyboardInterrupt

    monkeypatch.setattr(slow_cli, "paint", interrupted)
    code, out, _ = run(slow_cli, photos, styles, "-o", tmp_path / "out", *FEW)
    assert code == 130 and len(out.split()) == 1


def test_a_folder_that_is_write_protected_is_told_before_each_painting(
    run, photos, styles, tmp_path, monkeypatch
):
    paint = Mock()
    monkeypatch.setattr(slow_cli, "paint", paint)
    monkeypatch.setattr("cli.TemporaryFile", Mock(side_effect=PermissionError))
    code, out, err = run(slow_cli, photos, styles, "-o", tmp_path / "out", *FEW)
    assert (code, out) == (1, "") and err.count("no file can be written there") == 6
    paint.assert_not_called()


def test_style_files_make_a_blend_for_each_content(photos, styles, tmp_path):
    jobs = plan_jobs(photos, [styles / "a.png", styles / "b.jpg"], tmp_path / "out")
    assert [job.output.name for job in jobs] == ["0_a_b.png", "1_a_b.png", "2_a_b.png"]
    assert all(len(job.styles) == 2 for job in jobs)


def test_a_recipe_of_a_batch_makes_one_painting(run, photos, styles, tmp_path):
    run(slow_cli, photos, styles, "-o", tmp_path / "out", *FEW)
    one = tmp_path / "out" / "0_a.png"
    assert read_recipe(one).content == str(photos / "0.png")
    assert run(slow_cli, "--from", one, "-o", tmp_path / "again.png")[0] == 0
    assert (tmp_path / "again.png").read_bytes() == one.read_bytes()


def test_wrong_plans_are_refused(photos, styles, tmp_path):
    with pytest.raises(ValueError, match="need a folder"):
        plan_jobs(photos, [styles], tmp_path / "out.png")
    with pytest.raises(ValueError, match="is a folder"):
        plan_jobs(photos / "0.png", [styles / "a.png"], tmp_path)
    with pytest.raises(FileNotFoundError, match="none"):
        plan_jobs(photos, [tmp_path / "none"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no image"):
        plan_jobs(tmp_path / "empty", [styles], tmp_path / "out")
    write_image(photos / "0.jpg", smooth_image(8, 8))
    with pytest.raises(ValueError, match="several paintings"):
        plan_jobs(photos, [styles], tmp_path / "out")


@pytest.mark.parametrize("folder", ["photos", "photos/deep/out", "styles/out", "out.v2"])
def test_paintings_of_an_earlier_run_are_not_painted(run, photos, styles, folder, tmp_path):
    output = tmp_path / folder
    output.mkdir(parents=True, exist_ok=True)
    before = plan_jobs(photos, [styles], output)
    assert len(before) == 6
    assert run(slow_cli, photos, styles, "-o", output, *FEW, "--steps", 1)[0] == 0
    assert plan_jobs(photos, [styles], output) == before
    assert plan_jobs(photos, [styles], tmp_path / "other")[0].content == photos / "0.png"
    assert len(plan_jobs(photos, [styles], tmp_path / "other")) == 6


def test_a_folder_with_one_photo_is_a_folder(run, photos, styles, tmp_path):
    for photo in sorted(photos.iterdir())[1:]:
        photo.unlink()
    code, out, _ = run(slow_cli, photos, styles / "a.png", "-o", tmp_path / "out", *FEW)
    assert code == 0 and out.split() == [str(tmp_path / "out" / "0_a.png")]
