"""Values of a request, checked: the page sends what its fields allow, other clients may send anything."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, on_one_line

_LONGEST_SHOWN = 40  # signs of a value in a message
_LONGEST_LIST = 100  # signs


def uploaded_file(value: Any, folder: Path) -> Path | None:
    """The file that a request names as its scene; None if it names none.

    Args:
        value: As gradio gives it: None, or a dictionary with a path.
        folder: Where gradio keeps uploads, each in a folder of its own.

    Raises:
        InputError: The path does not belong to an upload; for example, it is that of a folder or a result.
    """
    if value is None:
        return None
    path = Path(os.path.normpath(value["path"]))
    if path.parent.parent != Path(os.path.realpath(folder)):
        raise InputError(
            "This is not a file that was uploaded; drop a GeoTIFF, JPEG or PNG into the box."
        )
    return path


def one_of(value: Any, choices: Sequence[str], name: str) -> str:
    """One of the names in `choices`; raises `InputError`."""
    if not (isinstance(value, str) and value in choices):
        raise InputError(f"Unknown {name} {_shown(value)}; choose {' or '.join(choices)}.")
    return value


def flag(value: Any, name: str) -> bool:
    """True or False; None means False. Raises `InputError`."""
    if not (value is None or isinstance(value, bool)):
        raise InputError(f"{name}: {_shown(value)} is neither true nor false; give true or false.")
    return bool(value)


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number from `low` to `high`; raises `InputError`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):  # NaN is not
        raise InputError(
            f"{name}: {_shown(value)} is not between {low:g} and {high:g}; give a number that is."
        )
    return float(value)


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from `low` to `high`; raises `InputError`."""
    found = number(value, name, low, high)
    if not found.is_integer():
        raise InputError(
            f"{name}: {_shown(value)} is not a whole number; give one from {low} to {high}."
        )
    return int(found)


def band_numbers(value: Any) -> list[int] | None:
    """Band numbers as a visitor typed them; None for none. Raises `InputError`."""
    try:
        typed = _typed(value)
        if typed:
            return [int(number) for number in typed.split(",")]
        return None
    except ValueError as error:
        raise InputError(
            f"{_shown(value)} is not a list of bands; give numbers such as 4,3,2."
        ) from error


def nodata_values(value: Any) -> list[float] | None:
    """Values without data as a visitor typed them; [] for the word "none", None for an empty field.

    Raises:
        InputError: The value is neither a list of finite numbers nor that word.
    """
    try:
        typed = _typed(value)
        if typed and typed.lower() != "none":
            values = [float(number) for number in typed.split(",")]
        else:
            values = []
        if not all(map(math.isfinite, values)):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{_shown(value)} is not a no-data value; give numbers such as 0,-9999, or none."
        ) from error
    if typed:
        return values
    return None


def _typed(value: Any) -> str:
    """What a visitor typed into a field for numbers; raises `ValueError` for a value of another type."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise ValueError
    if value is None:
        typed = ""
    else:
        typed = str(value).strip()
    if len(typed) > _LONGEST_LIST:
        raise ValueError
    return typed


def _shown(value: Any) -> str:
    """A value for a message: short, and on one line."""
    if isinstance(value, str):
        text = f"'{value}'"
    elif value is None:
        text = "(empty)"
    else:
        text = _number_or_kind(value)
    return on_one_line(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}...")


def _number_or_kind(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        try:
            return f"{value:g}"
        except OverflowError:
            return "a huge number"
    if isinstance(value, list):
        return "a list"
    return "an object"
