"""Outline and time of rasters, for catalogs."""

from collections.abc import Mapping
from datetime import datetime
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
    """The outline of a raster as GeoJSON in degrees, and west, south, east and north of it; None without a place."""
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
    return geometry, [round(degrees, _DEGREES) for degrees in box]


def recorded_at(tags: Mapping[str, str]) -> datetime | None:
    """The time that a raster's tags give for its recording; None if there is none."""
    for tag in _TIME_TAGS:
        for form in _TIME_FORMS:
            try:
                return datetime.strptime(tags.get(tag, ""), form)
            except ValueError:
                continue
    return None
