"""Values of the fields of `TrainConfig`, converted to what a recipe can hold."""

import os
import types
import typing
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from ..errors import shown

NO_OTHER = "none"
"""Word for: only the no-data values that files declare."""

_EXPECTED = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
_ITEMS = {str: "texts", int: "whole numbers", float: "numbers"}


def plain(name: str, value: Any, kind: Any) -> Any:
    """The value of a field as text, plain numbers or a list of them: paths become text, NumPy's numbers Python's.

    Args:
        name: Name of the field in messages.
        value: What a person gave.
        kind: The annotated type of the field: `str`, `int`, `float`, `bool`, a list of one of them, or a union.

    Raises:
        TypeError: The value has another type.
    """
    choices = choices_of(kind)
    if value is None and type(None) in choices:
        return None
    for choice in choices:
        try:
            return _converted(value, choice)
        except TypeError:
            continue
    raise TypeError(f"{name} is {shown(value)}; give {' or '.join(_expected(choices))}")


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    if isinstance(kind, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def _converted(value: Any, kind: Any) -> Any:
    """The value as exactly this type; raises `TypeError`."""
    if typing.get_origin(kind) is list:
        return [_converted(item, typing.get_args(kind)[0]) for item in _items(value)]
    if kind is str and isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if kind in (int, float) and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    raise TypeError


def _items(value: Any) -> Sequence[Any]:
    """The items of a list, a tuple or an array; raises `TypeError` for anything else, such as text."""
    if isinstance(value, np.ndarray) and value.ndim:
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    raise TypeError


def _expected(choices: Sequence[Any]) -> list[str]:
    """A phrase for each type other than None; text in place of a list is the word `NO_OTHER`."""
    phrases: list[str] = []
    for choice in choices:
        if typing.get_origin(choice) is list:
            phrases.append(f"a list of {_ITEMS[typing.get_args(choice)[0]]}")
        elif choice is str and phrases:
            phrases.append(f"'{NO_OTHER}'")
        elif choice is not type(None):
            phrases.append(_EXPECTED[choice])
    return phrases
