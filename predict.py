"""Paint photos in the style of a trained model.

    python predict.py --model starry_night.pth
    python predict.py --model starry_night.pth photo.jpg -o painted.jpg

Without an input the bundled sample photos are painted. The paths of the written files are printed.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

import cli
from fast.stylize import find_model, load_net, stylize
from media import FORMATS, check_format, find_images, read_image, write_image
from models.device import keep_pages
from models.transformer_net import TransformerNet

SAMPLE_PHOTOS = Path(__file__).with_name("samples") / "photos"


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="*",
        metavar="INPUT",
        help="photos, or folders of photos (default: the bundled samples)",
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME|PATH",
        help="a .pth, or the name of one in checkpoints/",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("stylized"),
        metavar="FILE|DIR",
        help="file for a single photo, else a folder (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        metavar="PX",
        help="scale the longer side to this before painting (default: the photo's own size)",
    )
    cli.add_device_flags(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    model = find_model(args.model)
    jobs = plan_outputs(args.inputs or [SAMPLE_PHOTOS], args.output, model.stem)
    keep_pages()
    net = load_net(model, device=args.device, precision=args.precision)

    failures = 0
    for photo, output in tqdm(jobs, unit="photo", disable=args.quiet or len(jobs) == 1):
        try:
            if output.exists() and not args.force:
                raise ValueError(f"{output} exists; replace it by --force")
            stylize_file(net, photo, output, size=args.size)
        except (OSError, ValueError, ArithmeticError, MemoryError, RuntimeError) as error:
            tqdm.write(f"error: {cli.one_line(error)}", file=sys.stderr)
            failures += 1
        else:
            tqdm.write(str(output))
    return cli.FAILED if failures else cli.OK


def plan_outputs(inputs: list[Path], output: Path, model_name: str) -> list[tuple[Path, Path]]:
    """Which photo goes to which file.

    Raises:
        ValueError: an input holds no photo, several photos would go to one file, or a photo would
            be overwritten by its own painting.
        FileNotFoundError: an input does not exist.
    """
    photos = []  # photo, and its folder within the output
    for path in inputs:
        if path.is_dir():
            found = find_images(path)
            if not found:
                raise ValueError(f"{path}: no image in this folder")
            photos += [(photo, photo.relative_to(path).parent) for photo in found]
        elif path.exists():
            photos.append((path, Path()))
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")

    if output.suffix and not output.is_dir():
        check_format(output)
        if len(photos) > 1 or inputs[0].is_dir():
            raise ValueError(f"-o {output}: several photos need a folder, not a file")
        jobs = [(photos[0][0], output)]
    else:
        jobs = [
            (photo, output / folder / f"{photo.stem}_{model_name}{_suffix(photo)}")
            for photo, folder in photos
        ]
    sources = {photo.resolve() for photo, _ in jobs}
    counts = Counter(target.resolve() for _, target in jobs)
    for _, target in jobs:
        if counts[target.resolve()] > 1:
            raise ValueError(f"several inputs would be written to {target}")
        if target.resolve() in sources:
            raise ValueError(f"{target} is one of the inputs; choose another -o")
    return jobs


def stylize_file(
    net: TransformerNet, photo: Path, output: Path, *, size: int | None = None
) -> None:
    """Read a photo, stylize it, write it in full or not at all."""
    picture = read_image(photo, long_side=size)
    painted = stylize(net, picture.pixels)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_image(output, painted, like=picture)


def _suffix(photo: Path) -> str:
    """The photo's own format if it can be written with full colour, else PNG."""
    suffix = photo.suffix.lower()
    return photo.suffix if suffix in FORMATS and suffix != ".gif" else ".png"


if __name__ == "__main__":
    cli.run(main)
