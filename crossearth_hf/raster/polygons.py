"""Maps as polygons with class names for a GIS, and a scene's location in longitude and latitude."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio import features
from rasterio.crs import CRS
from rasterio.transform import from_gcps
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from ..files.outputs import check_output, staged
from ..labels import IGNORE_INDEX, LabelSet
from .gdal import GDAL_ERRORS, ignore_missing_georeference
from .grid import Grid
from .outlines import SIDE, MeasurePixels, ReadLabels, outlines
from .vector_files import SUFFIXES, polygon_file
from .writing import write_errors

_WGS84 = CRS.from_epsg(4326)
_FARTHEST_EAST = 360.0  # degrees of longitude, which may be counted from 0
_SMALLEST_AREA = 16  # pixels of a polygon that a person looks at; our choice
_TOLERANCE = 2.0  # pixels; likewise
_SMALL_MAP = 32 * 32  # pixels of a map whose outlines keep every corner; our choice
_SQUARE_METERS_PER_HECTARE = 10_000


@dataclass(frozen=True)
class Footprint:
    """Location of a raster on Earth, in degrees on WGS84.

    Attributes:
        longitude, latitude: Its center.
        west, south, east, north: Its bounding box; west > east where it crosses the antimeridian.
    """

    longitude: float
    latitude: float
    west: float
    south: float
    east: float
    north: float


def footprint(grid: Grid) -> Footprint | None:
    """Center and bounding box of a raster; None if its CRS does not give longitude and latitude.

    Ground control points are used as the affine transform that fits them best.
    """
    crs, transform = _place(grid)
    if crs is None:
        return None
    corners = [(col, row) for col in (0, grid.width) for row in (0, grid.height)]
    places = [transform @ corner for corner in corners]
    xs, ys = zip(*places, strict=True)
    try:
        (longitude,), (latitude,) = transform_points(crs, _WGS84, [sum(xs) / 4], [sum(ys) / 4])
        bounds = transform_bounds(crs, _WGS84, min(xs), min(ys), max(xs), max(ys))
    except GDAL_ERRORS:
        return None
    on_earth = abs(longitude) <= _FARTHEST_EAST and abs(latitude) <= 90
    if not (on_earth and all(map(math.isfinite, bounds))):
        return None
    west, south, east, north = bounds
    return Footprint(longitude, latitude, west, max(south, -90.0), east, min(north, 90.0))


def write_polygons(
    map_file: str | os.PathLike[str],
    target: str | os.PathLike[str],
    grid: Grid,
    label_set: LabelSet,
) -> int:
    """Outlines a label map as polygons to look at, as `draw_polygons` does.

    Regions below 16 pixels join a neighbor, and outlines are simplified by 2 pixels; maps of at most 1024 pixels keep
    every corner.

    Args:
        map_file: A label map as `predict_map` writes it, with 255 for no data.
        target: Path of a new file that ends in one of `SUFFIXES`.
        grid: The map's grid.
        label_set: Names and colors of the classes.

    Returns:
        Number of polygons.

    Raises:
        InputError: The file must not or cannot be written.
    """
    path = check_output(target, SUFFIXES, overwrite=False)
    tolerance = 0.0
    if grid.height * grid.width > _SMALL_MAP:
        tolerance = _TOLERANCE
    with staged([path]) as (stage,):
        return draw_polygons(
            Path(map_file), stage, grid, label_set, min_pixels=_SMALLEST_AREA, tolerance=tolerance
        )


def draw_polygons(
    map_file: Path,
    stage: Path,
    grid: Grid,
    label_set: LabelSet,
    *,
    min_pixels: int = 0,
    tolerance: float = 0.0,
    side: int = SIDE,
) -> int:
    """Outlines a label map of any size as polygons that touch without gaps or overlaps.

    Fields: `class_id`, `class`, `color` (as #rrggbb) and `hectares` (null where unknown). Without a CRS the coordinates
    are (column, -row), as QGIS shows such an image. GeoPackages carry a style for QGIS. Only a part of the map, and the
    polygons that reach into the next parts, are in memory at a time.

    Args:
        map_file: A label map as `predict_map` writes it, with 255 for no data.
        stage: The file to write, in a working folder.
        grid: The map's grid.
        label_set: Names and colors of the classes.
        min_pixels: Regions of fewer pixels join their largest neighbor; those with no large neighbor stay.
        tolerance: As in `outlines`.
        side: As in `outlines`.

    Returns:
        Number of polygons.

    Raises:
        InputError: The file cannot be written.
    """
    crs, transform = _place(grid)
    measure: MeasurePixels
    if grid.gcps:
        measure = _unknown
    else:
        measure = grid.pixel_areas
    with (
        _calm_labels(map_file, stage.parent, min_pixels) as read,
        polygon_file(stage, crs, label_set) as file,
    ):
        for found in outlines(
            read, grid.height, grid.width, measure, tolerance=tolerance, side=side
        ):
            placed = shapely.transform(found.polygons, _to_map(transform))
            file.write(placed, found.ids, found.areas / _SQUARE_METERS_PER_HECTARE)
    return file.count


@contextmanager
def _calm_labels(map_file: Path, folder: Path, min_pixels: int) -> Iterator[ReadLabels]:
    """Yields a reader of a label map without its small regions, which are sieved into a working file in `folder`."""
    ignore_missing_georeference()
    with rasterio.open(map_file) as source, TemporaryDirectory(dir=folder) as working:
        # sieving would leave nothing
        if min_pixels <= 1 or source.width * source.height <= min_pixels:
            yield lambda row, col, height, width: source.read(
                1, window=Window(col, row, width, height)
            )
        else:
            with write_errors(Path(map_file.name), Path(working) / "sieved"):
                calm = _sieved(source, min_pixels, Path(working))
            yield lambda row, col, height, width: calm[row : row + height, col : col + width]


def _sieved(source: Any, min_pixels: int, working: Path) -> np.ndarray:
    """(H, W) labels of an open map without small regions: pages of a file, which memory need not hold."""
    with open(working / "sieved", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, source.width * source.height)  # a full disk shows here
    calm = np.memmap(working / "sieved", np.uint8, "r+", shape=source.shape)
    _write_validity(source, working / "valid.tif")
    with rasterio.open(working / "valid.tif") as mask:
        features.sieve(rasterio.band(source, 1), min_pixels, out=calm, mask=rasterio.band(mask, 1))
    return calm


def _write_validity(source: Any, path: Path) -> None:
    """Writes where a label map has data, because GDAL's sieve takes only a band for that."""
    profile = {"width": source.width, "height": source.height, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", zlevel=1, **profile) as mask:
        for row in range(0, source.height, SIDE):
            window = Window(0, row, source.width, min(SIDE, source.height - row))
            mask.write(
                (source.read(1, window=window) != IGNORE_INDEX).astype(np.uint8), 1, window=window
            )


def _unknown(row: int, col: int, counted: np.ndarray) -> None:
    """The areas of pixels between ground control points."""
    return None


def _place(grid: Grid) -> tuple[CRS | None, Affine]:
    """CRS and transform of vectors on a grid."""
    if grid.gcps:
        return grid.gcps_crs, from_gcps(list(grid.gcps))
    if grid.transform.is_identity:
        return None, Affine(1, 0, 0, 0, -1, 0)
    return grid.crs, grid.transform


def _to_map(transform: Affine) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (N, 2) pixel coordinates to map coordinates."""
    a, b, c, d, e, f = transform[:6]
    return lambda points: points @ np.array([[a, d], [b, e]]) + (c, f)
