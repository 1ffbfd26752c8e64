"""Maps as vectors: simplified polygons with class names for a GIS, and where a scene lies in longitude and latitude."""

import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio.raw
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from rasterio import features
from rasterio.crs import CRS
from rasterio.transform import from_gcps
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from ..errors import InputError
from ..files.outputs import check_output, staged
from ..labels import IGNORE_INDEX, LabelSet
from .gdal import GDAL_ERRORS
from .grid import Grid, shifted
from .scene import read_band

_WGS84 = CRS.from_epsg(4326)
_FARTHEST_EAST = 360.0  # degrees of longitude, which some count from 0
_LARGEST_SIDE = 4096  # of the label map that is outlined, in pixels: bounds memory and the number of polygons
_SMALLEST_AREA = 16  # pixels of a polygon; smaller ones go to their largest neighbor
_TOLERANCE = 2.0  # pixels
_SMALL_MAP = 32 * 32  # pixels up to which outlines keep every corner: each is a share of the area; our choice
_SQUARE_METERS_PER_HECTARE = 10_000


@dataclass(frozen=True)
class Footprint:
    """Where a raster lies on Earth, in degrees on WGS84.

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
    """Center and bounding box of a raster; None where its CRS does not lead to longitude and latitude.

    Ground control points are taken as the affine transform that fits them best.
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
    """Outlines a label map as a GeoPackage of polygons that touch without gaps or overlaps.

    Specks below 16 pixels are left to their neighbors; outlines are simplified by 2 pixels (Visvalingam-Whyatt on the
    whole coverage, so that neighbors keep one common border), unless the map has no more than 1024 pixels. A map of
    more than 4096 pixels on a side is outlined at that size. Without a CRS the coordinates are (column, -row), the way
    QGIS shows such an image.

    Args:
        map_file: A label map, 255 without data, as `predict_map` writes it.
        target: Ends in .gpkg, not there yet. Fields: `class_id`, `class`, `color` (as #rrggbb) and `hectares` (null
            where unknown).
        grid: The map's grid.
        label_set: Names and colors of the classes.

    Returns:
        Number of polygons.

    Raises:
        InputError: for a file that may not or cannot be written.
    """
    path = check_output(target, (".gpkg",), overwrite=False)
    zoom = max(1.0, max(grid.height, grid.width) / _LARGEST_SIDE)
    shape = (max(1, round(grid.height / zoom)), max(1, round(grid.width / zoom)))
    labels = read_band(Path(map_file), (0, 0, grid.height, grid.width), shape)
    outlines, ids = outline(labels)
    scale_y, scale_x = grid.height / shape[0], grid.width / shape[1]
    crs, transform = _place(grid)
    zoomed = shifted(transform, 0, 0, scale_x, scale_y)
    if grid.gcps:
        hectares = np.full(len(ids), np.nan)
    else:
        hectares = _hectares(outlines, Grid(shape[1], shape[0], crs, zoomed))
    placed = shapely.transform(outlines, _to_map(zoomed))
    columns = {
        "class_id": ids,
        "class": np.array(label_set.classes, dtype=object)[ids],
        "color": np.array(["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in label_set.colors], dtype=object)[ids],
        "hectares": hectares,
    }
    with staged([path]) as (stage,):
        _write_geopackage(stage, placed, columns, crs)
    return len(ids)


def outline(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Simplified polygons of a label map, in pixels.

    Args:
        labels: (H, W) uint8 ids; 255 is left out.

    Returns:
        (N,) shapely polygons in (column, row) coordinates that neither overlap nor leave gaps, and (N,) their ids.
    """
    valid = labels != IGNORE_INDEX
    whole = labels.size <= _SMALLEST_AREA  # of which sieving would leave nothing
    if whole:
        calm = labels
    else:
        calm = features.sieve(labels, _SMALLEST_AREA, mask=valid)
    found = list(features.shapes(calm, mask=valid & (calm != IGNORE_INDEX)))
    ids = np.array([value for _, value in found], dtype=np.int64)
    polygons = np.array([shapely.geometry.shape(geometry) for geometry, _ in found], dtype=object)
    # A corner may lie on a neighbor's straight edge: only with a vertex there do both know it as common.
    noded = shapely.transform(shapely.segmentize(polygons, 1.0), np.rint)
    return shapely.coverage_simplify(noded, _TOLERANCE if labels.size > _SMALL_MAP else 0), ids


def _place(grid: Grid) -> tuple[CRS | None, Affine]:
    """CRS and transform of vectors on a grid."""
    if grid.gcps:
        return grid.gcps_crs, from_gcps(list(grid.gcps))
    if grid.transform.is_identity:
        return None, Affine(1, 0, 0, 0, -1, 0)
    return grid.crs, grid.transform


def _hectares(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    """(N,) ground area of polygons in pixels of a grid; NaN where the grid does not tell."""
    if not len(polygons):
        return np.zeros(0)
    shape = (grid.height, grid.width)
    owners = features.rasterize(zip(polygons, range(1, len(polygons) + 1), strict=True), shape, dtype="int32")
    areas = grid.pixel_areas(0, 0, owners > 0)  # (H, W) square meters
    if areas is None:
        return np.full(len(polygons), np.nan)
    sums, pixels = (np.bincount(owners.ravel(), weights, len(polygons) + 1) for weights in (areas.ravel(), None))
    average = sums[1:].sum() / pixels[1:].sum()  # for what is too narrow to hold the middle of a pixel
    each = np.divide(sums[1:], pixels[1:], out=np.full(len(polygons), average), where=pixels[1:] > 0)
    return shapely.area(polygons) * each / _SQUARE_METERS_PER_HECTARE


def _to_map(transform: Affine) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (N, 2) pixel coordinates to map coordinates."""
    a, b, c, d, e, f = transform[:6]
    return lambda points: points @ np.array([[a, d], [b, e]]) + (c, f)


def _write_geopackage(path: Path, polygons: np.ndarray, columns: dict[str, np.ndarray], crs: CRS | None) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # maps without a place are welcome
            pyogrio.raw.write(
                path,
                shapely.to_wkb(polygons),
                list(columns.values()),
                list(columns),
                layer="map",
                driver="GPKG",
                geometry_type="Polygon",
                crs=None if crs is None else crs.to_wkt(),
            )
    except (DataSourceError, DataLayerError, FeatureError) as error:
        raise InputError(f"{path.name} cannot be written ({error}); free space or choose another folder") from error
