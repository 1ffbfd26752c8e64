"""Layers of polygons in: read in batches, checked and repaired, and brought to the pixels of rasters."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from pyproj.exceptions import CRSError, ProjError

from ..errors import InputError, reason_of, shown
from .grid import Grid
from .source_files import check_regular

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp")
"""Endings of files with vectors."""
BATCH = 20_000
"""Features in memory at a time, besides those that lie on a raster; our choice."""
CURVE_TOLERANCE = 0.05
"""Pixels by which a straight edge of one CRS may leave its place in another one; our choice."""
LARGEST_DEGREES = 720.0
"""Of a longitude, however it is counted; our choice."""

_DRIVERS = ("GPKG", "GeoJSON", "ESRI Shapefile")
_INDIRECT_DRIVERS = (
    "OGR_VRT",
    "VRT",
    "WFS",
    "OAPIF",
    "CSW",
    "PLSCENES",
    "Carto",
    "Elasticsearch",
    "AmigoCloud",
)
"""Of files that refer to other files or addresses."""
_ERRORS = (DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError)
_MARGIN = 0.05  # of a raster's box in another CRS, beyond which polygons are cut off
_MOST_HALVINGS = 12  # of edges
_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7  # shapely's type numbers

Box = tuple[float, float, float, float]
"""West, south, east and north."""


@dataclass(frozen=True)
class VectorLayer:
    """A layer of a vector file, not read yet.

    Attributes:
        path: The file.
        name: Of the layer.
        crs: Of its coordinates.
        fields: Its columns.
        features: How many there are.
        bounds: Of all of them; None where the file does not tell.
    """

    path: Path
    name: str
    crs: pyproj.CRS
    fields: tuple[str, ...]
    features: int
    bounds: Box | None

    @property
    def has_meters_for_degrees(self) -> bool:
        """Whether the CRS has degrees and the coordinates are none."""
        farthest = max(map(abs, self.bounds or (0.0,)))
        return self.crs.is_geographic and farthest > LARGEST_DEGREES

    def __str__(self) -> str:
        if self.path.stem == self.name:
            return str(self.path)
        return f"layer '{self.name}' of {self.path}"


@dataclass(frozen=True)
class Features:
    """Some features of a layer.

    Attributes:
        numbers: (N,) the features' numbers in the file.
        polygons: (N,) valid shapely polygons and multi-polygons in the layer's CRS.
        values: (N,) of the column that was asked for; None without one.
        repaired: Numbers of the features whose polygons were invalid.
    """

    numbers: np.ndarray
    polygons: np.ndarray
    values: np.ndarray | None
    repaired: tuple[int, ...]

    def only(self, chosen: np.ndarray) -> "Features":
        """Those of a (N,) bool choice."""
        values = None if self.values is None else self.values[chosen]
        return Features(self.numbers[chosen], self.polygons[chosen], values, self.repaired)


def open_layer(
    path: str | os.PathLike[str], layer: str | None = None, *, any_format: bool = False
) -> VectorLayer:
    """A layer of a GeoPackage, GeoJSON or Shapefile; the only one unless it is named.

    Args:
        path: The file.
        layer: Name of the layer.
        any_format: Whether to take all files with vectors that GDAL reads.

    Raises:
        InputError: The file or layer does not exist, the file is of another kind, it has several layers and none is
            named, or it has no CRS.
    """
    file = Path(path)
    if not any_format and file.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"{file} does not end in {', '.join(SUFFIXES)}; export the polygons to a GeoPackage"
        )
    check_regular(file)
    if not file.is_file():
        raise InputError(f"{file} does not exist; check the path of the polygons")
    with _read_errors(str(file)):
        name = _layer_name(file, layer)
        info = pyogrio.read_info(
            file, layer=name, force_feature_count=True, force_total_bounds=True
        )
    is_allowed = (
        info["driver"] not in _INDIRECT_DRIVERS if any_format else info["driver"] in _DRIVERS
    )
    if not is_allowed:
        raise InputError(
            f"{file} is of the kind {info['driver']}; export the polygons to a GeoPackage"
        )
    if info["crs"] is None:
        raise InputError(
            f"{file} does not state the CRS of its coordinates; assign it in QGIS (Assign projection) and save again"
        )
    return VectorLayer(
        file,
        name,
        _crs(info["crs"], str(file)),
        tuple(info["fields"]),
        info["features"],
        info["total_bounds"],
    )


def read_features(layer: VectorLayer, column: str | None, box: Box | None) -> Iterator[Features]:
    """The polygons of a layer that may touch a box, in batches and in the order of the file.

    Invalid polygons are repaired (shapely's `make_valid`, by structure).

    Args:
        layer: What to read.
        column: Whose values are read too; None for none.
        box: In the layer's CRS; None for all.

    Raises:
        InputError: The column does not exist, or a feature is not a polygon or cannot be read or repaired.
    """
    if column is not None and column not in layer.fields:
        raise InputError(
            f"{layer} has no column '{column}'; its columns are {', '.join(layer.fields) or 'none'}: name the one that "
            "holds the classes"
        )
    columns = [] if column is None else [column]
    start, found = 0, BATCH
    while found == BATCH:
        with _read_errors(str(layer)):
            _, numbers, geometry, values = pyogrio.raw.read(
                layer.path, layer=layer.name, columns=columns, bbox=box, force_2d=True,
                skip_features=start, max_features=BATCH, return_fids=True,
            )  # fmt: skip
        found, start = len(numbers), start + BATCH
        yield _checked(layer, numbers, geometry, values[0] if values else None)


def read_rows(
    layer: VectorLayer, box: Box | None
) -> Iterator[tuple[Features, dict[str, np.ndarray]]]:
    """The polygons of a layer that may touch a box with all their attributes, in batches as in `read_features`."""
    start, found = 0, BATCH
    while found == BATCH:
        with _read_errors(str(layer)):
            info, numbers, geometry, columns = pyogrio.raw.read(
                layer.path, layer=layer.name, bbox=box, force_2d=True,
                skip_features=start, max_features=BATCH, return_fids=True,
            )  # fmt: skip
        found, start = len(numbers), start + BATCH
        features = _checked(layer, numbers, geometry, np.arange(found))
        places = np.asarray(features.values)
        yield (
            features,
            {
                str(name): column[places]
                for name, column in zip(info["fields"], columns, strict=True)
            },
        )


class Placement:
    """The way from the coordinates of a layer to the pixels of a raster.

    Args:
        grid: Of the raster.
        name: What messages call it.
        crs: Of the layer.
        bounds: Of the layer; None if its features are not read by their place.

    Attributes:
        box: That of the raster in the layer's CRS, a margin included. Longitudes are counted as in the layer.

    Raises:
        InputError: The raster has no CRS or no transform but control points, or PROJ knows no way between both CRSs.
    """

    def __init__(self, grid: Grid, name: str, crs: pyproj.CRS, bounds: Box | None = None) -> None:
        self.grid, self.name = grid, name
        own = _crs(self._wkt(), name)
        if own.equals(crs, ignore_axis_order=True):
            self._transformer = None
        else:
            self._transformer = _transformer(crs, own, name)
        self._is_geographic = own.is_geographic
        self._layer_is_geographic = crs.is_geographic
        self._frame = self._box(own, crs)
        west, south, east, north = self._frame
        self.box = union_box(
            [(west - turn, south, east - turn, north) for turn in self._turns(bounds)]
        )

    def pixels(self, polygons: np.ndarray) -> np.ndarray:
        """Polygons in (column, row) coordinates of the raster, cut off outside of it.

        Edges of another CRS are divided until they stay within `CURVE_TOLERANCE` of their place.

        Args:
            polygons: (N,) valid shapely polygons in the layer's CRS.

        Returns:
            (N,) shapely geometries, empty where a polygon does not touch the raster.
        """
        cut = self._cut(polygons)
        placed = shapely.transform(self._divided(_polygon_parts(cut)), self._to_pixels)
        if not np.isfinite(shapely.get_coordinates(placed)).all():
            raise InputError(
                f"polygons on {self.name} have no place in its CRS; give both the same CRS"
            )
        broken = ~shapely.is_valid(placed)  # rounding can make needles cross themselves
        placed[broken] = _polygon_parts(
            shapely.make_valid(placed[broken], method="structure", keep_collapsed=False)
        )
        raster = shapely.box(0, 0, self.grid.width, self.grid.height)
        placed[~shapely.intersects(raster, placed)] = shapely.Polygon()
        return placed

    def _cut(self, polygons: np.ndarray) -> np.ndarray:
        """What of polygons lies in the frame, with longitudes counted as there."""
        if not len(polygons):
            return polygons
        west, south, east, north = shapely.total_bounds(polygons)
        pieces = [
            self._framed(_turned(polygons, turn))
            for turn in self._turns((west, south, east, north))
        ]
        if len(pieces) == 1:
            return pieces[0]
        return shapely.union_all(np.stack(pieces), axis=0)

    def _framed(self, polygons: np.ndarray) -> np.ndarray:
        """What of polygons lies in the frame."""
        frame = shapely.box(*self._frame)
        shapely.prepare(frame)
        inside = shapely.contains_properly(frame, polygons)
        cut = polygons.copy()
        cut[~inside] = shapely.intersection(polygons[~inside], frame)
        return cut

    def _turns(self, bounds: Box | None) -> list[float]:
        """Degrees by which longitudes of a layer are moved to touch the frame, whole turns; 0 if nothing touches it."""
        if bounds is None or not self._layer_is_geographic:
            return [0.0]
        west, _, east, _ = bounds
        if not max(abs(west), abs(east)) <= LARGEST_DEGREES:  # no degrees
            return [0.0]
        first = math.ceil((self._frame[0] - east) / 360)
        last = math.floor((self._frame[2] - west) / 360)
        return [360.0 * turn for turn in range(first, last + 1)] or [0.0]

    def _divided(self, polygons: np.ndarray) -> np.ndarray:
        """The same polygons with edges that are short enough to stay straight."""
        if self._transformer is None or not len(polygons):
            return polygons
        west, south, east, north = shapely.total_bounds(polygons)
        longest = max(east - west, north - south)
        for _ in range(_MOST_HALVINGS):
            if not longest > 0 or self._bend(polygons) <= CURVE_TOLERANCE:
                break
            longest /= 2
            polygons = shapely.segmentize(polygons, longest)
        return polygons

    def _bend(self, polygons: np.ndarray) -> float:
        """Pixels by which the middle of an edge leaves the straight line between its ends, at most."""
        points, owners = shapely.get_coordinates(
            shapely.get_rings(shapely.get_parts(polygons)), return_index=True
        )
        same = owners[1:] == owners[:-1]
        start, end = points[:-1][same], points[1:][same]
        straight = (self._to_pixels(start) + self._to_pixels(end)) / 2
        return float(
            np.linalg.norm(self._to_pixels((start + end) / 2) - straight, axis=1).max(initial=0)
        )

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) columns and rows of (N, 2) points of the layer."""
        x, y = points[:, 0], points[:, 1]
        if self._transformer is not None:
            x, y = self._transformer.transform(x, y)
            if self._is_geographic:  # the side of the antimeridian on which the raster lies
                middle = (self.grid.transform @ (self.grid.width / 2, self.grid.height / 2))[0]
                x = middle + (x - middle + 180) % 360 - 180
        a, b, c, d, e, f = (~self.grid.transform)[:6]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def _box(self, own: pyproj.CRS, crs: pyproj.CRS) -> Box:
        """Of the raster in the layer's CRS, with a margin."""
        size = [
            (0, 0),
            (self.grid.width, 0),
            (0, self.grid.height),
            (self.grid.width, self.grid.height),
        ]
        xs, ys = zip(*(self.grid.transform @ corner for corner in size), strict=True)
        box: Box = (min(xs), min(ys), max(xs), max(ys))
        if self._transformer is not None:
            try:
                box = self._transformer.transform_bounds(*box, direction="INVERSE")
            except ProjError as error:
                raise InputError(
                    f"{self.name} has no place in the polygons' CRS, {crs.name}; give both the same CRS"
                ) from error
        west, south, east, north = box
        if west > east:  # over the antimeridian
            west, east = -180.0, 180.0
        if not np.isfinite(box).all():
            raise InputError(
                f"{self.name} has no place in the polygons' CRS, {crs.name}; give both the same CRS"
            )
        x, y = _MARGIN * (east - west), _MARGIN * (north - south)
        return west - x, south - y, east + x, north + y

    def _wkt(self) -> str:
        """The raster's CRS as text; `InputError` without one, or without a transform."""
        grid, name = self.grid, self.name
        if grid.gcps or grid.rpcs:
            raise InputError(
                f"{name} is placed by control points or RPCs, and polygons need every pixel's place; warp it first "
                "(gdalwarp)"
            )
        if grid.crs is None or grid.transform.is_identity:
            raise InputError(
                f"{name} has no CRS or no place in it, which polygons need; give it both (gdal_edit.py)"
            )
        return grid.crs.to_wkt()


def _turned(polygons: np.ndarray, degrees: float) -> np.ndarray:
    """Polygons moved to the east."""
    if not degrees:
        return polygons
    return shapely.transform(polygons, lambda points: points + np.array((degrees, 0)))


def union_box(boxes: Sequence[Box]) -> Box:
    """The box around boxes."""
    west, south, east, north = zip(*boxes, strict=True)
    return min(west), min(south), max(east), max(north)


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    """Turns errors of reading vectors into `InputError`; what GDAL warns of is checked here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
    except _ERRORS as error:
        raise InputError(
            f"{name} cannot be read ({reason_of(error)}); repair it in QGIS (Fix geometries), or export it again"
        ) from error


def _layer_name(file: Path, layer: str | None) -> str:
    """The layer that is meant."""
    listed = pyogrio.list_layers(file)
    names = [str(name) for name, kind in listed if kind is not None]
    if layer is not None:
        if layer not in names:
            raise InputError(
                f"{file} has no layer '{layer}' with geometries; it has {', '.join(names) or 'none'}"
            )
        return layer
    if len(names) != 1:
        raise InputError(
            f"{file} has {len(names)} layers with geometries ({', '.join(names) or 'none'}); name the one that holds "
            "the polygons"
        )
    return names[0]


def _checked(
    layer: VectorLayer, numbers: np.ndarray, wkb: np.ndarray, values: np.ndarray | None
) -> Features:
    """The features of a batch, valid; those without a geometry are left out."""
    shapes = shapely.from_wkb(wkb, on_invalid="ignore")
    missing = np.array([each is None for each in wkb], dtype=bool) | shapely.is_empty(shapes)
    _refuse(layer, numbers[shapely.is_missing(shapes) & ~missing], "cannot be read; draw it again")
    shapes, numbers = shapes[~missing], numbers[~missing]
    wrong = np.flatnonzero(
        ~np.isin(shapely.get_type_id(shapes), (_POLYGON, _MULTIPOLYGON, _COLLECTION))
    )
    if len(wrong):
        raise InputError(
            f"feature {numbers[wrong[0]]} of {layer} is a {shapes[wrong[0]].geom_type}, and polygons are needed; "
            "buffer lines and points to their width on the ground (QGIS: Vector > Geoprocessing Tools > Buffer)"
        )
    _check_coordinates(layer, shapes, numbers)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    polygons = _polygon_parts(shapes)
    _refuse(layer, numbers[shapely.is_empty(polygons)], "holds no area; delete it or draw it again")
    return Features(
        numbers,
        polygons,
        None if values is None else values[~missing],
        tuple(numbers[broken].tolist()),
    )


def _check_coordinates(layer: VectorLayer, shapes: np.ndarray, numbers: np.ndarray) -> None:
    """Refuses coordinates that are no numbers."""
    points, owners = shapely.get_coordinates(shapes, return_index=True)
    _refuse(
        layer,
        numbers[np.unique(owners[~np.isfinite(points).all(axis=1)])],
        "has NaN or infinite coordinates",
    )


def _refuse(layer: VectorLayer, numbers: np.ndarray, what: str) -> None:
    """Raises `InputError` for the first of some features, if there is one."""
    if len(numbers):
        raise InputError(f"feature {numbers[0]} of {layer} {what}")


def _polygon_parts(shapes: np.ndarray) -> np.ndarray:
    """(N,) polygons and multi-polygons: what collections hold besides is left out, and what is no polygon is empty."""
    result = shapes.copy()
    for index in np.flatnonzero(~np.isin(shapely.get_type_id(shapes), (_POLYGON, _MULTIPOLYGON))):
        parts = shapely.get_parts(shapes[index])
        while _COLLECTION in shapely.get_type_id(parts) or _MULTIPOLYGON in shapely.get_type_id(
            parts
        ):
            parts = shapely.get_parts(parts)
        result[index] = shapely.union_all(parts[shapely.get_type_id(parts) == _POLYGON])
    return result


def _crs(text: str, name: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(
            f"{name} has a CRS that PROJ does not know ({shown(text)}); assign another one"
        ) from error


def _transformer(crs: pyproj.CRS, own: pyproj.CRS, name: str) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(crs, own, always_xy=True)
    except ProjError as error:
        raise InputError(
            f"PROJ cannot convert from the polygons' CRS, {crs.name}, to that of {name}, {own.name}; use one for both"
        ) from error
