"""Write a style that another project trained, or one of this project, as a checkpoint of its own.

    python -m fast.convert candy.pth -o checkpoints/candy.pth
    python -m fast.convert mosaic.model -o mosaic.pth --title Mosaic --force

predict.py takes other projects' files as they are; the converted file also tells what it is of.
Known are the networks of pytorch/examples (fast_neural_style), rrmina/fast-neural-style-pytorch,
gordicaleksa/pytorch-neural-style-transfer-johnson and iSach/clipmorph.
"""

import argparse
from pathlib import Path

import cli
from media import write_atomically
from models.checkpoint import read_network


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="file to read")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.pth", help="file to write"
    )
    parser.add_argument("--title", help="title of the style picture (default: as it was)")
    parser.add_argument("--artist", help="its artist (default: as it was)")
    parser.add_argument("--licence", help="its licence (default: as it was)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.output.suffix != ".pth":
        raise ValueError(f"-o {args.output}: the name must end in .pth")
    cli.check_output(args.output, exists_ok=args.force)
    credits = {"title": args.title, "artist": args.artist, "licence": args.licence}
    checkpoint, _ = read_network(args.input)  # built, so that it is known to work
    checkpoint.style |= {name: text for name, text in credits.items() if text is not None}
    write_atomically(args.output, checkpoint.to_bytes(), exists_ok=args.force)
    print(args.output)
    return cli.OK


if __name__ == "__main__":
    cli.run(main)
