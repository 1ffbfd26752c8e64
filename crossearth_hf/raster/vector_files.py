"""Files of polygons with their classes: GeoPackage, GeoJSON, GeoParquet and FlatGeobuf, written batch by batch."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pyogrio.raw
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from rasterio.crs import CRS

from ..errors import InputError
from ..labels import LabelSet
from .gis_legend import hex_color, qgis_style

SUFFIXES = (".gpkg", ".geojson", ".parquet", ".fgb")
"""Endings of the formats."""
LAYER = "map"
"""Name of the layer of polygons."""

_BATCH = 20_000  # polygons that are written at a time
_COLUMN = "geom"  # of geometries in a GeoPackage
_GEOMETRY = "geometry"  # in GeoParquet
_VERSION = "1.2"  # of GeoPackage: the newest that QGIS 3.22 reads without a warning
_ERRORS = (DataSourceError, DataLayerError, FeatureError)


class PolygonWriter:
    """Writes polygons into a GeoPackage, which carries its style for QGIS.

    Args:
        path: A new file.
        crs: Of the coordinates, or None.
        label_set: Names and colors of the classes.

    Attributes:
        count: Polygons written so far.
    """

    def __init__(self, path: Path, crs: CRS | None, label_set: LabelSet) -> None:
        self.count = 0
        self._path, self._crs, self._label_set = path, crs, label_set
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._has_file = False

    def write(self, polygons: np.ndarray, ids: np.ndarray, hectares: np.ndarray) -> None:
        """Takes (N,) shapely polygons, their classes and their areas, NaN where unknown."""
        self._waiting.append((polygons, ids, hectares))
        self.count += len(ids)
        if sum(len(batch[1]) for batch in self._waiting) >= _BATCH:
            self._flush()

    def finish(self) -> None:
        """Writes what is left, and the style."""
        self._flush()
        self._write_style()

    def _flush(self) -> None:
        if not self._waiting and self._has_file:
            return
        batches = [*self._waiting, (np.zeros(0, object), np.zeros(0, np.int64), np.zeros(0))]
        polygons, ids, hectares = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        self._waiting = []
        names = np.array(self._label_set.classes, dtype=object)
        colors = np.array([hex_color(color) for color in self._label_set.colors], dtype=object)
        columns = {
            "class_id": ids.astype(np.int32),
            "class": names[ids],
            "color": colors[ids],
            "hectares": hectares,
        }
        if self._has_file:
            options = {}
        else:
            options = {"VERSION": _VERSION}
        with warnings.catch_warnings():
            # maps may have no georeference
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                self._path,
                shapely.to_wkb(polygons),
                list(columns.values()),
                list(columns),
                layer=LAYER,
                driver="GPKG",
                geometry_type="Polygon",
                crs=None if self._crs is None else self._crs.to_wkt(),
                append=self._has_file,
                dataset_options=options,
            )
        self._has_file = True

    def _write_style(self) -> None:
        """Adds QGIS's table of styles with one that is loaded with the layer."""
        row = {
            "f_table_catalog": "",
            "f_table_schema": "",
            "f_table_name": LAYER,
            "f_geometry_column": _COLUMN,
            "styleName": "classes",
            "styleQML": qgis_style(self._label_set),
            "styleSLD": "",
            "useAsDefault": True,
            "description": "",
            "owner": "",
            "ui": "",
            "update_time": np.datetime64("now", "ms"),
        }
        pyogrio.raw.write(
            self._path,
            None,
            [np.array([value], dtype=_column_type(value)) for value in row.values()],
            list(row),
            layer="layer_styles",
            driver="GPKG",
            geometry_type=None,
        )


def _column_type(value: Any) -> type | None:
    if isinstance(value, str):
        return object
    return None


@contextmanager
def polygon_file(path: Path, crs: CRS | None, label_set: LabelSet) -> Iterator[PolygonWriter]:
    """Writes a file of polygons, whose ending tells the format.

    Args:
        path: A new file in a working folder, where a GeoPackage is written first for the other formats.
        crs: Of the coordinates, or None.
        label_set: Names and colors of the classes.

    Raises:
        InputError: The file cannot be written.
    """
    is_geopackage = path.suffix.lower() == ".gpkg"
    if is_geopackage:
        geopackage = path
    else:
        geopackage = path.with_name(f"{path.name}.gpkg")
    writer = PolygonWriter(geopackage, crs, label_set)
    try:
        yield writer
        writer.finish()
        if not is_geopackage:
            _convert(geopackage, path, crs)
            geopackage.unlink()
    except (*_ERRORS, OSError) as error:
        raise InputError(
            f"{path.name} cannot be written ({error}); free space or choose another folder"
        ) from error


def _convert(geopackage: Path, path: Path, crs: CRS | None) -> None:
    """Copies the polygons of a GeoPackage into a file of another format, batch by batch."""
    if path.suffix.lower() == ".parquet":
        _write_geoparquet(geopackage, path, crs)
        return
    options: dict[str, Any]
    if path.suffix.lower() == ".fgb":
        driver, options = "FlatGeobuf", {}
    else:
        driver, options = "GeoJSON", {"RFC7946": "YES"}  # degrees on WGS84, as the standard asks
    with pyogrio.raw.open_arrow(geopackage, layer=LAYER) as (meta, stream):
        pyogrio.raw.write_arrow(
            stream,
            path,
            layer=LAYER,
            driver=driver,
            geometry_name=meta["geometry_name"],
            geometry_type="Polygon",
            crs=meta["crs"],
            layer_options=options,
        )


def _write_geoparquet(geopackage: Path, path: Path, crs: CRS | None) -> None:
    """Writes GeoParquet 1.1, which pyogrio's GDAL does not know."""
    import pyarrow as pa  # noqa: PLC0415 - only this format needs it
    from pyarrow import parquet  # noqa: PLC0415

    info = pyogrio.read_info(geopackage, layer=LAYER)
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "crs": None if crs is None else crs.to_dict(projjson=True),
        "bbox": list(map(float, info["total_bounds"])),
    }
    geo = {"version": "1.1.0", "primary_column": _GEOMETRY, "columns": {_GEOMETRY: column}}
    with pyogrio.raw.open_arrow(geopackage, layer=LAYER, use_pyarrow=True) as (meta, reader):
        names = [
            _GEOMETRY if name == meta["geometry_name"] else name for name in reader.schema.names
        ]
        fields = [
            pa.field(name, kept.type) for name, kept in zip(names, reader.schema, strict=True)
        ]
        schema = pa.schema(fields, metadata={"geo": json.dumps(geo)})
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in reader:
                writer.write_batch(pa.record_batch(batch.columns, schema=schema))
