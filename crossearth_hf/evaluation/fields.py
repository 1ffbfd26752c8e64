"""Values out of JSON that nobody vouches for: each is checked as it is taken."""

import math
from typing import Any

from ..errors import InputError

_LONGEST_TEXT = 300


class Fields:
    """A JSON object; every getter raises `InputError` naming place, key and what was expected.

    Attributes:
        values: The object.
        place: Where it stands, for messages.
    """

    def __init__(self, values: Any, place: str) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{place} is no JSON object; the report is damaged: evaluate again")
        self.values: dict[str, Any] = values
        self.place = place

    def text(self, key: str) -> str:
        """A printable text of 1 to 300 characters."""
        return self._check(key, self.values.get(key), _is_text, "a printable text")

    def optional_text(self, key: str) -> str | None:
        """Such a text, or None."""
        if self.values.get(key) is None:
            return None
        return self.text(key)

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._check(key, self.values.get(key), lambda value: isinstance(value, bool), "true or false")

    def count(self, key: str) -> int:
        """A whole number of 0 or more."""
        value = self._check(key, self.values.get(key), lambda value: _is_number(value, 0, 2**63), "a number from 0 on")
        return int(value)

    def number(self, key: str, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        return float(
            self._check(key, self.values.get(key), lambda v: _is_number(v, low, high), f"in {low:g}..{high:g}")
        )

    def fraction(self, key: str) -> float | None:
        """A number from 0 to 1, or None."""
        if self.values.get(key) is None:
            return None
        return self.number(key, 0, 1)

    def interval(self, key: str) -> tuple[float, float] | None:
        """Two fractions, the smaller one first, or None."""
        value = self.values.get(key)
        if value is None:
            return None
        low, high = self._check(key, value, _is_interval, "a pair of numbers in 0..1")
        return float(low), float(high)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of different printable texts."""
        value = self._check(key, self.values.get(key), _are_texts, "a list of different texts")
        return tuple(value)

    def numbers(self, key: str, high: float) -> tuple[float, ...]:
        """A list of numbers from 0 to `high`; NaN where the report has null."""
        value = self._check(
            key, self.values.get(key), lambda v: _are_numbers(v, high), f"a list of 0..{high:g} or null"
        )
        return tuple(math.nan if number is None else float(number) for number in value)

    def colors(self, key: str) -> tuple[tuple[int, int, int], ...]:
        """A list of (red, green, blue) in 0..255."""
        value = self._check(key, self.values.get(key), _are_colors, "a list of [red, green, blue]")
        return tuple((int(r), int(g), int(b)) for r, g, b in value)

    def fields(self, key: str) -> "Fields":
        """An object; an empty one where the report has none."""
        return Fields({} if self.values.get(key) is None else self.values[key], f"{self.place}, {key}")

    def _check(self, key: str, value: Any, is_right: Any, expected: str) -> Any:
        if not is_right(value):
            raise InputError(f"{self.place}: '{key}' is {str(value)[:60]!r}, not {expected}; evaluate again")
        return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_TEXT and value.isprintable()


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high  # NaN fails


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(v, 0, 1) for v in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(v) for v in value) and len(set(value)) == len(value)


def _are_numbers(value: Any, high: float) -> bool:
    return isinstance(value, list) and all(v is None or _is_number(v, 0, high) for v in value)


def _are_colors(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(color, list) and len(color) == 3 and all(_is_number(v, 0, 255) for v in color) for color in value
    )
