"""From the values of published label files to class ids: colors by a palette, numbers by a table, nothing guessed."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError
from .archives import RawFile
from .rasters import open_raster

Color = tuple[int, int, int]
_UNKNOWN = 254
_STRIP = 512


def palette_ids(
    file: RawFile,
    palette: Mapping[Color, int],
    repair: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """(H, W) uint8 ids of a label file in color.

    Args:
        file: An image with three 8-bit bands.
        palette: Id of every color that may occur, 255 for ignored ones.
        repair: From (h, W, 3) uint8 to the same with a known defect put right.

    Raises:
        InputError: The file is of another kind, or it has colors outside of the palette; the message gives their number
            and the first of them.
    """
    table = _color_table(tuple(sorted(palette.items())))

    def look_up(values: np.ndarray) -> np.ndarray:
        codes = values[..., 0].astype(np.uint32)  # (h, W)
        for band in (1, 2):
            codes <<= 8
            codes |= values[..., band]
        return table[codes]

    strips = label_strips(file, 3)
    if repair is not None:
        strips = ((row, repair(values)) for row, values in strips)
    return _converted(file, strips, look_up, "colors", _listed(palette))


def mapped_ids(file: RawFile, table: Mapping[int, int]) -> np.ndarray:
    """(H, W) uint8 ids of a label file of numbers.

    Args:
        file: An image with one band of whole numbers.
        table: Id of every number that may occur, 255 for ignored ones.

    Raises:
        InputError: The file is of another kind, or it has numbers that are not in the table; the message gives their
            count and the first of them.
    """
    lookup = np.full(256, _UNKNOWN, np.uint8)
    lookup[list(table)] = list(table.values())
    strips = label_strips(file, 1)
    return _converted(file, strips, lambda values: lookup[values[..., 0]], "ids", _listed(table))


def _converted(
    file: RawFile,
    strips: Iterator[tuple[int, np.ndarray]],
    look_up: Callable[[np.ndarray], np.ndarray],
    what: str,
    known: str,
) -> np.ndarray:
    """(H, W) ids of all strips; raises `InputError` if some are `_UNKNOWN`."""
    parts, unknown, first = [], 0, ""
    for row, values in strips:
        parts.append(look_up(values))
        if (wrong := parts[-1] == _UNKNOWN).any():
            y, x = np.argwhere(wrong)[0]
            first = first or f"{', '.join(map(str, values[y, x]))} at row {row + y}, column {x}"
            unknown += int(wrong.sum())
    if unknown:
        raise InputError(
            f"{file} has {unknown} pixels of {what} that are not a class, the first {first}; known are {known}: "
            "download the file again, or name the right label files"
        )
    return np.concatenate(parts)


def _listed(values: Mapping[Any, int]) -> str:
    return ", ".join(map(str, values))


def label_strips(file: RawFile, bands: int) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, (h, W, bands) uint8) from top to bottom; raises `InputError` for another number of bands or type."""
    with open_raster(file) as raster:
        if raster.bands != bands or raster.dtype != np.uint8:
            raise InputError(
                f"{file} has {raster.bands} bands of {raster.dtype} where {bands} of uint8 are published as labels; "
                "name the right label files"
            )
        height, width = raster.size
        for row in range(0, height, _STRIP):
            yield row, raster.read(row, 0, min(_STRIP, height - row), width)


@lru_cache(maxsize=4)
def _color_table(palette: tuple[tuple[Color, int], ...]) -> np.ndarray:
    """(2^24,) uint8: the id of every color."""
    table = np.full(2**24, _UNKNOWN, np.uint8)
    for (red, green, blue), index in palette:
        table[65536 * red + 256 * green + blue] = index
    return table
