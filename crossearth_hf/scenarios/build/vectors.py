"""Vector labels drawn on the grid of their image: a pixel belongs to a shape that holds its center."""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from ...errors import InputError
from ...raster.gdal import GDAL_ERRORS
from ...raster.grid import Grid
from .archives import JSON_ERRORS, RawFile

_LONGITUDE_LATITUDE = "OGC:CRS84"  # GeoJSON without a "crs" member (RFC 7946)
_WHOLE = {
    "LineString": "MultiLineString",
    "Polygon": "MultiPolygon",
}  # part -> collection of such parts

Geometry = dict[str, Any]


def read_geometries(file: RawFile, kind: str, grid: Grid) -> list[Geometry]:
    """The shapes of a GeoJSON file in the coordinates of an image; a file without content holds none.

    Args:
        file: GeoJSON, in the CRS that it names, by default longitude and latitude.
        kind: "LineString" or "Polygon": single ones and collections of them are taken, points and empty shapes are
            left out.
        grid: Of the image that the labels belong to.

    Raises:
        InputError: The file is not GeoJSON, its shapes are of another kind or all outside of the image, or the image
            has no georeference.
    """
    content = file.read_bytes().strip()
    if not content:
        return []
    if grid.crs is None or grid.transform.is_identity:
        raise InputError(
            f"the image of {file} has no georeference, which its labels need; download the image again"
        )
    try:
        data = json.loads(content)
        crs = _crs(data)
        shapes = [
            part for feature in data["features"] for part in _parts(feature.get("geometry"), kind)
        ]
        if shapes:
            moved = transform_geom(crs, grid.crs, shapes)
        else:
            moved = []
        inside = [_touches(shape, grid) for shape in moved]
    except (
        *JSON_ERRORS,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        CRSError,
        *GDAL_ERRORS,
    ) as error:
        raise InputError(f"{file} is no GeoJSON of {kind}s ({error}); download it again") from error
    if moved and not any(inside):
        raise InputError(
            f"the shapes of {file} all lie outside its image; the two do not belong together"
        )
    return moved


def burn_polygons(shapes: list[Geometry], grid: Grid) -> np.ndarray:
    """(H, W) bool, True where the center of a pixel lies in a polygon and in none of its holes."""
    size = (grid.height, grid.width)
    if not shapes:
        return np.zeros(size, bool)
    return rasterize(shapes, out_shape=size, transform=grid.transform, dtype=np.uint8).astype(bool)


def burn_lines(shapes: list[Geometry], grid: Grid, distance: float) -> np.ndarray:
    """(H, W) bool, True where the center of a pixel lies within `distance` meters on the ground of a line.

    The size of a pixel is taken at the middle of the image: for images of some hundred meters.
    """
    drawn = np.zeros((grid.height, grid.width), bool)
    sides = grid.pixel_size()
    if shapes and sides is None:
        raise InputError(f"the CRS {grid.crs} does not tell meters, which the width of lines needs")
    for shape in shapes:
        if shape["type"] == "LineString":
            lines = [shape["coordinates"]]
        else:
            lines = shape["coordinates"]
        for line in lines:
            # (N, 2) column, row
            points = np.array([~grid.transform @ tuple(point[:2]) for point in line])
            for start, end in pairwise(points):
                _burn_segment(drawn, start, end, np.array(sides), distance)
    return drawn


def _burn_segment(
    drawn: np.ndarray, start: np.ndarray, end: np.ndarray, sides: np.ndarray, distance: float
) -> None:
    """Marks the pixels near one segment, given in (column, row); `sides` are a pixel's meters across and down."""
    reach = distance / sides
    first = np.floor(np.minimum(start, end) - reach).astype(int).clip(0)
    last = (
        np.ceil(np.maximum(start, end) + reach)
        .astype(int)
        .clip(max=(drawn.shape[1], drawn.shape[0]))
    )
    if (last <= first).any():
        return
    cols, rows = np.arange(first[0], last[0]) + 0.5, np.arange(first[1], last[1]) + 0.5
    # meters from the start
    x, y = np.meshgrid((cols - start[0]) * sides[0], (rows - start[1]) * sides[1])
    along = (end - start) * sides
    length = float(along @ along)
    if length == 0:
        share = np.zeros_like(x)
    else:
        share = ((x * along[0] + y * along[1]) / length).clip(0, 1)
    near = np.hypot(x - share * along[0], y - share * along[1]) <= distance
    drawn[first[1] : last[1], first[0] : last[0]] |= near


def _crs(data: dict[str, Any]) -> CRS:
    name, named = _LONGITUDE_LATITUDE, data.get("crs")
    if named:
        name = named["properties"]["name"]
    return CRS.from_user_input(name)


def _parts(geometry: Geometry | None, kind: str) -> Iterator[Geometry]:
    """The lines or polygons of a geometry, collections opened."""
    if geometry is None or geometry["type"] in ("Point", "MultiPoint"):
        return
    if geometry["type"] == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _parts(part, kind)
    elif geometry["type"] not in (kind, _WHOLE[kind]):
        raise ValueError(f"a {geometry['type']} among them")
    elif geometry["coordinates"]:
        yield geometry


def _touches(shape: Geometry, grid: Grid) -> bool:
    """Whether the box around a shape overlaps the image."""
    points = np.array([~grid.transform @ point for point in _points(shape["coordinates"])])
    if not np.isfinite(points).all():
        raise ValueError("coordinates that the image's CRS does not know")
    low, high = points.min(axis=0), points.max(axis=0)
    return bool((high >= 0).all() and low[0] <= grid.width and low[1] <= grid.height)


def _points(coordinates: Any) -> Iterator[tuple[float, float]]:
    if isinstance(coordinates[0], int | float):
        yield coordinates[0], coordinates[1]
        return
    for part in coordinates:
        yield from _points(part)
