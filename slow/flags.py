"""The flags of python -m slow."""

import argparse
import inspect
import sys
from pathlib import Path

import cli
from media.formats import DEPTHS
from slow.job import paint
from slow.recipe import Recipe, read_recipe
from slow.settings import DEFAULT_PRESET, PRESETS, SlowSettings


def make_parser(description: str) -> argparse.ArgumentParser:
    """The flags, whose defaults are those of the preset, or of the recipe, that is asked for."""
    parser = cli.make_parser(description)
    parser.add_argument(
        "content", type=Path, metavar="CONTENT", nargs="?", help="photo to paint, or a folder"
    )
    parser.add_argument(
        "styles", type=Path, nargs="*", metavar="STYLE", help="style pictures, or folders"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE|DIR", help="image file, or folder for several"
    )
    parser.add_argument(
        "--style-blend",
        type=cli.list_of(float),
        default=(),
        metavar="X[,X]",
        help="a weight for each style picture (default: equal)",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="all settings that no other flag changes; gatys follows the paper; "
        f"--preset NAME --help shows them (default: {DEFAULT_PRESET})",
    )
    parser.add_argument(
        "--show-settings", action="store_true", help="print the settings of this run and end"
    )
    # Only to find the defaults; what is wrong is for the parser itself to tell.
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", nargs="?")
    early.add_argument("--from", dest="source", type=Path, nargs="?")
    known, _ = early.parse_known_args()
    recipe = read_recipe(known.source) if known.source else None
    settings, loss = PRESETS.get(known.preset, PRESETS[DEFAULT_PRESET])
    if recipe:
        settings, loss = recipe.settings, recipe.loss
    cli.add_settings(parser, SlowSettings, "optimisation", settings)
    cli.add_loss_flags(parser, loss)
    add_mask_flags(parser)
    add_result_flags(parser)
    cli.add_max_memory(
        cli.add_running_flags(parser),
        effect="large images are computed in tiles, to the same result but for rounding",
        default="most of what is free",
    )
    parser.set_defaults(loss_defaults=loss, recipe_used=recipe)
    if recipe:
        parser.set_defaults(
            content=Path(recipe.content),
            styles=[Path(style) for style in recipe.styles],
            style_blend=recipe.style_blend,
            content_mask=[Path(mask) for mask in recipe.content_masks],
            style_mask=[Path(mask) for mask in recipe.style_masks],
            precision=recipe.precision,
        )
    return parser


def add_mask_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of styles in regions."""
    group = parser.add_argument_group("regions")
    group.add_argument(
        "--content-mask",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what to paint, in white, in an image of the photo's size; black stays the photo. One "
        "for all styles, or one for each; or one with a region in each colour",
    )
    group.add_argument(
        "--style-mask",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="what to take from a style picture, in white, or in the colour of the region it is "
        "for; one for each style, or one for each content mask (default: all of it but what is "
        "transparent)",
    )


def add_result_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of what is written, while it runs and at the end."""
    defaults = {p.name: p.default for p in inspect.signature(paint).parameters.values()}
    group = parser.add_argument_group("result")
    group.add_argument(
        "--depth",
        type=int,
        choices=DEPTHS,
        default=defaults["depth"],
        help="bits a channel; 16 in PNG and TIFF (default: %(default)s)",
    )
    group.add_argument(
        "--save-every",
        type=cli.not_negative,
        default=defaults["save_every"],
        metavar="N",
        help="save the state every N steps, in a file beside the result that goes when the run is "
        "complete; 0 for never (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted run, to the same image; leave finished ones alone",
    )
    group.add_argument(
        "--preview", type=Path, metavar="FILE", help="an image file that shows how the run goes on"
    )
    group.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="print what a painting was made from, with all settings, as JSON and end",
    )
    group.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="paint as FILE was painted; what is given beside it counts instead",
    )


def parse_args(description: str) -> argparse.Namespace:
    """The flags; `loss_defaults` and `recipe_used` are what --preset and --from have come to."""
    parser = make_parser(description)
    # It drops the -- that names beginning with a dash need.
    parse = parser.parse_args if "--" in sys.argv else parser.parse_intermixed_args
    args = parse()
    if args.recipe_used:
        drop_what_does_not_fit(args, args.recipe_used)
    if args.source and args.preset:
        parser.error("--from and --preset cannot be given together")
    ends_early = args.show_settings or args.recipe
    if not ends_early and not (args.content and args.styles and args.output):
        parser.error("CONTENT, STYLE and -o FILE are needed")
    return args


def drop_what_does_not_fit(args: argparse.Namespace, recipe: Recipe) -> None:
    """Masks and weights that --from brings along do not fit a photo or styles given beside it."""
    if args.content != Path(recipe.content) and _names(args.content_mask) == recipe.content_masks:
        args.content_mask = []
    if args.styles != [Path(style) for style in recipe.styles]:
        if _names(args.style_mask) == recipe.style_masks:
            args.style_mask = []
        if args.style_blend == recipe.style_blend:
            args.style_blend = ()


def _names(paths: list[Path]) -> tuple[str, ...]:
    return tuple(map(str, paths))
