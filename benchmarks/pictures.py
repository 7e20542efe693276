"""Draw the pictures of the READMEs: content + style = stylized, and a sheet of all sample photos.

python -m benchmarks.pictures --model starry_night --triple PHOTO samples/starry_night.jpg
python -m benchmarks.pictures --model the_scream
"""

from pathlib import Path

import torch
from torch import Tensor

import cli
from fast.catalogue import CHECKPOINTS, SAMPLE_PHOTOS, find_model
from fast.stylize import load_net, stylize
from media import find_images, read_image, resize, write_image
from models.memory import keep_pages

GAP = 12  # px between pictures
SIGN = 36  # px: room for "+" and "="


def resized(image: Tensor, height: int) -> Tensor:
    return resize(image, (height, round(image.shape[-1] * height / image.shape[-2])))


def sign(kind: str, height: int) -> Tensor:
    """A white strip with "+" or "=" in its middle."""
    strip = torch.ones(1, 3, height, SIGN)
    middle, half, thick = height // 2, SIGN // 4, 2
    centre = SIGN // 2
    if kind == "+":
        strip[..., middle - thick : middle + thick, centre - half : centre + half] = 0.2
        strip[..., middle - half : middle + half, centre - thick : centre + thick] = 0.2
    else:
        for offset in (-6, 6):
            row = middle + offset
            strip[..., row - thick : row + thick, centre - half : centre + half] = 0.2
    return strip


def main() -> int:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--model", required=True, help="checkpoint")
    parser.add_argument(
        "--triple", type=Path, nargs=2, metavar=("PHOTO", "STYLE"), help="pictures of the triple"
    )
    parser.add_argument(
        "--height", type=int, default=320, help="of a row in px (default: %(default)s)"
    )
    args = parser.parse_args()

    keep_pages()
    path = find_model(args.model)
    net = load_net(path, device="cpu")
    height = args.height
    if args.triple:
        content, style = (read_image(path, long_side=900).rgb for path in args.triple)
        parts = [content, sign("+", height), style, sign("=", height), stylize(net, content)]
        triple = torch.cat([resized(part, height) for part in parts], dim=-1)
        write_image(CHECKPOINTS / f"{path.stem}.jpg", triple)

    photos = [read_image(photo, long_side=768).rgb for photo in find_images(SAMPLE_PHOTOS)]
    gap = torch.ones(1, 3, height, GAP)
    row = []
    for photo in photos:
        row += [resized(stylize(net, photo), height), gap]
    write_image(CHECKPOINTS / f"{path.stem}_samples.jpg", torch.cat(row[:-1], dim=-1))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
