"""Outline and time of rasters, for catalogs."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rasterio.crs import CRS
from rasterio.warp import transform_bounds, transform_geom

from .gdal import GDAL_ERRORS
from .grid import Grid

_STEPS = 8  # parts of an edge, which another CRS may bend
_DEGREES = 6  # decimals: a tenth of a meter
_WGS84 = CRS.from_epsg(4326)
_TIME_TAGS = ("ACQUISITIONDATETIME", "TIFFTAG_DATETIME")
_TIME_FORMS = ("%Y:%m:%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")


def footprint(grid: Grid) -> tuple[dict[str, Any] | None, list[float] | None]:
    """The outline of a raster as GeoJSON in degrees, and west, south, east and north of it; None without a place.

    Longitudes lie between -180 and 180; west exceeds east across the antimeridian, where the outline has two parts.
    """
    if grid.crs is None or grid.transform.is_identity:
        return None, None
    width, height = grid.width, grid.height
    shares = [step / _STEPS for step in range(_STEPS)]
    ring = [(width * share, 0) for share in shares] + [(width, height * share) for share in shares]
    ring += [(width * (1 - share), height) for share in shares] + [
        (0, height * (1 - share)) for share in shares
    ]
    points = [
        grid.transform @ point for point in reversed(ring)
    ]  # counterclockwise where north is up
    outline = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
    xs, ys = zip(*points, strict=True)
    try:
        geometry = transform_geom(
            grid.crs, _WGS84, outline, antimeridian_cutting=True, precision=_DEGREES
        )
        box = transform_bounds(grid.crs, _WGS84, min(xs), min(ys), max(xs), max(ys))
    except GDAL_ERRORS:  # another planet
        return None, None
    if box[0] < -180 or box[2] > 180:  # GDAL leaves degrees as they are
        geometry, box = _counted_to_180(geometry["coordinates"][0], box)
    return geometry, [round(degrees, _DEGREES) for degrees in box]


def _counted_to_180(
    ring: Sequence[tuple[float, float]], box: tuple[float, float, float, float]
) -> tuple[dict[str, Any], tuple[float, float, float, float]]:
    """A convex outline and its box with longitudes between -180 and 180."""
    west, south, east, north = box
    if east - west >= 360:
        globe = [(-180, south), (180, south), (180, north), (-180, north), (-180, south)]
        return _polygon(globe), (-180, south, 180, north)
    turn = 360 * math.floor((west + 180) / 360)
    ring = [(x - turn, y) for x, y in ring]
    west, east = west - turn, east - turn
    if east <= 180:
        return _polygon(ring), (west, south, east, north)
    beyond = [(x - 360, y) for x, y in _side_of_180(ring, -1)]
    parts = [_polygon(part)["coordinates"] for part in (_side_of_180(ring, 1), beyond)]
    return {"type": "MultiPolygon", "coordinates": parts}, (west, south, east - 360, north)


def _side_of_180(ring: Sequence[tuple[float, float]], side: int) -> list[tuple[float, float]]:
    """What of a convex ring lies west (1) or east (-1) of 180 degrees."""
    kept = []
    for (x, y), (next_x, next_y) in pairwise(ring):
        if side * (180 - x) >= 0:
            kept.append((x, y))
        if (180 - x) * (180 - next_x) < 0:
            kept.append((180, y + (next_y - y) * (180 - x) / (next_x - x)))
    return [*kept, kept[0]]


def _polygon(ring: Sequence[tuple[float, float]]) -> dict[str, Any]:
    points = [(round(x, _DEGREES), round(y, _DEGREES)) for x, y in ring]
    return {"type": "Polygon", "coordinates": [points]}


def recorded_at(tags: Mapping[str, str]) -> datetime | None:
    """The time that a raster's tags give for its recording; None if there is none."""
    for tag in _TIME_TAGS:
        for form in _TIME_FORMS:
            try:
                return datetime.strptime(tags.get(tag, ""), form)
            except ValueError:
                continue
    return None
