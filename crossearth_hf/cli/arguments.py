"""Parts that subcommands share: types of arguments, options, lines on stderr, the end on SIGTERM."""

import argparse
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ..errors import InputError


def numbers(text: str) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of band numbers such as 1,2,3"
        ) from error


def shares(text: str) -> list[float]:
    """Numbers separated by commas."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of weights such as 0.3,0.7"
        ) from error


def coordinates(text: str) -> list[float]:
    """Four numbers separated by commas."""
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a box such as 8.4,47.3,8.6,47.4: west, south, east and north in degrees"
        ) from error
    return [west, south, east, north]


def nodata_values(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, or "none" for none."""
    try:
        if text.strip().lower() == "none":
            return ()
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither a value such as 0 or -9999 nor 'none'"
        ) from error


def add_nodata(parser: argparse._ActionsContainer) -> None:
    """The option on values that mean no data."""
    parser.add_argument(
        "--nodata",
        metavar="VALUE",
        type=nodata_values,
        help="no-data value besides those that the file declares; separate several with commas; 'none' "
        "for no others (default: find undeclared fill in data of 16 bits or more)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Options on how rasters are read, for all subcommands that read them."""
    add_nodata(parser)
    parser.add_argument(
        "--palette-as-image",
        action="store_true",
        help="read a palette of few flat colors as a picture, not as classes",
    )


def add_overwrite(parser: argparse.ArgumentParser, what: str = "existing files") -> None:
    """The option that allows to replace what exists."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def add_three_bands(parser: argparse.ArgumentParser) -> None:
    """The option on bands of commands that see red, green and blue."""
    parser.add_argument(
        "--bands", metavar="R,G,B", type=numbers, help="one or three band numbers, from 1"
    )


def add_networks(parser: argparse.ArgumentParser) -> None:
    """The option on the networks of Earth styles."""
    parser.add_argument(
        "--networks", metavar="FILE", help="other style networks, as EarthStyle.save writes them"
    )


def add_computing(parser: argparse.ArgumentParser, dtypes: Sequence[str], dtype_help: str) -> None:
    """Options on how a model computes."""
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=4, help="windows at a time (default: 4)"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--dtype", choices=dtypes, default="float32", help=dtype_help)


def options(arguments: argparse.Namespace, *left_out: str) -> dict[str, Any]:
    """What a person gave, by the names that the job knows it by."""
    return {
        name: value for name, value in vars(arguments).items() if name not in ("run", *left_out)
    }


def values(text: str) -> list[int]:
    """Whole numbers from 0 separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of values such as 0,255")
    return [int(part) for part in parts]


def names(text: str) -> list[str]:
    """Names separated by commas."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a list of names such as building,vegetation"
        )
    return names


def pairs(text: str) -> dict[str, str]:
    """Pairs such as road=impervious_surface, separated by commas."""
    pairs = [[side.strip() for side in pair.split("=")] for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs) or len(
        {pair[0] for pair in pairs}
    ) < len(pairs):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a map such as road=impervious_surface,water=clutter"
        )
    return {pair[0]: pair[1] for pair in pairs}


def assignment(text: str) -> tuple[str, str]:
    """KEY=PATH as a pair."""
    key, equals, path = text.partition("=")
    if not (key and equals and path):
        raise argparse.ArgumentTypeError(f"'{text}' is not a KEY=PATH such as images=/data/tiles")
    return key, path


def group(text: str) -> tuple[str, list[str]]:
    """A name and the report folders of its seeds."""
    name, _, members = text.partition("=")
    if not name.strip() or not all(members.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not a group such as NAME=REPORT,REPORT")
    return name.strip(), members.split(",")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the job like Ctrl-C, so that a batch system's SIGTERM leaves no half map either."""
    raise KeyboardInterrupt


def say(sentence: str) -> None:
    """Prints a line for the person at the terminal, apart from the results."""
    print(f"crossearth: {sentence}", file=sys.stderr)


def by_name(assigned: Sequence[tuple[str, Any]], flag: str, remedy: str) -> dict[str, Any]:
    """The assignments of a repeated flag; `InputError` if it names something twice."""
    keys = [key for key, _ in assigned]
    if len(set(keys)) < len(keys):
        raise InputError(f"{flag} names {max(keys, key=keys.count)} twice; {remedy}")
    return dict(assigned)
