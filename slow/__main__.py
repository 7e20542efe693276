"""Paint one photo in the style of one or more pictures by optimising its pixels: slow, highest
quality.

    python -m slow samples/photos/rocket.jpg samples/starry_night.jpg -o painted.png
    python -m slow photo.jpg style.jpg -o painted.png --size 768 --strength 0.6
    python -m slow --preset gatys --show-settings

Ctrl-C ends the run and saves the best image so far.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

import cli
from fast import load
from media import Picture, check_format, read_image, write_image
from models.device import keep_pages, pick_device, pick_precision
from models.losses import LossSettings
from slow.settings import INITS, PRESETS, SlowSettings
from slow.stylize import Iterate, resized, stylize


def make_parser() -> argparse.ArgumentParser:
    """The flags, whose defaults are those of the preset that is asked for."""
    parser = cli.make_parser(__doc__)
    parser.prog = "python -m slow"
    parser.add_argument("content", type=Path, metavar="CONTENT", nargs="?", help="photo to paint")
    parser.add_argument("styles", type=Path, nargs="*", metavar="STYLE", help="style pictures")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="image file to write")
    parser.add_argument(
        "--style-blend",
        type=cli.list_of(float),
        metavar="X[,X]",
        help="a weight for each style picture (default: equal)",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="best",
        help="all settings that no other flag changes; gatys follows the paper; "
        "--preset NAME --help shows them (default: %(default)s)",
    )
    parser.add_argument(
        "--show-settings", action="store_true", help="print the settings of this run and end"
    )
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", choices=tuple(PRESETS), default="best")
    settings, loss = PRESETS[early.parse_known_args()[0].preset]
    cli.add_settings(parser, SlowSettings, "optimisation", settings)
    cli.add_loss_flags(parser, loss)
    cli.add_device_flags(parser)
    return parser


def parse_args() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    if not args.show_settings and not (args.content and args.styles and args.output):
        parser.error("CONTENT, STYLE and -o FILE are needed")
    return args


def show(settings: SlowSettings, loss: LossSettings) -> None:
    """Print settings as the flags that give them."""
    for name, value in {**asdict(settings), **asdict(loss)}.items():
        value = ",".join(map(str, value)) if isinstance(value, tuple) else value
        print(f"--{name.replace('_', '-')}={value}")


def check_files(args: argparse.Namespace, init: Path | None) -> None:
    """ValueError unless the result can be written, and is none of the inputs."""
    inputs = [args.content, *args.styles, *([init] if init else [])]
    check_format(args.output)
    if any(args.output.resolve() == path.resolve() for path in inputs):
        raise ValueError(f"-o {args.output} is one of the inputs")
    cli.check_output(args.output, exists_ok=args.force, remedy="replace it by --force")


def read_init(name: str, content: Tensor, device: str | None) -> Tensor | None:
    """The image to start from, where it is a file, or the content painted by a trained model."""
    if name in INITS:
        return None
    if name.endswith(".pth"):
        return load(name, device=device)(content)
    return read_image(name).rgb


class Progress:
    """A progress bar over all scales, and the latest state for an interrupted run."""

    def __init__(self, steps: int, quiet: bool) -> None:
        self.steps, self.quiet = steps, quiet
        self.bar: tqdm | None = None
        self.latest: Iterate | None = None

    def __call__(self, iterate: Iterate) -> None:
        self.latest = iterate
        if self.bar is None:  # now nothing can be wrong with the input any more
            self.bar = tqdm(total=self.steps, disable=self.quiet, unit="step")
        self.bar.update(iterate.step - self.bar.n)
        height, width = iterate.size
        self.bar.set_postfix_str(
            f"{width}x{height} loss {iterate.loss:.4g} content {iterate.content:.4g} "
            f"style {iterate.style:.4g}"
        )

    def close(self) -> None:
        if self.bar:
            self.bar.close()


def optimize(
    args: argparse.Namespace, content: Picture, settings: SlowSettings, loss: LossSettings
) -> tuple[Tensor, int]:
    """The painting and the exit code."""
    device = pick_device(args.device)
    init = read_init(settings.init, content.rgb, args.device)
    progress = Progress(settings.steps, args.quiet)
    try:
        result = stylize(
            content.rgb.to(device),
            [read_image(path).rgb.to(device) for path in args.styles],
            settings,
            loss,
            style_blend=args.style_blend,
            init=init,
            dtype=pick_precision(args.precision, device),
            callback=progress,
        )
        return result, cli.OK
    except KeyboardInterrupt:
        if progress.latest is None:
            raise
        return resized(progress.latest.best, settings.size), cli.INTERRUPTED
    finally:
        progress.close()


def main() -> int:
    args = parse_args()
    settings = cli.settings_from(args, SlowSettings)
    loss = cli.loss_from(args, PRESETS[args.preset][1])
    if args.show_settings:
        show(settings, loss)
        return cli.OK
    keep_pages()
    is_image = settings.init not in INITS and not settings.init.endswith(".pth")
    check_files(args, Path(settings.init) if is_image else None)
    content = read_image(args.content, long_side=settings.size)
    result, code = optimize(args, content, settings, loss)
    write_image(args.output, result, like=content)
    print(args.output)
    return code


if __name__ == "__main__":
    cli.run(main)
