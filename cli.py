"""What the command lines share: flags made from settings, and errors made into exit codes."""

import argparse
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TypeVar, get_args, get_type_hints

import interrupt
from models.device import PRECISIONS
from models.loss_settings import LossSettings, weight_of_strength

Settings = TypeVar("Settings")

OK, FAILED, WRONG_USE, HUNG_UP, INTERRUPTED, TERMINATED = 0, 1, 2, 129, 130, 143
# The message and the exit code for each signal.
ENDS = {
    KeyboardInterrupt: ("interrupted", INTERRUPTED),
    interrupt.Terminated: ("terminated", TERMINATED),
    interrupt.HungUp: ("hung up", HUNG_UP),
}


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring as it stands and takes no abbreviated flags."""
    module = getattr(sys.modules["__main__"], "__spec__", None)  # None for train.py and predict.py
    return argparse.ArgumentParser(
        prog=module and f"python -m {module.name.removesuffix('.__main__')}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse_intermixed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Flags and names in any order; what follows -- is a name, even with a leading dash."""
    words = list(words)
    end = words.index("--") if "--" in words else len(words)
    names = [f"./{w}" if w.startswith("-") and w != "-" else w for w in words[end + 1 :]]
    if names:  # argparse loses the --, after which no flag before it may take another value
        parser.add_argument(
            "--names-follow", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        names.insert(0, "--names-follow")
    return parser.parse_intermixed_args(words[:end] + names)


def add_settings(
    parser: argparse.ArgumentParser, settings: type, title: str, defaults: Any = None
) -> argparse._ArgumentGroup:
    """A flag for every field of a dataclass, in a group; help and default are those of the class
    itself, or the defaults those of one of its instances.
    """
    helps, hints = _argument_docs(settings), get_type_hints(settings)
    group = parser.add_argument_group(title)
    for setting in fields(settings):
        default = getattr(defaults or settings, setting.name)
        is_list = isinstance(default, tuple)
        shown = (",".join(map(str, default)) or "equal") if is_list else default
        group.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=list_of(get_args(hints[setting.name])[0]) if is_list else type(default),
            default=default,
            metavar=_metavar(setting.name, default),
            help=f"{helps[setting.name]} (default: {shown})".replace("%", "%%"),
        )
    return group


def add_loss_flags(parser: argparse.ArgumentParser, defaults: LossSettings | None = None) -> None:
    """The flags of LossSettings, and --strength in the place of --style-weight."""
    add_settings(parser, LossSettings, "losses", defaults).add_argument(
        "--strength",
        type=number,
        metavar="0...1",
        help="how much style, about the same for every painting: the style weight is 100 to the "
        "power of it (default: see --style-weight)",
    )


def loss_from(args: argparse.Namespace, defaults: LossSettings | None = None) -> LossSettings:
    """The losses that the flags of add_loss_flags, with the same defaults, ask for."""
    if args.strength is not None:
        if args.style_weight != (defaults or LossSettings).style_weight:
            raise ValueError("--strength and --style-weight set the same thing; give one")
        try:
            args.style_weight = weight_of_strength(args.strength)
        except ValueError as error:
            raise ValueError(f"--{error}") from error
    return settings_from(args, LossSettings)


def add_running_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--device, --precision, --force and --quiet of predict.py and python -m slow, in a group."""
    group = parser.add_argument_group("running")
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or mps (default: the best there is)"
    )
    group.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="precision of the convolutions; auto takes the fastest that does no harm "
        "(default: %(default)s)",
    )
    group.add_argument("--force", action="store_true", help="overwrite existing files")
    group.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    return group


def add_max_memory(group: argparse._ArgumentGroup, *, effect: str, default: str) -> None:
    """--max-memory, given in GB and parsed to bytes, None by default.

    Args:
        group: that of add_running_flags.
        effect: of less memory, for the help.
        default: in words.
    """
    group.add_argument(
        "--max-memory",
        type=gigabytes,
        metavar="GB",
        help=f"memory that the process may take in all; with less, {effect} (default: {default})",
    )


def settings_from(args: argparse.Namespace, settings: type[Settings]) -> Settings:
    """The dataclass with the values of its flags; a ValueError names the flags."""
    names = [setting.name for setting in fields(settings)]
    try:
        return settings(**{name: getattr(args, name) for name in names})
    except ValueError as error:
        # One-word settings are replaced only at the start: elsewhere they may be ordinary words.
        pattern = rf"^({'|'.join(names)})\b|(?<=^unknown )({'|'.join(names)})\b|\b\w+_\w+\b"
        message = re.sub(
            pattern,
            lambda m: f"--{m[0].replace('_', '-')}" if m[0] in names else m[0],
            str(error),
        )
        raise ValueError(message) from error


def positive_int(text: str) -> int:
    """An argparse type: an integer of 1 or more."""
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {value}")
    return value


def number(text: str) -> float:
    """An argparse type: a number."""
    return _number(float, text)


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def gigabytes(text: str) -> float:
    """An argparse type: bytes, given in GB."""
    return positive_float(text) * 1e9


def not_negative(text: str) -> int:
    """An argparse type: an integer of 0 or more."""
    value = _number(int, text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def list_of(kind: type) -> Callable[[str], tuple]:
    """An argparse type: values separated by commas."""

    def values(text: str) -> tuple:
        return tuple(_number(kind, part.strip()) for part in text.split(",") if part.strip())

    return values


def _number(kind: type, text: str) -> Any:
    """Convert a text; argparse's own message would name the Python function instead."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"'{text}' is not {what}") from None


def check_output(path: Path, *, exists_ok: bool, flag: str = "-o") -> None:
    """ValueError unless a file can be written there."""
    if not path.parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no folder {path.parent}")
    try:
        is_folder, exists = path.is_dir(), os.path.lexists(path)
        with TemporaryFile(dir=path.parent):  # some folders only seem to be writable
            pass
    except OSError as error:
        raise ValueError(f"{flag} {path}: no file can be written there") from error
    if is_folder:
        raise ValueError(f"{flag} {path}: no file can be written there, it is a folder")
    if exists and not exists_ok:
        raise ValueError(f"{flag} {path} exists; replace it by --force")


def say(message: str) -> None:
    """A message for the person at the terminal; standard output is for result paths."""
    with suppress(OSError):  # a closed terminal must not end the run
        print(message, file=sys.stderr)


def run(main: Callable[[], int]) -> None:
    """End the process with main's exit code; an error becomes one line and a code."""
    if sys.stderr is None:  # the shell has closed it
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an unprintable file name must not end a run
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_: say(f"warning: {printable(str(message))}")
    try:
        interrupt.end_by_errors()
        code = main()
    except KeyboardInterrupt as error:
        word, code = ENDS[type(error)]
        say(word)
    except (ValueError, FileNotFoundError) as error:
        say(f"error: {one_line(error)}")
        code = WRONG_USE
    except (OSError, ArithmeticError, MemoryError, RuntimeError) as error:
        say(f"error: {one_line(error)}")
        code = FAILED
    sys.exit(code)


def one_line(error: BaseException) -> str:
    """An error's message in one readable line."""
    if isinstance(error, OSError) and error.strerror:
        line = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return printable(line)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught "):
        # From a worker process, with its traceback; last come the error's class and its message.
        return lines[-1].partition(": ")[2] or lines[-1]
    return lines[0]


def printable(text: str) -> str:
    """A text, such as a file's name, in one line that any terminal can show."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _argument_docs(documented: Any) -> dict[str, str]:
    """Descriptions in the Args section of a Google style docstring."""
    doc = inspect.getdoc(documented) or ""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)+)", doc + "\n", re.MULTILINE).group(1)
    items = re.findall(r"^ {4}(\w+): ((?:.*\n)(?: {8}.*\n)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in items}


def _metavar(name: str, default: Any) -> str:
    if isinstance(default, tuple):
        return "X[,X]" if name.endswith("weights") else "LAYER[,LAYER]"
    if name.endswith("size") and name != "batch_size":
        return "PX"
    return {int: "N", float: "X", str: "NAME"}[type(default)]
