"""Which photo or video is painted to which file."""

import glob
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from media import (
    FORMATS,
    HEIF,
    VIDEO_FORMATS,
    VIDEOS,
    check_format,
    check_video_format,
    find_images,
)

MOVING = (".avif", ".gif", ".png")  # images that may be animations
STREAM = "-"  # standard input or output


@dataclass(frozen=True)
class Job:
    """A photo or a video to paint.

    Args:
        source: image or video file; None for an image from standard input.
        target: file to write; None for standard output.
    """

    source: Path | None
    target: Path | None

    @property
    def is_video(self) -> bool:
        """Whether all frames are to be painted; those of an animation if the target is a video."""
        if not self.source or not self.target:
            return False
        wants_video = _suffix(self.target) in VIDEO_FORMATS
        return _suffix(self.source) in VIDEOS or (_suffix(self.source) in MOVING and wants_video)


def plan_jobs(
    inputs: Sequence[str],
    output: str,
    model_name: str,
    *,
    known_names: Collection[str] = (),
    other_inputs: Collection[Path] = (),
) -> tuple[list[Job], list[str]]:
    """Find the photos and name their paintings.

    The contents of a single folder go to the output folder with their structure; where there are
    more inputs, folders keep their own names in it. A painting is called PHOTO_MODEL; where the
    format changes, as for GIF, the photo's suffix stays in its name: a.gif_MODEL.png. Earlier
    results are not painted again: the output folder is skipped, and, where photos and paintings
    share a folder, files named like a painting of a photo there.

    Args:
        inputs: files, folders, patterns as of glob (with ** for subfolders), or "-".
        output: a folder, a file with the suffix of a format, or "-".
        model_name: of the model, for the names of the paintings.
        known_names: of other models whose paintings may lie beside the photos.
        other_inputs: what else is read, and not to be overwritten.

    Returns:
        The jobs, and a line about each input of which there is no photo and each folder that
        cannot be read.

    Raises:
        ValueError: no photo is left, several would go to one file, one would be overwritten, or the
            output is to lie below a file.
    """
    folder = output if output != STREAM and not _is_file_name(output) else None
    photos, problems = _find_photos(inputs, Path(folder) if folder else None)
    if folder:
        for place in (Path(folder), *Path(folder).parents):
            if os.path.exists(place) and not os.path.isdir(place):
                raise ValueError(f"-o {output}: {place} is a file, neither a folder nor an image")
        photos = _without_results(photos, Path(folder), {model_name, *known_names})
    if not photos:
        raise ValueError("; ".join(problems) or "there is no photo to paint")
    if folder:
        jobs = [Job(p, Path(folder) / sub / _painting_name(p, model_name)) for p, sub in photos]
    elif len(photos) > 1:
        raise ValueError(f"-o {output}: {len(photos)} photos need a folder, not a file")
    else:
        job = Job(photos[0][0], None if output == STREAM else Path(output))
        if job.source is None and job.target and _suffix(job.target) in VIDEO_FORMATS:
            raise ValueError(f"-o {output}: videos are not read from standard input")
        if job.target:
            if job.is_video:
                check_video_format(job.target)
            else:
                check_format(job.target)
        elif job.source and _suffix(job.source) in VIDEOS:
            raise ValueError(f"-o -: the video {job.source} needs a file to be painted to")
        jobs = [job]
    _check_targets(jobs, other_inputs)
    return jobs, problems


def _is_file_name(output: str) -> bool:
    is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    return bool(Path(output).suffix) and not is_folder


Photos = list[tuple[Path | None, Path]]  # each with its folder within the output


def _find_photos(inputs: Sequence[str], output: Path | None) -> tuple[Photos, list[str]]:
    """Photos, each once, and a line about each input that has none or cannot be read completely."""
    paths, problems = [], []
    for text in inputs:
        found = _matches(text)
        paths += found
        if not found:
            is_pattern = glob.has_magic(text)
            problems.append(f"{text}: no {'match' if is_pattern else 'such file or folder'}")
    if output and len(paths) > 1:  # a pattern may match the output folder, too
        paths = [path for path in paths if not (path and _real(path) == _real(output))]

    photos = {}
    for path in paths:
        # Unlike Path.is_dir this takes a link into a folder that must not be entered.
        if path is None or not os.path.isdir(path):
            photos.setdefault(path and os.path.abspath(path), (path, Path()))
            continue
        errors: list[OSError] = []
        found = find_images(path, outside=output, on_error=errors.append)
        problems += [f"{error.filename}: {error.strerror}" for error in errors]
        if not found and not errors:
            problems.append(f"{path}: no image in this folder")
        name = Path(_real(path).name if len(paths) > 1 else "")
        for photo in found:
            folder = name / photo.relative_to(path).parent
            photos.setdefault(os.path.abspath(photo), (photo, folder))
    return list(photos.values()), problems


def _matches(text: str) -> list[Path | None]:
    """The files and folders that an input stands for; a broken link counts."""
    if text == STREAM:
        return [None]
    try:
        os.lstat(text)
    except PermissionError:
        pass  # it is reported when its turn comes
    except (OSError, ValueError):  # no such file, or no name for one
        return [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    return [Path(text)]


def _without_results(photos: Photos, output: Path, names: Collection[str]) -> Photos:
    """Leave out files named like a painting of a photo in the same folder, if that photo's painting
    would be written there.
    """
    name = "|".join(map(re.escape, sorted(names)))
    painting = re.compile(rf"(.+)_(?:{name})(?:\+(?:{name}))*")
    sources = {(p.parent, name) for p, _ in photos if p for name in (p.stem, p.name)}

    def is_result(photo: Path | None, folder: Path) -> bool:
        found = painting.fullmatch(photo.stem) if photo else None
        if not found or (photo.parent, found[1]) not in sources:
            return False
        return _real(output / folder) == _real(photo.parent)

    return [(photo, folder) for photo, folder in photos if not is_result(photo, folder)]


def _painting_name(photo: Path | None, model_name: str) -> str:
    """In its own format if that can be written with full colour, else in JPEG, PNG or MP4."""
    if photo is None:
        return f"stdin_{model_name}.png"
    suffix = _suffix(photo)
    if suffix in VIDEO_FORMATS or (suffix in FORMATS and suffix != ".gif"):
        return f"{photo.stem}_{model_name}{photo.suffix}"
    new = ".jpg" if suffix in HEIF else ".mp4" if suffix in VIDEOS else ".png"
    return f"{photo.name}_{model_name}{new}"


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _check_targets(jobs: Sequence[Job], other_inputs: Collection[Path]) -> None:
    """ValueError if two paintings would go to one file, or one over an input."""
    sources = {_real(path) for path in (*other_inputs, *(job.source for job in jobs)) if path}
    writers: dict[Path, Job] = {}
    for job in jobs:
        if not job.target:
            continue
        place = _real(job.target)
        if place in sources:
            raise ValueError(
                f"{job.target} is one of the inputs, which it would replace; choose another -o"
            )
        if place in writers:
            raise ValueError(
                f"several inputs would be written to {job.target}: {writers[place].source} and "
                f"{job.source}; paint them one after the other, each with an -o of its own"
            )
        writers[place] = job


def _real(path: Path) -> Path:
    """Without links; unlike Path.resolve it takes a link that leads to itself."""
    return Path(os.path.realpath(path))
