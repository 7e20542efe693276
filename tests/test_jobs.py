import errno
import os
from pathlib import Path

import pytest

from fast.jobs import Job, plan_jobs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with empty files in it."""
    for name in ("a.jpg", "b.png", "notes.txt", "in/a.gif", "in/a.png", "in/deep/c.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def targets(*inputs: str, output: str = "out", model: str = "m", **more) -> list[str]:
    jobs, problems = plan_jobs(inputs, output, model, **more)
    assert problems == []
    return [str(job.target) for job in jobs]


def test_a_folder_keeps_its_structure_and_formats_that_change_their_suffix(folder):
    expected = ["out/a.gif_m.png", "out/a_m.png", "out/deep/c_m.JPG"]
    assert targets("in") == targets("./in/") == expected


def test_formats_that_are_only_read(folder):
    (folder / "IMG_1.HEIC").touch()
    (folder / "IMG_2.jp2").touch()
    expected = ["out/IMG_1.HEIC_m.jpg", "out/IMG_2.jp2_m.png"]
    assert targets("IMG_1.HEIC", "IMG_2.jp2") == expected


def test_several_inputs_keep_the_names_of_folders_as_cp_does(folder):
    assert targets("a.jpg", "in/deep") == ["out/a_m.jpg", "out/deep/c_m.JPG"]
    names = [Path(name).name for name in targets(".", "in", "in/a.png")]  # each photo once
    assert sorted(names) == ["a.gif_m.png", "a_m.jpg", "a_m.png", "b_m.png", "c_m.JPG"]


def test_patterns_are_expanded_where_the_shell_did_not(folder):
    assert targets("*.jpg") == ["out/a_m.jpg"]
    assert targets("in/**/*.*") == ["out/a.gif_m.png", "out/a_m.png", "out/c_m.JPG"]
    (folder / "x[1].jpg").touch()
    assert targets("x[1].jpg") == ["out/x[1]_m.jpg"]  # a name as it stands comes first


def test_what_is_missing_is_told_and_the_rest_planned(folder):
    (folder / "empty").mkdir()
    jobs, problems = plan_jobs(["no.jpg", "b.png", "*.webp", "empty"], "out", "m")
    assert jobs == [Job(Path("b.png"), Path("out/b_m.png"))]
    assert problems == [
        "no.jpg: no such file or folder",
        "*.webp: no match",
        "empty: no image in this folder",
    ]
    for inputs in (["no.jpg"], ["empty"]):
        with pytest.raises(ValueError, match="no (such file|image)"):
            plan_jobs(inputs, "out", "m")


def test_standard_input_and_output(folder):
    assert plan_jobs(["-"], "-", "m") == ([Job(None, None)], [])
    assert targets("-") == ["out/stdin_m.png"]
    assert targets("-", output="x.webp") == ["x.webp"]
    with pytest.raises(ValueError, match="2 photos need a folder"):
        plan_jobs(["-", "a.jpg"], "-", "m")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["in"], "in/out"),
        (["."], "out"),
        (["*"], "out"),
        (["in"], "in"),
        (["."], "."),
        (["*"], "."),
    ],
)
def test_a_second_run_finds_the_same_photos(inputs, output, folder):
    first, _ = plan_jobs(inputs, output, "m")
    for job in first:
        for name in ("m", "other", "m+other", "grid"):
            painting = job.target.with_stem(job.target.stem.replace("_m", f"_{name}"))
            painting.parent.mkdir(parents=True, exist_ok=True)
            painting.touch()
    second, _ = plan_jobs(inputs, output, "m", known_names=["other", "grid"])
    assert second == first


def test_a_photo_called_like_a_painting_is_painted_elsewhere(folder):
    (folder / "a_m.jpg").touch()
    assert targets("a.jpg", "a_m.jpg") == ["out/a_m.jpg", "out/a_m_m.jpg"]
    assert targets("a_m.jpg", output=".") == ["a_m_m.jpg"]


@pytest.mark.parametrize(
    ("inputs", "output", "what"),
    [
        (["a.jpg"], "x.xyz", "suffix must be one of"),
        (["in"], "x.png", "need a folder"),
        (["a.jpg", "in/deep/../../a.jpg", "in"], "notes", "neither a folder"),
        (["in/a.png", "twin/a.png"], "out", "several inputs .* one after the other"),
        (["a.jpg"], "a.jpg", "is one of the inputs"),
        (["link.jpg"], "a.jpg", "is one of the inputs"),
    ],
)
def test_plans_that_would_lose_something_are_refused(inputs, output, what, folder):
    (folder / "notes").touch()
    (folder / "twin").mkdir()
    (folder / "twin/a.png").touch()
    (folder / "link.jpg").symlink_to("a.jpg")
    with pytest.raises(ValueError, match=what):
        plan_jobs(inputs, output, "m")


def test_a_folder_may_have_a_suffix(folder):
    (folder / "my.photos").mkdir()
    assert targets("a.jpg", output="my.photos") == ["my.photos/a_m.jpg"]
    assert targets("a.jpg", output=f"new.photos{os.sep}") == ["new.photos/a_m.jpg"]


def test_a_broken_link_is_an_input_that_fails_later(folder):
    (folder / "lost.jpg").symlink_to("nowhere.jpg")
    assert targets("lost.jpg") == ["out/lost_m.jpg"]


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_planned(folder, monkeypatch):
    subfolder = next(path for path in sorted(folder.rglob("*")) if path.is_dir())
    scandir = os.scandir

    def refusing(path):
        if Path(path) == subfolder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    jobs, problems = plan_jobs([str(folder)], str(folder / "out"), "model")
    assert jobs and problems == [f"{subfolder}: Permission denied"]
    with pytest.raises(ValueError, match="Permission denied"):
        plan_jobs([str(subfolder)], str(folder / "out"), "model")
