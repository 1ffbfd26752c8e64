"""What a person passes to `predict` from Python, checked: each mistake is one `TypeError` in one sentence."""

import os
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from ..errors import shown


def check_paths(**paths: Any) -> None:
    """Raises `TypeError` for what is not a path."""
    for name, path in paths.items():
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"{name} is {shown(path)}; give the path of a file")


def check_flags(**flags: Any) -> None:
    """Raises `TypeError` for anything but True and False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} is {shown(flag)}; give True or False")


def check_whole_numbers(**numbers: Any) -> None:
    """Raises `TypeError` for what is not a whole number; None stands for the default."""
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise TypeError(f"{name} is {shown(number)}; give a whole number")


def check_model(model: Any) -> None:
    """Raises `TypeError` for what is neither a name nor a pair of model and processor."""
    is_name = model is None or isinstance(model, str | os.PathLike)
    is_pair = isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "config")
    if not is_name and not (is_pair and hasattr(model[1], "image_mean")):
        raise TypeError("model is neither a name nor a pair; give a folder, a Hub id, or what load_model returns")


def band_numbers(bands: Any) -> tuple[int, ...] | None:
    """Band numbers as a tuple; raises `TypeError`."""
    if bands is None:
        return None
    numbers: list[Any] = [None]
    if isinstance(bands, Iterable) and not isinstance(bands, str | bytes):
        numbers = list(bands)
    if not all(isinstance(number, Integral) and not isinstance(number, bool) for number in numbers):
        raise TypeError(f"bands is {shown(bands)}; give whole numbers such as [4, 3, 2]")
    return tuple(int(number) for number in numbers)


def nodata_values(nodata: Any) -> tuple[float, ...] | None:
    """Values without data as a tuple, of one value or several, or of the word "none" for none; raises `TypeError`."""
    if nodata is None:
        return None
    if isinstance(nodata, str) and nodata.lower() == "none":
        return ()
    values = [nodata]
    if isinstance(nodata, Iterable) and not isinstance(nodata, str | bytes):
        values = list(nodata)
    if not all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        raise TypeError(f"nodata is {shown(nodata)}; give a number, several of them, or 'none'")
    return tuple(map(float, values))
