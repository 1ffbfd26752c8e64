"""What subcommands share: types of arguments, a line on stderr, the end on SIGTERM."""

import argparse
import sys
from types import FrameType


def numbers(text: str) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of band numbers such as 1,2,3") from error


def nodata_values(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, or "none" for none."""
    try:
        if text.strip().lower() == "none":
            return ()
        return tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a value such as 0 or -9999, and not 'none'") from error


def add_nodata(parser: argparse.ArgumentParser) -> None:
    """The option on values without data."""
    parser.add_argument(
        "--nodata",
        metavar="VALUE",
        type=nodata_values,
        help="value without data, beside what the file declares; several with commas; 'none' for no other (default: "
        "fill that is not declared is found in data of 16 bits and more)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Options on how rasters are read, which the subcommands that read them share."""
    add_nodata(parser)
    parser.add_argument(
        "--palette-as-image", action="store_true", help="read a palette of few flat colors as a picture, not as classes"
    )


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
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of names such as building,vegetation")
    return names


def pairs(text: str) -> dict[str, str]:
    """Pairs such as road=impervious_surface, separated by commas."""
    pairs = [[side.strip() for side in pair.split("=")] for pair in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        raise argparse.ArgumentTypeError(f"'{text}' is not a map such as road=impervious_surface,water=clutter")
    return {pair[0]: pair[1] for pair in pairs}


def assignment(text: str) -> tuple[str, str]:
    """KEY=PATH as a pair."""
    key, equals, path = text.partition("=")
    if not (key and equals and path):
        raise argparse.ArgumentTypeError(f"'{text}' is no KEY=PATH such as images=/data/tiles")
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
    """A line for the person at the terminal, beside the results."""
    print(f"crossearth: {sentence}", file=sys.stderr)
