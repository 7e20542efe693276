"""The flags of predict.py."""

import argparse
import inspect
import sys
from pathlib import Path

import cli
from fast.catalogue import find_models
from fast.grid import GRID_SIZE
from fast.jobs import STREAM
from fast.model import StyleModel, check_blend, check_look
from fast.stroke import AUTO, MAX_STROKE, MIN_STROKE, USUAL_SIDE, Stroke
from fast.video import MAX_STEADINESS, paint_video
from media import read_image


def parse_args(description: str) -> argparse.Namespace:
    """Read the command line: models, inputs and how to paint them."""
    keywords = inspect.signature(StyleModel.__call__).parameters
    parser = cli.make_parser(description)
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="photos, videos, folders of photos with their subfolders, patterns, or -; of "
        "animations the first frame, unless -o is a video (default: the bundled samples)",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="a .pth file, or the name of one in checkpoints/; several are blended",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="stylized",
        metavar="FILE|DIR|-",
        help="file for a single photo or video, - for standard output (as PNG), else a folder; 8 "
        "bits a channel (default: %(default)s)",
    )
    look = parser.add_argument_group("look")
    look.add_argument(
        "--size",
        type=cli.positive_int,
        metavar="PX",
        help=f"longer side of the results (default: the photo's own size; {GRID_SIZE} in a grid)",
    )
    look.add_argument(
        "--strength",
        type=cli.number,
        default=keywords["strength"].default,
        metavar="0...1.5",
        help="0 = photo, 1 = painting, up to 1.5 = painted again on top (default: %(default)s)",
    )
    look.add_argument(
        "--stroke",
        type=stroke_size,
        default=keywords["stroke"].default,
        metavar=f"{MIN_STROKE:g}...{MAX_STROKE:g}|{AUTO}",
        help="enlarge the brush strokes so many times, size and fine detail stay; auto gives "
        f"larger photos those of one of {USUAL_SIDE} px (default: %(default)s)",
    )
    look.add_argument(
        "--preserve-color", action="store_true", help="paint the brightness, keep the colours"
    )
    look.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="paint only where this image, of the photo's proportions, is white, or opaque if it "
        "has transparency",
    )
    look.add_argument("--invert-mask", action="store_true", help="paint only the rest")
    look.add_argument(
        "--blend",
        type=cli.list_of(float),
        metavar="X[,X]",
        help="how much of each model (default: equal parts)",
    )
    keywords = inspect.signature(paint_video).parameters
    videos = parser.add_argument_group(
        "videos (.mp4, .mov, .mkv: H.264; .webm: VP9; the sound is kept)"
    )
    videos.add_argument(
        "--steadiness",
        type=cli.number,
        default=keywords["steadiness"].default,
        metavar=f"0...{MAX_STEADINESS:g}",
        help="how long strokes stay where they are, or on what moves, before they are painted "
        "anew; 0 paints each frame by itself (default: %(default)s)",
    )
    videos.add_argument(
        "--crf",
        type=cli.not_negative,
        default=keywords["crf"].default,
        metavar="0...51",
        help="constant rate factor of the encoder: lower is better and larger (default: "
        "%(default)s)",
    )
    models = parser.add_argument_group("choosing a style")
    models.add_argument(
        "--grid",
        action="store_true",
        help="one sheet per photo, with all styles: the given ones, or all in checkpoints/",
    )
    models.add_argument(
        "--list",
        action="store_true",
        help="list the models, or those that are named: style, size, and how good they are (their "
        "loss, and how many iterations of L-BFGS over the pixels reach the same)",
    )
    running = cli.add_running_flags(parser)
    cli.add_max_memory(running, effect="large photos take longer", default="half of what is free")
    running.add_argument(
        "--resume",
        action="store_true",
        help="skip what is painted already; videos go on where they were stopped",
    )
    args = cli.parse_intermixed(parser, sys.argv[1:])
    args.model, args.inputs = split_models(args.model, args.inputs)
    if not (args.model or args.grid or args.list):
        parser.error("--model is needed: a .pth, or a name that --list shows")
    return args


def stroke_size(text: str) -> Stroke:
    """An argparse type: a size of strokes."""
    return text if text == AUTO else cli.number(text)


def split_models(groups: list[list[str]], inputs: list[str]) -> tuple[list[str], list[str]]:
    """Models and inputs: words that follow the first one of a --model may be either."""
    models, names = [], {path.stem for path in find_models()}
    for first, *others in groups:
        models.append(first)
        for word in others:
            is_model = Path(word).suffix in (".pth", ".model") or word in names
            (models if is_model else inputs).append(word)
    return models, inputs


def check_flags(args: argparse.Namespace) -> None:
    """ValueError unless the flags go together."""
    check_look(args.strength, args.stroke)
    if args.force and args.resume:
        raise ValueError("--force replaces files and --resume keeps them; give one")
    if args.blend and args.grid:
        raise ValueError("--grid shows each model by itself; leave out --blend")
    if not args.grid:
        check_blend(len(args.model), args.blend)
    if args.mask:
        read_image(args.mask)
    elif args.invert_mask:
        raise ValueError("--invert-mask needs a --mask")
    if args.output == STREAM and (sys.stdout is None or sys.stdout.isatty()):
        raise ValueError("-o - needs a file or a pipe behind standard output")
