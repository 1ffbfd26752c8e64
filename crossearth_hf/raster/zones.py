"""Zones: polygons with attributes, such as districts, and what of a map lies in each of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine

from ..labels import IGNORE_INDEX
from .burning import burn
from .finished_map import FinishedMap
from .grid import Grid
from .placement import Placement
from .vector_layers import VectorLayer, read_rows

_CLASSES = 256


@dataclass(frozen=True)
class Zones:
    """The zones that touch a raster.

    Attributes:
        numbers: (N,) of the features in their file.
        polygons: (N,) shapely geometries in (column, row) of the raster.
        attributes: Columns of the file, with N values each.
    """

    numbers: np.ndarray
    polygons: np.ndarray
    attributes: dict[str, np.ndarray]


def read_zones(layer: VectorLayer, grid: Grid, name: str) -> Zones:
    """The polygons of a layer that touch a raster, in the order of the file.

    Args:
        layer: As `open_layer` returns it.
        grid: Of the raster.
        name: What messages call the raster.

    Raises:
        InputError: The layer cannot be placed or read, see `Placement` and `read_features`.
    """
    placement = Placement(grid, name, layer.crs, layer.bounds)
    numbers, polygons = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=object)]
    columns: dict[str, list[np.ndarray]] = {field: [] for field in layer.fields}
    for features, values in read_rows(layer, placement.box):
        placed = placement.pixels(features.polygons)
        found = ~shapely.is_empty(placed)
        numbers.append(features.numbers[found])
        polygons.append(placed[found])
        for field, column in values.items():
            columns[field].append(column[found])
    attributes = {field: np.concatenate(parts) for field, parts in columns.items() if parts}
    return Zones(np.concatenate(numbers), np.concatenate(polygons), attributes)


def zone_sums(finished: FinishedMap, zones: Zones) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels and ground area of each class in each zone; a pixel belongs to all zones that hold its center.

    Args:
        finished: The map.
        zones: The zones on its grid.

    Returns:
        (N, K) pixels, and (N, K) square meters; None if the map's CRS does not define areas.
    """
    count = len(finished.classes)
    pixels = np.zeros((len(zones.polygons), count), dtype=np.int64)
    areas: np.ndarray | None = np.zeros((len(zones.polygons), count))
    tree = shapely.STRtree(zones.polygons)
    for row, col, height, width in finished.windows():
        block = shapely.box(col, row, col + width, row + height)
        touched = tree.query(block, predicate="intersects")
        if not len(touched):
            continue
        labels = finished.read(row, col, height, width)
        measured = finished.grid.pixel_areas(row, col, labels != IGNORE_INDEX)  # (H, W)
        if measured is None:
            areas = None
        for index in touched:
            here, inside = _burned(zones.polygons[index], row, col, height, width)
            found = labels[here][inside]
            pixels[index] += np.bincount(found, minlength=_CLASSES)[:count]
            if areas is not None and measured is not None:
                areas[index] += np.bincount(found, measured[here][inside], minlength=_CLASSES)[
                    :count
                ]
    return pixels, areas


def _burned(
    polygon: Any, row: int, col: int, height: int, width: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The smallest part of a block around a polygon, and the pixels in it whose centers the polygon holds."""
    west, north, east, south = polygon.bounds
    top = max(0, int(np.floor(north)) - row)
    left = max(0, int(np.floor(west)) - col)
    bottom = min(height, int(np.ceil(south)) - row)
    right = min(width, int(np.ceil(east)) - col)
    size = (max(0, bottom - top), max(0, right - left))
    here = np.s_[top : top + size[0], left : left + size[1]]
    if 0 in size:
        return here, np.zeros(size, dtype=bool)
    canvas = burn(
        [(polygon, 1)], np.zeros(size, dtype=np.uint8), Affine.translation(col + left, row + top)
    )
    return here, canvas.astype(bool)
