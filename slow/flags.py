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
    """The flags. Their defaults are those of the preset, or of the recipe, that is asked for."""
    parser = cli.make_parser(description)
    parser.add_argument(
        "content",
        type=Path,
        metavar="CONTENT",
        nargs="?",
        help="photo to paint, or a folder of photos (required, except with --from, --recipe or "
        "--show-settings)",
    )
    parser.add_argument(
        "styles",
        type=Path,
        nargs="*",
        metavar="STYLE",
        help="style pictures, or folders of them (at least one is required, with the same "
        "exceptions)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE|DIR",
        help="where to write: an image file, or a folder for several paintings (required, except "
        "with --recipe or --show-settings)",
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
        help="values of all settings that no other flag gives; gatys has the paper's layers, "
        "pooling and Gram matrices, at one scale; --preset NAME --help shows them "
        f"(default: {DEFAULT_PRESET})",
    )
    parser.add_argument(
        "--show-settings", action="store_true", help="print the settings of this run and exit"
    )
    # Only to find the defaults: the parser itself reports what is wrong.
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
        effect="large images are computed in tiles, with the same result except for rounding",
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
        help="images of the photo's proportions: what is white is painted, what is black stays "
        "the photo. One for all styles, one for each style, several for a single style, or one "
        "with a colour for each region",
    )
    group.add_argument(
        "--style-mask",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="images of the style pictures' proportions: what to take from them, in white or in "
        "the colour of the region that it is for. One for each style, or one for each content "
        "mask (default: everything that is not transparent)",
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
        help="bits per channel; 16 only in PNG and TIFF (default: %(default)s)",
    )
    group.add_argument(
        "--save-every",
        type=cli.not_negative,
        default=defaults["save_every"],
        metavar="N",
        help="save the state every N steps, in a file beside the result that is deleted when the "
        "run is complete; 0 for never (default: %(default)s)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted run, to the same image; skip finished ones",
    )
    group.add_argument(
        "--preview",
        type=Path,
        metavar="FILE",
        help="an image file that is updated during the run, to watch the painting",
    )
    group.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="print as JSON what a painting was made from, with all settings, and exit",
    )
    group.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="paint as FILE was painted, except for what other arguments change",
    )


def parse_args(description: str) -> argparse.Namespace:
    """The command line, with two values more.

    `loss_defaults`: losses of --preset or --from. `recipe_used`: the recipe of --from, or None.
    """
    parser = make_parser(description)
    args = cli.parse_intermixed(parser, sys.argv[1:])
    if args.recipe_used:
        drop_what_does_not_fit(args, args.recipe_used)
    if args.resume and args.force:
        parser.error("--resume goes on and --force starts again; give one of them")
    if args.source and args.preset:
        parser.error("--from and --preset cannot be given together")
    ends_early = args.show_settings or args.recipe
    if not ends_early and not (args.content and args.styles and args.output):
        masks = args.content_mask or args.style_mask
        hint = "; the names after --content-mask and --style-mask are masks" if masks else ""
        parser.error(f"CONTENT, STYLE and -o FILE are required{hint}")
    return args


def drop_what_does_not_fit(args: argparse.Namespace, recipe: Recipe) -> None:
    """Drop the masks and weights of --from that do not fit another photo or other styles."""
    if args.content != Path(recipe.content) and _names(args.content_mask) == recipe.content_masks:
        args.content_mask = []
    if args.styles != [Path(style) for style in recipe.styles]:
        if _names(args.style_mask) == recipe.style_masks:
            args.style_mask = []
        if args.style_blend == recipe.style_blend:
            args.style_blend = ()


def _names(paths: list[Path]) -> tuple[str, ...]:
    return tuple(map(str, paths))
