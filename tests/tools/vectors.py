"""Layers of polygons for tests, written by pyogrio itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyogrio.raw
import shapely


def write_layer(
    path: Path,
    shapes: Sequence[shapely.Geometry | None],
    columns: Mapping[str, Sequence[object]] | None = None,
    *,
    crs: str | None = "EPSG:32632",
    layer: str | None = None,
    kind: str = "Unknown",
    append: bool = False,
) -> Path:
    """Writes shapes with columns of text or whole numbers; the ending says which format."""
    drivers = {
        ".gpkg": "GPKG",
        ".geojson": "GeoJSON",
        ".shp": "ESRI Shapefile",
        ".fgb": "FlatGeobuf",
    }
    held = {
        name: np.array(values, dtype=_dtype(values)) for name, values in (columns or {}).items()
    }
    pyogrio.raw.write(
        path, shapely.to_wkb(np.array(shapes, dtype=object)), list(held.values()), list(held),
        layer=layer, driver=drivers[path.suffix], geometry_type=kind, crs=crs, append=append,
    )  # fmt: skip
    return path


def _dtype(values: Sequence[object]) -> type:
    if all(isinstance(value, int) for value in values):
        return np.int64
    return object
