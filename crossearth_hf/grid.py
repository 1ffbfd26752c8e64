"""Where the pixels of a raster lie on Earth, and how large they are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from .errors import InputError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; the second is not wrapped everywhere and has no public name."""

MOST_PIXELS = 10**12
"""Pixels of a scene, a million squared; our choice, months of work even for a small model."""

_LARGEST_RESCALE = 64.0
_FARTHEST = 1e100  # of a ground control point, in any unit; squares of it are finite
_SMALLEST_SPAN = 1e-12  # of ground control points, GDAL's own
_WGS84_AXIS = 6378137.0  # metres
_WGS84_ECCENTRICITY2 = 0.00669437999014


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie.

    Attributes:
        width, height: Size in pixels.
        crs: Coordinate reference system, or None.
        transform: From (column, row) to CRS coordinates; the identity where the raster has none.
        gcps: Ground control points, for rasters that have these in place of a transform.
        gcps_crs: CRS of the ground control points.
    """

    width: int
    height: int
    crs: CRS | None
    transform: Affine
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_crs: CRS | None = None

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """The grid of an open rasterio dataset; a place that no pixel can have, such as NaN, is left out."""
        width, height = dataset.width, dataset.height
        crs, transform, (gcps, gcps_crs) = dataset.crs, dataset.transform, dataset.gcps
        if not transform.is_identity:
            gcps, gcps_crs = [], None
        if not _tells_pixels_apart(transform, width, height):
            crs, transform = None, Affine.identity()
        if gcps and not _span_a_plane(gcps):
            crs, gcps, gcps_crs = None, [], None
        return cls(width, height, crs, transform, tuple(gcps), gcps_crs)

    def has_place_of(self, dataset: Any) -> bool:
        """Whether the place that an open rasterio dataset states, if any, was not left out."""
        if not self.transform.is_identity:
            return True
        return dataset.transform.is_identity and bool(self.gcps) == bool(dataset.gcps[0])

    def check_size(self, name: str) -> None:
        """Raises `InputError` for a grid of more pixels than can be mapped; `name` is what it is called."""
        if self.width * self.height > MOST_PIXELS:
            raise InputError(
                f"{name} has {self.width:,} x {self.height:,} pixels and a scene holds at most {MOST_PIXELS:,}; cut it "
                "into several (gdalwarp -te)"
            )

    def georeference(self) -> dict[str, Any]:
        """Keyword arguments of `rasterio.open` that write this georeference and no more than this."""
        if self.gcps:
            return {"gcps": list(self.gcps), "crs": self.gcps_crs}
        if self.transform.is_identity:
            return {"crs": self.crs}
        return {"crs": self.crs, "transform": self.transform}

    def pixel_size(self) -> tuple[float, float] | None:
        """Ground width and height of the central pixel in metres; None where the CRS does not tell."""
        steps = self._ground_steps(np.array([self.width / 2]), np.array([self.height / 2]))
        if steps is None:
            return None
        across, down = steps  # (2, 1) each
        return float(np.hypot(*across)[0]), float(np.hypot(*down)[0])

    def row_areas(self, row: int, col: int, height: int, width: int) -> np.ndarray | None:
        """Ground area of one pixel of each row of a window, at the window's middle column.

        Measured on the WGS84 ellipsoid, so that degrees and Web Mercator, whose pixels shrink towards the poles,
        give true areas like any other CRS.

        Returns:
            (height,) square metres; None where the CRS does not lead to longitude and latitude.
        """
        steps = self._ground_steps(np.full(height, col + width / 2), row + np.arange(height) + 0.5)
        if steps is None:
            return None
        (east_x, north_x), (east_y, north_y) = steps
        return np.abs(east_x * north_y - north_x * east_y)

    def rescaled(self, metres: float) -> "Grid":
        """The grid of the same ground with square pixels of `metres`; it may reach over the edge by part of a pixel.

        Raises:
            InputError: without a CRS, or for a size that is not positive or far from the grid's own.
        """
        size = self.pixel_size()
        if size is None:
            remedy = "warp it to its ground control points first" if self.gcps else "give it one with gdal_edit"
            raise InputError(f"a resolution in metres needs a scene with a known CRS, this one has none: {remedy}")
        if not (metres > 0 and max(metres / min(size), max(size) / metres) <= _LARGEST_RESCALE):
            raise InputError(
                f"resolution {metres:g} m does not suit pixels of {size[0]:.3g} x {size[1]:.3g} m; "
                f"choose one within {_LARGEST_RESCALE:g} times of these"
            )
        scale_x, scale_y = metres / size[0], metres / size[1]
        width, height = (max(1, int(np.ceil(n / s - 1e-6))) for n, s in ((self.width, scale_x), (self.height, scale_y)))
        return Grid(width, height, self.crs, shifted(self.transform, 0, 0, scale_x, scale_y))

    def _ground_steps(self, cols: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """(east, north) metres, (2, N), of one step to the next column and to the next row at N points."""
        if self.crs is None or self.transform.is_identity:
            return None
        reach = 4.0  # in pixels: inverse projections are exact to about a millimetre only
        points = [(0.0, 0.0), (reach, 0.0), (-reach, 0.0), (0.0, reach), (0.0, -reach)]
        col = np.concatenate([cols + dx for dx, _ in points])
        row = np.concatenate([rows + dy for _, dy in points])
        a, b, c, d, e, f = self.transform[:6]
        x, y = a * col + b * row + c, d * col + e * row + f
        try:
            longitude, latitude = transform_points(self.crs, CRS.from_epsg(4326), x, y)
        except GDAL_ERRORS:
            return None
        degrees = np.array([longitude, latitude]).reshape(2, len(points), len(cols))
        if not np.isfinite(degrees).all():
            return None
        delta = degrees[:, 1::2] - degrees[:, 2::2]  # (2, 2, N): lon/lat, column/row
        delta[0] = (delta[0] + 180) % 360 - 180
        steps = np.radians(delta) / (2 * reach) * _metres_per_radian(degrees[1, 0])[:, None]
        return steps[:, 0], steps[:, 1]


def _tells_pixels_apart(transform: Affine, width: int, height: int) -> bool:
    """Whether all corners of a raster have finite coordinates, and pixels an area, in the precision of a float."""
    a, b, c, d, e, f = transform[:6]
    cols, rows = np.array([(0, 0), (1, 0), (0, 1), (width, 0), (0, height), (width, height)], dtype=np.float64).T
    with np.errstate(over="ignore", invalid="ignore"):
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    return bool(np.isfinite([*x, *y, area]).all() and area != 0)


def _span_a_plane(gcps: Sequence[GroundControlPoint]) -> bool:
    """Whether GDAL can fit a transform to points, two at least: else rasterio's holds whatever was in memory."""
    points = np.array([(point.col, point.row, point.x, point.y) for point in gcps], dtype=np.float64)  # (N, 4)
    if not (np.abs(points) < _FARTHEST).all() or np.ptp(points, axis=0).min() < _SMALLEST_SPAN:  # NaN is not below
        return False
    centered = points - points.mean(axis=0)
    return len(points) == 2 or all(np.linalg.matrix_rank(side) == 2 for side in (centered[:, :2], centered[:, 2:]))


def _metres_per_radian(latitude: np.ndarray) -> np.ndarray:
    """(2, N) metres per radian of longitude and of latitude at N latitudes in degrees, on the WGS84 ellipsoid."""
    phi = np.radians(latitude)
    curvature = 1 - _WGS84_ECCENTRICITY2 * np.sin(phi) ** 2
    prime_vertical = _WGS84_AXIS / np.sqrt(curvature)
    return np.stack([prime_vertical * np.cos(phi), prime_vertical * (1 - _WGS84_ECCENTRICITY2) / curvature])


def shifted(transform: Affine, row: float, col: float, scale_x: float = 1.0, scale_y: float = 1.0) -> Affine:
    """The transform of a grid that starts at (row, col) of another one and has pixels that many times as large."""
    a, b, c, d, e, f = transform[:6]
    return Affine(a * scale_x, b * scale_y, a * col + b * row + c, d * scale_x, e * scale_y, d * col + e * row + f)
