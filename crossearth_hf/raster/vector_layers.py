"""Layers of polygons: read in batches, checked and repaired."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyogrio
import pyogrio.raw
import pyproj
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError

from ..errors import InputError, reason_of
from .placement import (
    COLLECTION,
    LARGEST_DEGREES,
    MULTIPOLYGON,
    POLYGON,
    Box,
    crs_of,
    polygon_parts,
)
from .source_files import check_regular

SUFFIXES = (".gpkg", ".geojson", ".json", ".shp")
"""Endings of files with vectors."""
BATCH = 20_000
"""Features in memory at a time, besides those that lie on a raster; our choice."""

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
        crs_of(info["crs"], str(file)),
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
        ~np.isin(shapely.get_type_id(shapes), (POLYGON, MULTIPOLYGON, COLLECTION))
    )
    if len(wrong):
        raise InputError(
            f"feature {numbers[wrong[0]]} of {layer} is a {shapes[wrong[0]].geom_type}, and polygons are needed; "
            "buffer lines and points to their width on the ground (QGIS: Vector > Geoprocessing Tools > Buffer)"
        )
    _check_coordinates(layer, shapes, numbers)
    broken = ~shapely.is_valid(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False)
    polygons = polygon_parts(shapes)
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
