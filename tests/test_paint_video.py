import contextlib
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fast
import predict
from fast import StyleModel, paint_video
from fast.video import Steadiness
from fast.video.parts import FRAMES, folder_for
from media import Frame, PartWriter, read_frames, write_image
from tests.clips import make_clip, sound_of
from tests.conftest import smooth_image
from tests.test_steadiness import textured


def frame(seed: int) -> Tensor:
    return smooth_image(32, 48, seed=seed)


@pytest.fixture
def clip(tmp_path):
    """A video somewhat longer than a part."""
    return make_clip(tmp_path / "clip.mp4", [frame(seed) for seed in range(FRAMES + 12)])


def negative(pixels: Tensor) -> Tensor:
    return 255 - pixels


def negative_until(num_frames: int, error: BaseException):
    """Paint so many frames, then fail."""
    left = num_frames

    def paint(pixels: Tensor) -> Tensor:
        nonlocal left
        left -= 1
        if left < 0:
            raise error
        return negative(pixels)

    return paint


def brightness(frame: Frame) -> Tensor:
    """(1, H, W) in grey levels; H.264 keeps colours at half the size."""
    return frame.pixels.float().mean(1)


def assert_painted(clip, target, num_frames: int = FRAMES + 12):
    before, after = list(read_frames(clip)), list(read_frames(target))
    assert len(before) == len(after) == num_frames
    for a, b in zip(before, after, strict=True):
        assert a.time * a.tick == b.time * b.tick
        assert (brightness(a) + brightness(b) - 255).abs().mean() < 4
    assert not folder_for(target).exists()


def test_each_frame_is_painted_and_progress_told(clip, tmp_path):
    told = []
    paint_video(clip, tmp_path / "b.mp4", negative, progress=lambda *done: told.append(done))
    assert_painted(clip, tmp_path / "b.mp4")
    assert sound_of(tmp_path / "b.mp4")[0] == "aac"
    assert told == [(number, FRAMES + 12) for number in range(FRAMES + 13)]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError("no memory")])
@pytest.mark.parametrize("num_frames", [1, FRAMES - 1, FRAMES, FRAMES + 5])
def test_a_stopped_video_goes_on_where_it_was(clip, tmp_path, num_frames, error):
    target = tmp_path / "b.mp4"
    with pytest.raises(type(error)):
        paint_video(clip, target, negative_until(num_frames, error))
    assert not target.exists()
    painted = []

    def paint(pixels: Tensor) -> Tensor:
        painted.append(pixels)
        return negative(pixels)

    with pytest.raises(ValueError, match="--resume"):
        paint_video(clip, target, paint)
    paint_video(clip, target, paint, resume=True)
    assert len(painted) == FRAMES + 12 - num_frames  # those on their way were finished
    assert_painted(clip, target)


def test_parts_that_were_painted_otherwise_are_not_gone_on_with(clip, tmp_path):
    target = tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        paint_video(clip, target, negative_until(5, KeyboardInterrupt()), note="one")
    others = [{"note": "another"}, {"size": 32}, {"steadiness": 0.5}, {"crf": 20}]
    for changed in others:
        with pytest.raises(ValueError, match="painted otherwise"):
            paint_video(clip, target, negative, resume=True, **{"note": "one"} | changed)
    paint_video(clip, target, negative, note="another", force=True)
    assert_painted(clip, target)


def test_nothing_is_left_of_a_video_whose_first_frame_fails(clip, tmp_path):
    with pytest.raises(ValueError):
        paint_video(clip, tmp_path / "b.mp4", negative_until(0, ValueError("no")))
    assert sorted(tmp_path.iterdir()) == [clip]


def test_a_model_paints_frames_as_it_paints_photos(clip, tmp_path, tiny_model):
    model = fast.load(tiny_model, precision="float32")
    paint_video(clip, tmp_path / "b.mp4", model, size=32, steadiness=0, crf=1)
    photo = next(read_frames(clip, long_side=32)).pixels
    result = next(read_frames(tmp_path / "b.mp4"))
    assert result.pixels.shape == (1, 3, 20, 32)  # of 21 rows
    expected = model(photo)[..., :20, :].float().mean(1)
    assert (brightness(result) - expected).abs().mean() < 12  # it paints noise


def test_photos_and_videos_by_one_command(clip, tmp_path, tiny_model, run):
    write_image(tmp_path / "photo.png", frame(0))
    code, out, err = run(
        predict, "--model", tiny_model, clip, tmp_path / "photo.png", "-o", tmp_path / "painted"
    )
    paths = [tmp_path / "painted" / name for name in ("photo_tiny.png", "clip_tiny.mp4")]
    assert (code, out.split()) == (0, [str(path) for path in paths])
    assert "2 painted, 0 skipped, 0 failed" in err
    code, out, err = run(predict, "--model", tiny_model, clip, "-o", tmp_path / "painted")
    assert code == 1 and "exists" in err
    code, out, err = run(predict, "--model", tiny_model, clip, "-o", paths[0].parent, "--resume")
    assert (code, out) == (0, "")


def test_a_stopped_command_tells_of_the_painted_frames_and_goes_on(
    clip, tmp_path, tiny_model, run, monkeypatch
):
    output, paint = tmp_path / "b.mp4", StyleModel.paint
    calls = iter(range(FRAMES + 5))

    def paint_some(*args, **look):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return paint(*args, **look)

    arguments = ["--model", tiny_model, clip, "-o", output, "--size", 32]
    with monkeypatch.context() as patch:
        patch.setattr(StyleModel, "paint", paint_some)
        code, _, err = run(predict, *arguments)
    assert code == 130 and f"{folder_for(output)} keeps the painted frames for --resume" in err
    for changed in (["--strength", 0.5], ["--preserve-color"], ["--model", "starry_night"]):
        code, _, err = run(predict, *arguments, *changed, "--resume")
        assert code == 1 and "painted otherwise" in err and "keeps" not in err
    code, _, err = run(predict, *arguments, "--resume")
    assert code == 0, err
    assert len(list(read_frames(output))) == FRAMES + 12
    assert next(read_frames(output)).pixels.shape == (1, 3, 20, 32)


def test_all_flags_of_the_look(clip, tmp_path, tiny_model, run):
    write_image(tmp_path / "mask.png", torch.ones(1, 3, 32, 48))
    look = ["--strength", 0, "--stroke", 1.5, "--preserve-color", "--mask", tmp_path / "mask.png"]
    output = tmp_path / "b.mkv"
    code, _, err = run(predict, "--model", tiny_model, clip, "-o", output, *look, "--crf", 4)
    assert code == 0, err
    a, b = next(read_frames(clip)), next(read_frames(output))
    assert (a.pixels.float() - b.pixels.float()).abs().mean() < 3  # a strength of 0 is the photo


def test_a_grid_of_a_video(clip, tmp_path, tiny_model, run):
    code, _, err = run(predict, "--grid", "--model", tiny_model, clip, "-o", tmp_path / "b.mp4")
    assert code == 0, err
    assert next(read_frames(tmp_path / "b.mp4")).pixels.shape[3] > 48


def test_an_animation_becomes_a_video_if_asked_for(tmp_path, tiny_model, run):
    source = make_clip(tmp_path / "a.gif", [frame(0)] * 5, codec="gif", sound=None)
    code, out, _ = run(predict, "--model", tiny_model, source, "-o", tmp_path / "b.mp4")
    assert code == 0 and len(list(read_frames(tmp_path / "b.mp4"))) == 5


def test_a_folder_of_photos_is_not_painted_with_its_videos(clip, tmp_path, tiny_model, run):
    write_image(tmp_path / "photo.png", frame(0))
    code, out, err = run(predict, "--model", tiny_model, tmp_path, "-o", tmp_path / "painted")
    assert code == 0 and out.split() == [str(tmp_path / "painted" / "photo_tiny.png")]
    assert "left out 1 .mp4" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "b.jpg"], "a video's suffix must be one of"),
        (["-o", "-"], "needs a file"),
        (["--steadiness", 3], "--steadiness"),
        (["--crf", 52], "--crf"),
        (["--crf", -1], "--crf"),
    ],
)
def test_wrong_use(clip, tmp_path, tiny_model, run, flags, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(predict, "--model", tiny_model, clip, *flags)
    assert (code, out) == (2, "") and message in err
    assert sorted(tmp_path.iterdir()) == sorted([clip, tiny_model])


def test_a_file_that_is_no_video(tmp_path, tiny_model, run):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    code, out, err = run(predict, "--model", tiny_model, tmp_path / "a.mp4", "-o", tmp_path / "out")
    assert (code, out) == (1, "") and err.count("a.mp4") == 1


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_a_missing_package_is_named(clip, tmp_path, tiny_model, run, monkeypatch, package):
    from media.video import pyav

    pyav.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = run(predict, "--model", tiny_model, clip, "-o", tmp_path / "b.mp4")
    assert (code, out) == (2, "") and 'pip install -e ".[video]"' in err


def test_after_a_failed_write_there_is_no_gap(clip, tmp_path, monkeypatch):
    """The frame that is on its way then is not written, and the next run paints both."""
    target, add = tmp_path / "b.mp4", PartWriter.add

    def add_until_full(self: PartWriter, frame: Frame) -> None:
        if self.num_frames == 0 and frame.time > 0:
            monkeypatch.undo()  # there is room again at once
            raise OSError(28, "No space left on device")
        add(self, frame)

    monkeypatch.setattr(PartWriter, "add", add_until_full)
    with pytest.raises(OSError, match="No space"):
        paint_video(clip, target, negative)
    assert [path.name for path in folder_for(target).iterdir()] == ["00000000.nut"]
    paint_video(clip, target, negative, resume=True)
    assert_painted(clip, target)


def test_after_a_failure_between_painting_and_writing_there_is_no_gap(clip, tmp_path, monkeypatch):
    target, steady = tmp_path / "b.mp4", Steadiness.__call__
    calls = iter(range(20))

    def steady_until(self, photo: Tensor, painting: Tensor) -> Tensor:
        if next(calls, None) is None:
            monkeypatch.undo()
            raise MemoryError("no memory")
        return steady(self, photo, painting)

    monkeypatch.setattr(Steadiness, "__call__", steady_until)
    with pytest.raises(MemoryError):
        paint_video(clip, target, negative)
    paint_video(clip, target, negative, resume=True)
    assert_painted(clip, target)


@pytest.mark.parametrize("size", [None, 35])  # 35 px: 23 rows
def test_strokes_go_on_after_a_stop(tmp_path, size):
    """The photo stays the same, and each frame is painted otherwise."""
    photo = textured(32, 48)
    clip = make_clip(tmp_path / "a.mp4", [photo] * 30)
    target, seeds = tmp_path / "b.mp4", iter(range(100))

    def paint(pixels: Tensor) -> Tensor:
        seed = next(seeds)
        if seed == 12:
            raise KeyboardInterrupt
        return textured(*pixels.shape[-2:], seed=seed)

    with pytest.raises(KeyboardInterrupt):
        paint_video(clip, target, paint, size=size, crf=4)
    paint_video(clip, target, paint, size=size, crf=4, resume=True)
    first, *others = [brightness(frame) for frame in read_frames(target)]
    assert len(others) == 29
    assert max((first - other).abs().mean().item() for other in others) < 8


def test_a_photo_is_no_video(tmp_path, tiny_model, run):
    write_image(tmp_path / "a.jpg", frame(0))
    code, _, err = run(predict, "--model", tiny_model, tmp_path / "a.jpg", "-o", tmp_path / "b.mp4")
    assert code == 2 and "cannot write 'b.mp4'" in err


def test_a_lost_part_is_painted_again(clip, tmp_path):
    target = tmp_path / "b.mp4"
    with pytest.raises(KeyboardInterrupt):
        paint_video(clip, target, negative_until(FRAMES + 5, KeyboardInterrupt()))
    (folder_for(target) / "00000000.nut").unlink()
    paint_video(clip, target, negative, resume=True)
    assert_painted(clip, target)


def test_one_run_at_a_time(clip, tmp_path):
    target = tmp_path / "b.mp4"

    def paint(pixels: Tensor) -> Tensor:
        for flag in ("resume", "force"):
            with pytest.raises(ValueError, match="another run"):
                paint_video(clip, target, negative, **{flag: True})
        return negative(pixels)

    paint_video(clip, target, paint)
    assert_painted(clip, target)


def test_what_others_put_beside_the_parts_stays(clip, tmp_path):
    target = tmp_path / "b.mp4"
    folder_for(target).mkdir()
    (folder_for(target) / "notes.txt").write_text("mine")
    paint_video(clip, target, negative, force=True)
    assert (folder_for(target) / "notes.txt").read_text() == "mine"
    assert len(list(read_frames(target))) == FRAMES + 12


def test_names_that_are_hard_to_read(tmp_path):
    source = make_clip(tmp_path / "a.mp4", [frame(0)] * 3)
    for name in ("12:30.mp4", "file:x.mp4", "a b\n.mp4", os.fsdecode(b"\xff.mp4")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(source.read_bytes())
        with contextlib.chdir(tmp_path / "in"):
            paint_video(name, f"painted {name}", negative)
            assert len(list(read_frames(Path(f"painted {name}")))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1}, "2 px at least"),
        ({"size": -5}, "2 px at least"),
        ({"resume": True, "force": True}, "give one"),
        ({"target": "clip.mp4", "force": True}, "the video itself"),
        ({"source": "."}, "not a file"),
    ],
)
def test_wrong_arguments(clip, monkeypatch, arguments, message):
    monkeypatch.chdir(clip.parent)
    with pytest.raises(ValueError, match=message):
        paint_video(**{"source": clip, "target": "b.mp4", "paint": negative} | arguments)
    assert list(clip.parent.iterdir()) == [clip]


def test_paintings_in_floating_point_and_of_changing_size(clip, tmp_path):
    paint_video(clip, tmp_path / "b.mp4", lambda pixels: 1 - pixels / 255)
    assert_painted(clip, tmp_path / "b.mp4")
    sizes = iter(range(20, 200))
    with pytest.raises(ValueError, match="among those of"):
        paint_video(clip, tmp_path / "c.mp4", lambda pixels: pixels[..., : next(sizes)])


def test_a_video_too_small_leaves_nothing(clip, tmp_path):
    with pytest.raises(ValueError, match="2x2 px at least"):
        paint_video(clip, tmp_path / "b.mp4", lambda pixels: pixels[..., :1])
    assert list(tmp_path.iterdir()) == [clip]
