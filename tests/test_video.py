from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from PIL import Image

from media import (
    Frame,
    PartWriter,
    join_parts,
    read_frames,
    read_note,
    read_outline,
    write_image,
)
from tests.clips import NTSC, make_clip, sound_of
from tests.conftest import smooth_image


@pytest.fixture
def frames():
    """Ten different frames."""
    return [smooth_image(48, 64, seed=seed) for seed in range(10)]


def copied(source: Path, target: Path, *, num_parts: int = 2, crf: int = 4) -> Path:
    """A video written again, as it is, in parts."""
    frames, paths = list(read_frames(source)), []
    for number in range(num_parts):
        paths.append(target.with_name(f"{number}.nut"))
        writer = PartWriter(paths[-1], target, read_outline(source), crf=crf, note=f"no. {number}")
        for frame in frames[number * len(frames) // num_parts :][: len(frames) // num_parts]:
            writer.add(frame)
        writer.close()
        assert read_note(paths[-1]) == f"no. {number}"
    join_parts(paths, source, target, exists_ok=False)
    return target


def seconds(frames: list[Frame]) -> list[Fraction]:
    return [frame.time * frame.tick for frame in frames]


def difference(a: Frame, b: Frame) -> float:
    """Mean, in grey levels."""
    return (a.pixels.float() - b.pixels.float()).abs().mean().item()


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v"])
def test_times_pictures_and_sound_stay_as_they_are(tmp_path, frames, suffix):
    source = make_clip(tmp_path / "a.mp4", frames)
    target = copied(source, tmp_path / f"b{suffix}")
    before, after = list(read_frames(source)), list(read_frames(target))
    assert seconds(after) == seconds(before) == [number / NTSC for number in range(10)]
    assert max(map(difference, before, after)) < 2
    assert read_outline(target) == read_outline(source)
    codec, length = sound_of(target)
    assert (codec, length) == sound_of(source)
    assert codec == "aac" and length == pytest.approx(10 / NTSC, abs=0.05)
    with av.open(str(target)) as container:
        assert container.metadata["title"] == "A clip"


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "aac"), (".webm", "opus")])
def test_containers_that_count_in_milliseconds(tmp_path, frames, suffix, codec):
    source = make_clip(tmp_path / "a.mp4", frames)
    target = copied(source, tmp_path / f"b{suffix}")
    before, after = list(read_frames(source)), list(read_frames(target))
    start = seconds(after)[0]
    for time, expected in zip(seconds(after), seconds(before), strict=True):
        assert float(time - start) == pytest.approx(float(expected), abs=0.001)
    assert max(map(difference, before, after)) < 3
    assert sound_of(target)[0] == codec


def test_frames_of_different_lengths(tmp_path, frames):
    times = [0, 10, 11, 40, 55, 90, 91, 92, 93, 200]
    source = make_clip(tmp_path / "a.mp4", frames, rate=Fraction(100), times=times)
    target = copied(source, tmp_path / "b.mp4")
    assert seconds(list(read_frames(target))) == [Fraction(time, 100) for time in times]


def test_sound_that_the_format_does_not_take_is_encoded_anew(tmp_path, frames):
    source = make_clip(tmp_path / "a.avi", frames, codec="mpeg4", sound="pcm_s16le")
    codec, length = sound_of(copied(source, tmp_path / "b.mp4"))
    assert codec == "aac" and length == pytest.approx(10 / NTSC, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_mp3_is_kept(tmp_path, frames, suffix):
    source = make_clip(tmp_path / "a.avi", frames * 3, codec="mpeg4", sound="libmp3lame")
    assert sound_of(copied(source, tmp_path / f"b{suffix}"))[0].startswith("mp3")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_two_recordings_in_one_file(tmp_path, frames, suffix):
    """Their times start again, and a broadcast may change from stereo to mono."""
    recordings = [
        make_clip(tmp_path / f"{layout}.ts", frames, layout=layout) for layout in ("stereo", "mono")
    ]
    source = tmp_path / "a.ts"
    source.write_bytes(b"".join(recording.read_bytes() for recording in recordings))
    target = copied(source, tmp_path / f"b{suffix}")
    assert len(list(read_frames(target))) == len(list(read_frames(source)))
    assert sound_of(target)[1] == pytest.approx(20 / NTSC, abs=0.1)


def test_a_late_start_becomes_the_start(tmp_path, frames):
    """As in a recording of a broadcast, whose clock has run for hours."""
    times = list(range(100_000, 100_010))
    source = make_clip(tmp_path / "a.ts", frames, rate=Fraction(25), times=times, sound=None)
    target = copied(source, tmp_path / "b.mp4")
    assert seconds(list(read_frames(source)))[0] > 1000
    assert seconds(list(read_frames(target))) == [Fraction(number, 25) for number in range(10)]


def test_the_last_picture_is_shown_as_long(tmp_path, frames):
    source = tmp_path / "a.gif"
    pictures = [Image.fromarray((255 * f[0, 0]).byte().numpy()) for f in frames[:3]]
    pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=[100, 500, 3000])
    target = copied(source, tmp_path / "b.mp4", num_parts=3)
    with av.open(str(target)) as container:
        assert container.duration == pytest.approx(3.6e6, abs=2e4)
    assert seconds(list(read_frames(target))) == [0, Fraction(1, 10), Fraction(6, 10)]


def test_languages_are_kept(tmp_path, frames):
    source = make_clip(tmp_path / "a.mp4", frames, language="ger")
    with av.open(str(copied(source, tmp_path / "b.mp4"))) as container:
        assert container.streams.audio[0].language == "ger"


def test_no_sound(tmp_path, frames):
    target = copied(make_clip(tmp_path / "a.mp4", frames, sound=None), tmp_path / "b.mp4")
    with av.open(str(target)) as container:
        assert not container.streams.audio


def test_a_phone_held_upright(tmp_path, frames):
    level = make_clip(tmp_path / "level.mp4", frames)
    upright = make_clip(tmp_path / "upright.mp4", frames, turned=90)
    for a, b in zip(read_frames(level), read_frames(upright), strict=True):
        a = replace(a, pixels=torch.rot90(a.pixels, 1, (2, 3)))
        assert difference(a, b) < 2  # the encoder's result varies
    target = copied(upright, tmp_path / "b.mp4")
    assert next(read_frames(target)).pixels.shape == (1, 3, 64, 48)


@pytest.mark.parametrize(("turned", "shown"), [(0, Fraction(4, 3)), (90, Fraction(3, 4))])
def test_pixels_that_are_not_square(tmp_path, frames, turned, shown):
    aspect = {"sample_aspect_ratio": Fraction(4, 3)}
    source = make_clip(tmp_path / "a.mp4", frames, turned=turned, **aspect)
    target = copied(source, tmp_path / "b.mp4")
    assert next(read_frames(source)).pixel_aspect == shown
    assert next(read_frames(target)).pixel_aspect == shown


def test_hdr_is_told_of(tmp_path, frames):
    source = make_clip(tmp_path / "a.mp4", frames, color_trc=16)
    with pytest.warns(UserWarning, match="a.mp4 is in HDR"):
        assert len(list(read_frames(source))) == len(frames)


def test_frames_of_unknown_colours_are_taken_for_bt709_if_they_are_high(tmp_path):
    """One file whose colours are named so, and one that does not say."""
    green = torch.tensor([0.1, 0.8, 0.2]).view(1, 3, 1, 1)
    for height, is_same in ((720, True), (360, False)):
        pixels = [
            next(
                read_frames(
                    make_clip(
                        tmp_path / f"{height}.mp4",
                        [green.expand(1, 3, height, 64)],
                        sound=None,
                        colorspace=colorspace,
                    )
                )
            ).pixels.float()
            for colorspace in (1, 2)
        ]
        assert ((pixels[0] - pixels[1]).abs().mean() < 1) == is_same


def test_a_cover_picture_is_no_video(tmp_path, frames):
    clip = make_clip(tmp_path / "a.mp4", frames)
    write_image(tmp_path / "cover.png", frames[0])
    song = tmp_path / "song.mp4"
    with (
        av.open(str(clip)) as source,
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(song), "w") as target,
    ):
        voice = target.add_stream_from_template(source.streams.audio[0])
        picture = target.add_stream_from_template(cover.streams.video[0])
        picture.disposition = av.stream.Disposition.attached_pic
        for stream, packets in ((picture, cover.demux()), (voice, source.demux(audio=0))):
            for packet in packets:
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    with pytest.raises(ValueError, match="there is no video in this file"):
        read_outline(song)


def test_colours(tmp_path):
    """Neither the range nor the colour space changes on the way."""
    colours = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3], [0.2, 0.2, 0.9], [0.0, 1.0, 1.0]])
    frame = Frame(
        (255 * colours.T.reshape(1, 3, 4, 1)).byte().repeat_interleave(32, 2), 0, 1 / NTSC
    )
    frame = Frame(frame.pixels.repeat(1, 1, 1, 64), 0, 1 / NTSC)
    source = make_clip(tmp_path / "a.mp4", [smooth_image(64, 64)])
    writer = PartWriter(
        tmp_path / "p.nut", tmp_path / "b.mp4", read_outline(source), crf=1, note=""
    )
    writer.add(frame)
    writer.close()
    join_parts([tmp_path / "p.nut"], source, tmp_path / "b.mp4", exists_ok=False)
    after = next(read_frames(tmp_path / "b.mp4")).pixels
    centres = after[0, :, 16::32, 32].T.float()
    torch.testing.assert_close(centres, 255 * colours, atol=4, rtol=0)


def test_an_odd_row_and_column_are_left_out(tmp_path):
    source = make_clip(tmp_path / "a.gif", [smooth_image(49, 63)] * 3, codec="gif", sound=None)
    shapes = {frame.pixels.shape for frame in read_frames(copied(source, tmp_path / "b.mp4"))}
    assert shapes == {(1, 3, 48, 62)}


def test_frames_are_scaled(tmp_path, frames):
    source = make_clip(tmp_path / "a.mp4", frames)
    assert next(read_frames(source, long_side=32)).pixels.shape == (1, 3, 24, 32)


def test_damaged_pieces_are_left_out(tmp_path, frames):
    source = make_clip(tmp_path / "a.mp4", frames * 4, sound=None)
    data = bytearray(source.read_bytes())
    third = len(data) // 3
    data[third : 3 * third // 2] = bytes(3 * third // 2 - third)
    source.write_bytes(data)
    with pytest.warns(UserWarning, match=r"a\.mp4: \d+ damaged pieces were left out"):
        num_frames = len(list(read_frames(source)))
    assert 20 < num_frames < 40


def test_a_file_that_ends_early_ends_with_its_last_picture(tmp_path, frames):
    source = make_clip(tmp_path / "whole.mp4", frames * 4, sound=None)
    early = tmp_path / "early.mp4"
    with (
        av.open(str(source)) as whole,
        av.open(str(early), "w", options={"movflags": "faststart"}) as copy,
    ):
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux():
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    early.write_bytes(early.read_bytes()[: early.stat().st_size * 2 // 3])
    num_frames = len(list(read_frames(early)))
    target = copied(early, tmp_path / "b.mp4", num_parts=1)
    assert 10 < num_frames < 40
    with av.open(str(target)) as container:
        assert container.duration / 1e6 == pytest.approx(num_frames / NTSC, abs=0.07)


def test_a_file_that_ends_early(tmp_path, frames):
    source = make_clip(tmp_path / "a.mkv", frames * 4)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert 5 < len(list(read_frames(source))) < 40


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="a.mp4"):
        read_outline(tmp_path / "a.mp4")


def test_sound_alone_is_no_video(tmp_path, frames):
    clip = make_clip(tmp_path / "a.mp4", frames)
    with av.open(str(clip)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        voice = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = voice
                target.mux(packet)
    with pytest.raises(ValueError, match=r"b\.mp4: there is no video in this file"):
        next(read_frames(tmp_path / "b.mp4"))


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="a.mp4"):
        read_outline(tmp_path / "a.mp4")


def test_a_video_that_cannot_be_joined_leaves_what_was_there(tmp_path, frames):
    source = make_clip(tmp_path / "a.mp4", frames)
    target = copied(source, tmp_path / "b.mp4")
    before = target.read_bytes()
    with pytest.raises(FileExistsError):
        join_parts([tmp_path / "0.nut"], source, target, exists_ok=False)
    (tmp_path / "0.nut").write_bytes(b"broken")
    with pytest.raises(ValueError):
        join_parts([tmp_path / "0.nut"], source, target, exists_ok=True)
    assert target.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
