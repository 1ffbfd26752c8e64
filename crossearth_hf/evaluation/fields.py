"""Values from untrusted JSON: a table of rules checks each value as it is taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

_LONGEST_TEXT = 300


@dataclass(frozen=True)
class Kind:
    """A rule for values: in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


class Fields:
    """A JSON object whose values are checked as they are taken.

    Attributes:
        values: The object.
        place: Its place in the document, for messages.

    Raises:
        InputError: The object, or in a method one of its values, is not of the required kind. The message gives place,
            key, value and rule.
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{place} is not a JSON object; the report is damaged: evaluate again")
        self.values: dict[str, Any] = values
        self.place = place

    def take(self, key: str, kind: Kind) -> Any:
        """The value of a key, which must be of this kind."""
        value = self.values.get(key)
        if not kind.holds(value):
            raise InputError(
                f"{self.place}: '{key}' is {str(value)[:60]!r}, not {kind.words}; evaluate again"
            )
        return value

    def optional(self, key: str, kind: Kind) -> Any:
        """The value of a key, which must be of this kind, or None."""
        if self.values.get(key) is None:
            return None
        return self.take(key, kind)

    def fields(self, key: str) -> "Fields":
        """The object of a key; an empty one where there is none."""
        value = self.values.get(key)
        if value is None:
            value = {}
        return Fields(value, f"{self.place}, {key}")


def number(low: float, high: float) -> Kind:
    """Numbers from `low` to `high`."""
    return Kind(f"in {low:g}..{high:g}", lambda value: _is_number(value, low, high))


def numbers(high: float) -> Kind:
    """Lists of numbers from 0 to `high`, with null for those that are missing."""

    def holds(value: Any) -> bool:
        return isinstance(value, list) and all(
            item is None or _is_number(item, 0, high) for item in value
        )

    return Kind(f"a list of 0..{high:g} or null", holds)


def _is_text(value: Any) -> bool:
    return (
        isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_TEXT and value.isprintable()
    )


def _is_number(value: Any, low: float, high: float) -> bool:
    # NaN fails
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_interval(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(_is_number(bound, 0, 1) for bound in value)
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(_is_number(level, 0, 255) for level in value)
    )


def _are_colors(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_color, value))


TEXT = Kind("a printable text", _is_text)
TEXTS = Kind("a list of different texts", _are_texts)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
COUNT = Kind(
    "a whole number from 0 on", lambda value: isinstance(value, int) and _is_number(value, 0, 2**63)
)
FRACTION = number(0, 1)
INTERVAL = Kind("a pair of numbers in 0..1", _is_interval)
COLORS = Kind("a list of [red, green, blue]", _are_colors)
