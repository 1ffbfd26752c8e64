"""Where polygons of any CRS lie on a raster, in pixels."""

import math
from collections.abc import Sequence

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import CRSError, ProjError

from ..errors import InputError, shown
from .grid import Grid

CURVE_TOLERANCE = 0.05
"""Pixels by which a straight edge of one CRS may leave its place in another one; our choice."""
LARGEST_DEGREES = 720.0
"""Of a longitude, however it is counted; our choice."""

POLYGON, MULTIPOLYGON, COLLECTION = 3, 6, 7
"""Shapely's numbers of types."""

_MARGIN = 0.05  # of a raster's box in another CRS, beyond which polygons are cut off
_MOST_HALVINGS = 12  # of edges

Box = tuple[float, float, float, float]
"""West, south, east and north."""


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
        own = crs_of(self._wkt(), name)
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
        placed = shapely.transform(self._divided(polygon_parts(cut)), self._to_pixels)
        if not np.isfinite(shapely.get_coordinates(placed)).all():
            raise InputError(
                f"polygons on {self.name} have no place in its CRS; give both the same CRS"
            )
        broken = ~shapely.is_valid(placed)  # rounding can make needles cross themselves
        placed[broken] = polygon_parts(
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


def polygon_parts(shapes: np.ndarray) -> np.ndarray:
    """(N,) polygons and multi-polygons: what collections hold besides is left out, and what is no polygon is empty."""
    result = shapes.copy()
    for index in np.flatnonzero(~np.isin(shapely.get_type_id(shapes), (POLYGON, MULTIPOLYGON))):
        parts = shapely.get_parts(shapes[index])
        while COLLECTION in shapely.get_type_id(parts) or MULTIPOLYGON in shapely.get_type_id(
            parts
        ):
            parts = shapely.get_parts(parts)
        result[index] = shapely.union_all(parts[shapely.get_type_id(parts) == POLYGON])
    return result


def crs_of(text: str, name: str) -> pyproj.CRS:
    """The CRS that a text describes; raises `InputError` if PROJ does not know it, with `name` in the message."""
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
