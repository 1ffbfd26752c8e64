"""Areas of interest: polygons that say which pixels of a scene become a map."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from ..errors import InputError
from .burning import burn
from .grid import Grid

_REACH = 1.0  # pixels around a window within which an area touches it, for rounded coordinates
_LAYER_MARK = "|layername="  # as in QGIS


@dataclass(frozen=True)
class Area:
    """Polygons in any CRS.

    Attributes:
        name: What messages call it.
        crs: Of its coordinates, as WKT.
        polygons: As WKB, one multi-polygon.
    """

    name: str
    crs: str
    polygons: bytes

    @property
    def digest(self) -> str:
        """A hash of all that it covers."""
        return hashlib.sha256(self.crs.encode() + self.polygons).hexdigest()


class PlacedArea:
    """An area on the grid of a raster.

    Args:
        area: The polygons.
        grid: Of the raster.
        name: What messages call the raster.

    Attributes:
        is_empty: Whether no polygon touches the raster.

    Raises:
        InputError: The pixels of the raster have no place, or none in the CRS of the area.
    """

    def __init__(self, area: Area, grid: Grid, name: str) -> None:
        vector_tools("an area of interest")
        import pyproj  # noqa: PLC0415 - optional dependencies
        import shapely  # noqa: PLC0415

        from .placement import Placement  # noqa: PLC0415

        parts = shapely.get_parts(shapely.from_wkb(area.polygons))
        placed = Placement(grid, name, pyproj.CRS.from_wkt(area.crs)).pixels(parts)
        self._polygons = placed[~shapely.is_empty(placed)]
        self._tree = shapely.STRtree(self._polygons)
        self._box = shapely.box
        self.is_empty = not len(self._polygons)

    def touches(self, windows: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
        """(N,) bool, which of N windows (row, col, height, width) the area touches."""
        rows, cols, heights, widths = np.array(windows, dtype=np.float64).reshape(-1, 4).T
        boxes = self._box(
            cols - _REACH, rows - _REACH, cols + widths + _REACH, rows + heights + _REACH
        )
        touched = np.zeros(len(boxes), dtype=bool)
        touched[self._tree.query(boxes, predicate="intersects")[0]] = True
        return touched

    def mask(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool, the pixels of a window whose centers lie in the area."""
        found = self._tree.query(
            self._box(col, row, col + width, row + height), predicate="intersects"
        )
        shapes = [(self._polygons[index], 1) for index in np.sort(found)]
        canvas = burn(
            shapes, np.zeros((height, width), dtype=np.uint8), Affine.translation(col, row)
        )
        return canvas.astype(bool)


def read_area(path: str | os.PathLike[str]) -> Area:
    """The polygons of a vector file of any format and CRS.

    Args:
        path: The file, with `|layername=NAME` behind it if it has several layers.

    Raises:
        InputError: The file is missing or damaged, or it has no CRS or no polygons.
    """
    tools = vector_tools("an area of interest")
    import shapely  # noqa: PLC0415 - an optional dependency

    layer = tools.open_layer(*layer_of(path), any_format=True)
    polygons = [features.polygons for features in tools.read_features(layer, None, None)]
    parts = shapely.get_parts(np.concatenate(polygons))
    if not len(parts):
        raise InputError(f"{layer} has no polygon; draw the area to map")
    return Area(str(layer), layer.crs.to_wkt(), shapely.to_wkb(shapely.MultiPolygon(list(parts))))


def box_area(box: Sequence[float]) -> Area:
    """The area between two meridians and two parallels.

    Args:
        box: West, south, east and north in degrees on WGS84, as in STAC and GeoJSON. West of more than east is a box
            over the antimeridian.

    Raises:
        InputError: The numbers are not such a box.
    """
    vector_tools("an area of interest")
    import pyproj  # noqa: PLC0415 - optional dependencies
    import shapely  # noqa: PLC0415

    shown = ",".join(f"{number:g}" for number in box)
    if len(box) != 4:
        raise InputError(
            f"the box {shown} has {len(box)} numbers; give west, south, east and north in degrees"
        )
    west, south, east, north = box
    if not (
        min(west, east) >= -180
        and max(west, east) <= 180
        and -90 <= south < north <= 90
        and west != east
    ):
        raise InputError(
            f"the box {shown} is not west, south, east and north in degrees (longitudes to 180, latitudes to 90); give "
            "a box of other coordinates as a polygon with --aoi"
        )
    if west > east:
        east += 360
    parts = [
        shapely.box(west + turn, south, east + turn, north) for turn in (-360, 0, 360)
    ]  # however scenes count
    return Area(
        f"box {shown}",
        pyproj.CRS("OGC:CRS84").to_wkt(),
        shapely.to_wkb(shapely.MultiPolygon(parts)),
    )


def layer_of(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """A file, and the layer that is named behind it as in QGIS."""
    file, mark, layer = os.fspath(path).partition(_LAYER_MARK)
    if mark:
        return file, layer
    return file, None


def vector_tools(purpose: str) -> Any:
    """The module `vector_layers`; `InputError` if its packages are missing."""
    try:
        from . import vector_layers  # noqa: PLC0415 - needs optional dependencies
    except ImportError as error:
        raise InputError(
            f"{purpose} needs the package '{error.name}'; run: pip install 'crossearth-hf[vectors]'"
        ) from error
    return vector_layers
