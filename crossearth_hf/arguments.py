"""Checks of arguments that a person passes from Python: each mistake is one `TypeError` in one sentence."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from .errors import InputError, shown

_Options = ParamSpec("_Options")
_Result = TypeVar("_Result")

_FLAG = re.compile(r"--([a-z]+(?:[-_][a-z]+)*)")
_SWITCHES = {
    "overwrite",
    "palette_as_image",
    "fast",
    "tta",
    "in_domain",
    "remote",
    "stac",
    "resume_from_checkpoint",
}


def in_python(function: Callable[_Options, _Result]) -> Callable[_Options, _Result]:
    """`function`, whose sentences about mistakes name keyword arguments in place of the command line's flags."""

    @wraps(function)
    def called(*arguments: _Options.args, **options: _Options.kwargs) -> _Result:
        try:
            return function(*arguments, **options)
        except InputError as error:
            error.args = (as_keywords(str(error)),)
            raise

    return called


def as_keywords(sentence: str) -> str:
    """A sentence with `overwrite=True` in place of `--overwrite`, `nodata` in place of `--nodata`."""

    def keyword(flag: re.Match[str]) -> str:
        name = flag[1].replace("-", "_")
        if name in _SWITCHES:
            return f"{name}=True"
        return name

    return _FLAG.sub(keyword, sentence)


def check_paths(**paths: Any) -> None:
    """Raises `TypeError` for a value that is not a path."""
    _check(paths, lambda path: isinstance(path, str | os.PathLike), "a path")


def check_pair(**pairs: Any) -> None:
    """Raises `TypeError` for a value that is not a pair of paths."""
    _check(
        pairs,
        lambda pair: isinstance(pair, tuple | list) and len(pair) == 2,
        "two paths: polygons and a table",
    )


def check_flags(**flags: Any) -> None:
    """Raises `TypeError` for a value other than True and False."""
    _check(flags, lambda flag: isinstance(flag, bool), "True or False")


def check_texts(**texts: Any) -> None:
    """Raises `TypeError` for a value that is not text."""
    _check(texts, lambda text: isinstance(text, str), "text")


def check_whole_numbers(**numbers: Any) -> None:
    """Raises `TypeError` for a value that is neither a whole number nor None, which stands for the default."""
    _check(numbers, lambda number: number is None or _is_number(number, Integral), "a whole number")


def check_lists(**lists: Any) -> None:
    """Raises `TypeError` for a value that is neither a list, or another iterable, nor None."""
    _check(lists, lambda items: items is None or _items(items) is not None, "a list")


def check_class_maps(**maps: Any) -> None:
    """Raises `TypeError` for a value that is neither a mapping nor None."""
    _check(
        maps,
        lambda names: names is None or isinstance(names, Mapping),
        "a dict such as {'road': 'pavement'}",
    )


def check_numbers(**numbers: Any) -> None:
    """Raises `TypeError` for a value that is not a number."""
    _check(numbers, lambda number: _is_number(number, Real), "a number")


def check_model(model: Any) -> None:
    """Raises `TypeError` for a value that is neither a name nor a pair of model and processor."""
    is_name = model is None or isinstance(model, str | os.PathLike)
    is_pair = isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "config")
    if not is_name and not (is_pair and hasattr(model[1], "image_mean")):
        raise TypeError(
            "model is neither a name nor a pair; give a folder, a Hub id, or what load_model returns"
        )


def band_numbers(bands: Any) -> tuple[int, ...] | None:
    """Band numbers as a tuple; raises `TypeError`."""
    if bands is None:
        return None
    numbers = _items(bands)
    if numbers is None or not all(_is_number(number, Integral) for number in numbers):
        raise TypeError(f"bands is {shown(bands)}; give whole numbers such as [4, 3, 2]")
    return tuple(int(number) for number in numbers)


def coordinates(box: Any) -> tuple[float, ...]:
    """The numbers of a box as a tuple; raises `TypeError`."""
    numbers = _items(box)
    if numbers is None or not all(_is_number(number, Real) for number in numbers):
        raise TypeError(
            f"bbox is {shown(box)}; give four numbers: west, south, east and north in degrees"
        )
    return tuple(map(float, numbers))


def nodata_values(nodata: Any) -> tuple[float, ...] | None:
    """Values without data as a tuple, of one value or several, or of the word "none" for none; raises `TypeError`."""
    if nodata is None:
        return None
    if isinstance(nodata, str) and nodata.lower() == "none":
        return ()
    values = _items(nodata)
    if values is None:
        values = [nodata]
    if not all(_is_number(value, Real) for value in values):
        raise TypeError(f"nodata is {shown(nodata)}; give a number, several of them, or 'none'")
    return tuple(map(float, values))


def _check(values: Mapping[str, Any], is_right: Callable[[Any], bool], expected: str) -> None:
    for name, value in values.items():
        if not is_right(value):
            raise TypeError(f"{name} is {shown(value)}; give {expected}")


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _items(values: Any) -> list[Any] | None:
    """The items of a list or another iterable; None for a single value, text included."""
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        return list(values)
    return None
