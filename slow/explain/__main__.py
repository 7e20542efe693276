"""Look inside the slow path: what each layer of the loss network keeps of a photo and of a style,
its feature maps and Gram matrices, the losses by layer, and an animation of the optimisation.

    python -m slow.explain samples/photos/rocket.jpg samples/starry_night.jpg -o inside
    python -m slow.explain photo.jpg style.jpg -o inside --size 128 --layers relu2_1,relu4_1

The folder's captions.md shows all pictures with a caption each.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

import cli
from media import read_image
from models.device import pick_device, pick_precision
from models.memory import keep_pages
from models.vgg import check_layers
from slow.explain.inside import explain, painting_settings
from slow.start import check_sizes


def parse_args() -> argparse.Namespace:
    defaults = explain.__kwdefaults__
    parser = cli.make_parser(__doc__)
    parser.add_argument("content", type=Path, metavar="CONTENT", help="photo")
    parser.add_argument("style", type=Path, metavar="STYLE", help="style picture")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the pictures"
    )
    parser.add_argument(
        "--layers",
        type=cli.list_of(str),
        default=defaults["layers"],
        metavar="LAYER[,LAYER]",
        help=f"layers to look at (default: {','.join(defaults['layers'])})",
    )
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=defaults["size"],
        metavar="PX",
        help="longer side of photo and style picture (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=cli.positive_int,
        default=defaults["steps"],
        metavar="N",
        help="evaluations of the loss for each picture (default: %(default)s)",
    )
    cli.add_running_flags(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    layers = check_layers(args.layers, "--layers")
    photo = read_image(args.content, long_side=args.size).rgb
    style = read_image(args.style, long_side=args.size).rgb
    check_sizes(
        (args.content, args.style),
        (photo, style),
        *painting_settings(layers, args.size, args.steps),
        remedy="choose a larger --size, or other --layers",
    )
    if args.output.resolve() in (args.content.resolve().parent, args.style.resolve().parent):
        raise ValueError(f"-o {args.output} is the folder of an input; choose another one")
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"-o {args.output} is a file, not a folder")
    if args.output.is_dir() and any(args.output.iterdir()) and not args.force:
        raise ValueError(f"-o {args.output} is not empty; write into it with --force")
    device = pick_device(args.device)
    args.output.mkdir(parents=True, exist_ok=True)

    keep_pages(large=False)
    with tqdm(
        total=args.steps * (1 + 2 * len(layers)), unit="step", disable=args.quiet
    ) as progress:
        for path in explain(
            photo.to(device),
            style.to(device),
            args.output,
            layers=layers,
            size=args.size,
            steps=args.steps,
            dtype=pick_precision(args.precision, device),
            tick=progress.update,
        ):
            tqdm.write(str(path))
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
