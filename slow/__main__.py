"""Paint one photo in the style of one or more pictures by optimising its pixels: slow, highest
quality.

    python -m slow samples/photos/rocket.jpg samples/starry_night.jpg -o painted.png
    python -m slow photo.jpg style.jpg -o painted.png --size 768 --steps 500 --strength 0.6

Ctrl-C ends the run and saves the best image so far.
"""

import argparse
import inspect
from pathlib import Path

from tqdm import tqdm

import cli
from media import check_format, read_image, write_image
from models.device import keep_pages, pick_device, pick_precision
from slow.stylize import Iterate, stylize


def parse_args() -> argparse.Namespace:
    defaults = {p.name: p.default for p in inspect.signature(stylize).parameters.values()}
    parser = cli.make_parser(__doc__)
    parser.prog = "python -m slow"
    parser.add_argument("content", type=Path, metavar="CONTENT", help="photo to paint")
    parser.add_argument("styles", type=Path, nargs="+", metavar="STYLE", help="style pictures")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="image file to write"
    )
    parser.add_argument(
        "--size",
        type=cli.positive_int,
        default=512,
        metavar="PX",
        help="longer side of the result (default: %(default)s)",
    )
    parser.add_argument(
        "--style-size",
        type=cli.positive_int,
        metavar="PX",
        help="longer side of the style pictures; larger means larger strokes (default: --size)",
    )
    parser.add_argument(
        "--style-blend",
        type=cli.list_of(float),
        metavar="X[,X]",
        help="a weight for each style picture (default: equal)",
    )
    parser.add_argument(
        "--steps",
        type=cli.positive_int,
        default=defaults["steps"],
        metavar="N",
        help="evaluations of the loss (default: %(default)s)",
    )
    parser.add_argument(
        "--optimizer",
        choices=("lbfgs", "adam"),
        default=defaults["optimizer"],
        help="lbfgs is better in the same steps, adam takes less memory (default: %(default)s)",
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="X", help="step size (default: lbfgs 1, adam 0.02)"
    )
    parser.add_argument(
        "--init",
        default=defaults["init"],
        metavar="content|noise|FILE",
        help="what to start from (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=defaults["seed"],
        metavar="N",
        help="of the noise (default: %(default)s)",
    )
    cli.add_loss_flags(parser)
    cli.add_device_flags(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    init = args.init if args.init in ("content", "noise") else Path(args.init)
    inputs = [args.content, *args.styles, *([init] if isinstance(init, Path) else [])]
    check_format(args.output)
    if any(args.output.resolve() == path.resolve() for path in inputs):
        raise ValueError(f"-o {args.output} is one of the inputs")
    cli.check_output(args.output, exists_ok=args.force, remedy="replace it by --force")
    loss = cli.loss_from(args)

    keep_pages()
    device = pick_device(args.device)
    dtype = pick_precision(args.precision, device)
    content = read_image(args.content, long_side=args.size)
    styles = [read_image(path, long_side=args.style_size or args.size).rgb for path in args.styles]
    if isinstance(init, Path):
        init = read_image(init).rgb

    latest: Iterate | None = None
    bar = None

    def report(iterate: Iterate) -> None:
        nonlocal bar, latest
        latest = iterate
        if bar is None:  # now nothing can be wrong with the input any more
            bar = tqdm(total=args.steps, disable=args.quiet, unit="step")
        bar.update(iterate.step - bar.n)
        bar.set_postfix_str(
            f"loss {iterate.loss:.4g} content {iterate.content:.4g} style {iterate.style:.4g}"
        )

    code = cli.OK
    try:
        result = stylize(
            content.rgb.to(device),
            [style.to(device) for style in styles],
            loss=loss,
            style_blend=args.style_blend,
            steps=args.steps,
            optimizer=args.optimizer,
            learning_rate=args.learning_rate,
            init=init,
            seed=args.seed,
            dtype=dtype,
            callback=report,
        )
    except KeyboardInterrupt:
        if latest is None:
            raise
        result, code = latest.best, cli.INTERRUPTED
    finally:
        if bar:
            bar.close()
    write_image(args.output, result, like=content)
    print(args.output)
    return code


if __name__ == "__main__":
    cli.run(main)
