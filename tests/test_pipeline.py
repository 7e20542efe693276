import threading
from dataclasses import replace

import pytest

from fast.jobs import Job
from fast.pipeline import paint_photos
from media import read_image, write_image
from tests.conftest import smooth_image


@pytest.fixture
def jobs(tmp_path):
    for number in range(5):
        write_image(tmp_path / f"{number}.png", smooth_image(6, 8 + number))
    return [Job(tmp_path / f"{n}.png", tmp_path / "out" / f"{n}.png") for n in range(5)]


def test_photos_are_painted_in_order_into_their_files(jobs):
    outcomes = paint_photos(jobs, lambda photo: replace(photo, pixels=255 - photo.pixels))
    assert [outcome.job for outcome in outcomes] == jobs
    for job in jobs:
        assert (read_image(job.target).pixels == 255 - read_image(job.source).pixels).all()


def test_the_next_is_read_and_the_last_written_while_one_is_painted(jobs, monkeypatch):
    """Each photo waits in its painting until the next was read and the one before is written, and
    none that lies further ahead is read.
    """
    read, written = [threading.Event() for _ in jobs], [threading.Event() for _ in jobs]

    def number(path):
        return int(path.stem)

    def reading(path, **options):
        read[number(path)].set()
        return read_image(path, **options)

    def writing(path, content, **options):
        written[number(path)].set()

    def paint(photo):
        current = photo.pixels.shape[-1] - 8
        if current + 1 < len(jobs):
            assert read[current + 1].wait(timeout=20)
        if current > 0:
            assert written[current - 1].wait(timeout=20)
        assert not any(event.is_set() for event in read[current + 2 :])
        return photo

    monkeypatch.setattr("fast.pipeline.read_image", reading)
    monkeypatch.setattr("fast.pipeline.write_atomically", writing)
    assert [outcome.error for outcome in paint_photos(jobs, paint)] == [None] * len(jobs)
    assert all(event.is_set() for event in written)


def test_an_error_keeps_no_photo_in_memory_and_stops_no_other(jobs):
    def paint(photo):
        if photo.pixels.shape[-1] == 10:
            raise RuntimeError("no luck")
        return photo

    outcomes = list(paint_photos(jobs, paint))
    assert [str(outcome.error) for outcome in outcomes] == [
        "None",
        "None",
        "no luck",
        "None",
        "None",
    ]
    assert outcomes[2].error.__traceback__ is None
    assert all(outcome.picture is None for outcome in outcomes)
    assert [job.target.exists() for job in jobs] == [True, True, False, True, True]


def test_files_that_exist_are_errors_skipped_or_replaced(jobs):
    jobs[0].target.parent.mkdir()
    jobs[0].target.write_bytes(b"mine")
    plain, resumed, forced = (
        list(paint_photos(jobs[:1], lambda photo: photo, **flags))[0]
        for flags in ({}, {"resume": True}, {"force": True})
    )
    assert "exists" in str(plain.error) and not plain.is_skipped
    assert resumed.error is None and resumed.is_skipped
    assert forced.error is None and not forced.is_skipped
    assert jobs[0].target.read_bytes() != b"mine"


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_comes_while_its_photo_is_painted_is_kept(jobs, resume):
    def paint(photo):
        jobs[0].target.parent.mkdir(exist_ok=True)
        jobs[0].target.write_bytes(b"mine")
        return photo

    (outcome,) = paint_photos(jobs[:1], paint, resume=resume)
    assert jobs[0].target.read_bytes() == b"mine"
    assert outcome.is_skipped == resume
    assert resume or "exists" in str(outcome.error)
