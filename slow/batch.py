"""Several paintings in one run, from folders of contents and styles."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from media import find_images
from slow.job import Job
from slow.recipe import read_recipe


def plan_jobs(
    contents: Path,
    styles: Sequence[Path],
    output: Path,
    *,
    content_masks: Sequence[Path] = (),
    style_masks: Sequence[Path] = (),
) -> list[Job]:
    """Which paintings to make.

    A folder stands for each of the pictures in it: of contents, each is painted; of styles, each
    content is painted in each. Style files without a folder among them make one blend. Results of
    earlier runs are not inputs: the output folder is left out, and so is every image that carries a
    recipe.

    Args:
        contents: a content image or a folder of them.
        styles: style images or folders of them.
        output: an image file for one painting, a folder for several.
        content_masks, style_masks: mask files, for one painting.

    Raises:
        ValueError: masks are given for a folder, a folder holds no image, or two paintings would go
            to one file.
        FileNotFoundError: a file or folder does not exist.
    """
    for path in (contents, *styles):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
    if not any(path.is_dir() for path in (contents, *styles)):
        if output.is_dir():
            raise ValueError(f"-o {output} is a folder; one painting needs a file")
        return [Job(contents, tuple(styles), output, tuple(content_masks), tuple(style_masks))]
    if content_masks or style_masks:
        raise ValueError("--content-mask and --style-mask are for one painting, not for folders")

    if not output.is_dir() and (output.suffix or output.exists()):
        raise ValueError(f"-o {output}: several paintings need a folder, not a file")
    if any(path.is_dir() for path in styles):
        blends = [(style,) for path in styles for style in _images(path, output)]
    else:
        blends = [tuple(styles)]
    photos = _images(contents, output)
    # The styles are the outer loop: what is computed of one serves all contents.
    jobs = []
    for blend in blends:
        for content in photos:
            folder = content.relative_to(contents).parent if contents.is_dir() else Path()
            name = "_".join([content.stem, *(style.stem for style in blend)])
            jobs.append(Job(content, blend, output / folder / f"{name}.png"))
    for path, count in Counter(job.output for job in jobs).items():
        if count > 1:
            raise ValueError(f"several paintings would be written to {path}")
    return jobs


def _images(path: Path, output: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [image for image in find_images(path, outside=output) if not _is_painting(image)]
    if not found:
        raise ValueError(f"{path}: no image in this folder, or only paintings of this program")
    return found


def _is_painting(image: Path) -> bool:
    try:
        read_recipe(image)
    except (OSError, ValueError):  # a damaged photo is reported when its turn comes
        return False
    return True
