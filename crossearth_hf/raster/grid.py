"""Location and size of a raster's pixels on Earth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.warp import transform as transform_points

from ..errors import InputError
from .gdal import GDAL_ERRORS

MOST_PIXELS = 10**12
"""Largest number of pixels of a scene, a million squared; our choice, months of work even for a small model."""

_SAMPLE_SIDE = 1024
_LONGEST_SIDE = 2**31 - 1  # GDAL's
_LARGEST_RESCALE = 64.0
_FARTHEST = 1e100  # largest coordinate of a ground control point in any unit; its square is finite
_SMALLEST_SPAN = 1e-12  # of ground control points, as in GDAL
_WGS84_AXIS = 6378137.0  # meters
_WGS84_ECCENTRICITY2 = 0.00669437999014
_WGS84 = CRS.from_epsg(4326)

# How areas are measured; our choices, for errors below 0.01 %.
_SPAN = 50.0  # meters over which small pixels are measured, because inverse projections are exact to a millimeter
_FLAT = 100_000.0  # meters over which the ground is flat enough
_AREA_TILE = 512  # pixels
_MOST_POINTS = 2**20  # located at a time
_TOLERANCE = 1e-4  # relative error of areas between two measured points
_MOST_NODES = 33  # along a tile, beyond which every pixel is measured


@dataclass(frozen=True)
class Grid:
    """The grid of a raster's pixels.

    Attributes:
        width, height: Size in pixels.
        crs: Coordinate reference system, or None.
        transform: From (column, row) to CRS coordinates; the identity if the raster has no transform.
        gcps: Ground control points of rasters that have these instead of a transform.
        gcps_crs: CRS of the ground control points.
        rpcs: Rational polynomial coefficients of rasters that have only these.
    """

    width: int
    height: int
    crs: CRS | None
    transform: Affine
    gcps: tuple[GroundControlPoint, ...] = ()
    gcps_crs: CRS | None = None
    rpcs: RPC | None = None

    @classmethod
    def of(cls, dataset: Any) -> "Grid":
        """The grid of an open rasterio dataset, without impossible georeferences such as NaN."""
        width, height = dataset.width, dataset.height
        crs, transform, (gcps, gcps_crs) = dataset.crs, dataset.transform, dataset.gcps
        if not transform.is_identity:
            gcps, gcps_crs = [], None
        if not _tells_pixels_apart(transform, width, height):
            crs, transform = None, Affine.identity()
        if gcps and not _span_a_plane(gcps):
            crs, gcps, gcps_crs = None, [], None
        if transform.is_identity and not gcps:
            rpcs = _rpcs(dataset)
        else:
            rpcs = None
        return cls(width, height, crs, transform, tuple(gcps), gcps_crs, rpcs)

    def has_place_of(self, dataset: Any) -> bool:
        """Whether the grid has the georeference of an open rasterio dataset, if it states one."""
        if not self.transform.is_identity:
            return True
        return dataset.transform.is_identity and bool(self.gcps) == bool(dataset.gcps[0])

    def check_size(self, name: str) -> None:
        """Raises `InputError` for a grid with too many pixels; `name` is for the message."""
        if self.width * self.height > MOST_PIXELS or max(self.width, self.height) > _LONGEST_SIDE:
            raise InputError(
                f"{name} has {self.width:,} x {self.height:,} pixels, but a scene may have at most {MOST_PIXELS:,}; "
                "cut it into several (gdalwarp -te)"
            )

    def georeference(self) -> dict[str, Any]:
        """Keyword arguments of `rasterio.open` that write exactly this georeference."""
        if self.gcps:
            return {"gcps": list(self.gcps), "crs": self.gcps_crs}
        if self.rpcs is not None:
            return {"crs": self.crs, "rpcs": self.rpcs}
        if self.transform.is_identity:
            return {"crs": self.crs}
        return {"crs": self.crs, "transform": self.transform}

    def pixel_size(self) -> tuple[float, float] | None:
        """Ground width and height of the central pixel in meters; None if the CRS does not define them."""
        return self._central_size(self._reach) or self._central_size(0.5)

    def pixel_areas(self, row: int, col: int, counted: np.ndarray) -> np.ndarray | None:
        """Ground areas of the pixels of a window.

        They are measured on the WGS84 ellipsoid, so degrees, Web Mercator and polar projections give true areas too.

        Args:
            row, col: Start of the window.
            counted: (H, W) bool, pixels to measure.

        Returns:
            (H, W) square meters, undefined where not counted; None if there is no answer for one of the counted pixels:
            no CRS, a location beyond a pole, another celestial body.
        """
        areas = np.zeros(counted.shape)
        for top in range(0, counted.shape[0], _AREA_TILE):
            for left in range(0, counted.shape[1], _AREA_TILE):
                part = slice(top, top + _AREA_TILE), slice(left, left + _AREA_TILE)
                if counted[part].any():
                    measured = self._tile_areas(row + top, col + left, counted[part])
                    if measured is None:
                        return None
                    areas[part] = measured
        return areas

    def rescaled(self, meters: float) -> "Grid":
        """A grid over the same ground with square pixels of `meters`; it may extend over the edge by part of a pixel.

        Raises:
            InputError: The grid has no CRS, the size is not positive or is far from the grid's own, or the new grid
                would be too large.
        """
        size = self.pixel_size()
        if size is None:
            if self.rpcs:
                remedy = "orthorectify it first: gdalwarp -rpc"
            elif self.gcps:
                remedy = "warp it to its ground control points first"
            else:
                remedy = "give it one with gdal_edit"
            raise InputError(
                f"a resolution in meters needs a scene with a known CRS, and this one has none: {remedy}"
            )
        finest, coarsest = max(size) / _LARGEST_RESCALE, min(size) * _LARGEST_RESCALE
        if not finest <= meters <= coarsest:
            fitting = ""
            if finest <= coarsest:
                fitting = f"choose one from {finest:.3g} to {coarsest:.3g} m, or "
            raise InputError(
                f"resolution {meters:g} m does not suit pixels of {size[0]:.3g} x {size[1]:.3g} m; {fitting}leave the "
                "pixels as they are"
            )
        scale_x, scale_y = meters / size[0], meters / size[1]
        width = _pixels_after(self.width, scale_x)
        height = _pixels_after(self.height, scale_y)
        grid = Grid(width, height, self.crs, shifted(self.transform, 0, 0, scale_x, scale_y))
        grid.check_size(f"the scene at {meters:g} m")
        return grid

    def distance_to(self, other: "Grid") -> float | None:
        """Distance in pixels between the corners of this grid and of another one; None if a CRS is missing."""
        if self.crs is None or other.crs is None:
            return None
        corners = [(0, 0), (self.width, self.height)]
        places = [other.transform @ corner for corner in corners]
        if self.crs != other.crs:
            try:
                columns, rows = transform_points(other.crs, self.crs, *zip(*places, strict=True))
            except GDAL_ERRORS:  # such as between two planets
                return math.inf
            places = list(zip(columns, rows, strict=True))
        return max(
            math.dist(corner, ~self.transform @ place)
            for corner, place in zip(corners, places, strict=True)
        )

    def can_be_rescaled(self, meters: float) -> bool:
        """Whether `rescaled` succeeds."""
        try:
            self.rescaled(meters)
        except InputError:
            return False
        return True

    @cached_property
    def _side(self) -> float | None:
        """Larger side of the central pixel in meters, from its own corners; None if the CRS does not define it."""
        size = self._central_size(0.5)
        if size is None:
            return None
        return max(size)

    @property
    def _reach(self) -> float:
        """Distance in pixels from the middle of a pixel at which it is measured: half a pixel, more for small "
        "pixels."""
        if self._side is None:
            return 0.5
        return max(0.5, _SPAN / 2 / self._side)

    @property
    def _divisions(self) -> int:
        """Number of parts of a pixel's side that are flat enough."""
        if self._side is None:
            return 1
        return math.ceil(self._side / _FLAT)

    def _central_size(self, reach: float) -> tuple[float, float] | None:
        """Ground width and height of the central pixel, measured `reach` pixels to each side of its middle."""
        steps = np.array([(reach, 0), (-reach, 0), (0, reach), (0, -reach)])
        places = self._places(self.width / 2 + steps[:, 0], self.height / 2 + steps[:, 1])
        if places is None:
            return None
        right, left, bottom, top = places
        width = float(np.linalg.norm(right - left)) / (2 * reach)
        height = float(np.linalg.norm(bottom - top)) / (2 * reach)
        if min(width, height) > 0:
            return (width, height)
        return None

    def _tile_areas(self, row: int, col: int, counted: np.ndarray) -> np.ndarray | None:
        """Areas of a small window: measured at a few pixels if interpolation between them is exact enough, else at "
        "all."""
        height, width = counted.shape
        nodes, coarse = 2, None
        while nodes <= _MOST_NODES:
            rows, cols = (np.linspace(0, size - 1, min(nodes, size)) for size in counted.shape)
            grid_rows, grid_cols = np.meshgrid(row + rows, col + cols, indexing="ij")
            fine = self._areas_at(grid_rows.ravel(), grid_cols.ravel(), self._reach)
            if fine is None:
                break
            fine = fine.reshape(len(rows), len(cols))
            if coarse is not None:
                expected = _between(*coarse, rows, cols)
                if (np.abs(fine - expected) <= _TOLERANCE * fine).all():
                    return _between(fine, rows, cols, np.arange(height), np.arange(width))
            coarse, nodes = (fine, rows, cols), 2 * nodes - 1
        areas = np.zeros(counted.shape)
        found = np.argwhere(counted)
        points = len(found) * (self._divisions + 1) ** 2
        for group in np.array_split(found, np.ceil(points / _MOST_POINTS)):
            measured = self._areas_at(row + group[:, 0], col + group[:, 1], 0.5)
            if measured is None:
                return None
            areas[group[:, 0], group[:, 1]] = measured
        return areas

    def _areas_at(self, rows: np.ndarray, cols: np.ndarray, reach: float) -> np.ndarray | None:
        """(N,) square meters of the pixels at N places, measured `reach` pixels to each side of their middles."""
        parts = self._divisions
        steps = np.linspace(-reach, reach, parts + 1)
        down, across = np.meshgrid(steps, steps, indexing="ij")
        x = cols[:, None] + 0.5 + across.ravel()
        y = rows[:, None] + 0.5 + down.ravel()
        places = self._places(x.ravel(), y.ravel())
        if places is None:
            return None
        corners = places.reshape(len(rows), parts + 1, parts + 1, 3)
        # The diagonals of each part: half the length of their cross product is its area.
        falling = corners[:, 1:, 1:] - corners[:, :-1, :-1]
        rising = corners[:, 1:, :-1] - corners[:, :-1, 1:]
        areas = np.linalg.norm(np.cross(falling, rising), axis=-1).sum(axis=(1, 2)) / 2
        if (areas > 0).all():
            return areas / (2 * reach) ** 2
        return None

    def _places(self, cols: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """(N, 3) meters from the Earth's center of N points of the grid; None if the CRS does not define
        all of them."""
        if self.crs is None or self.transform.is_identity:
            return None
        a, b, c, d, e, f = self.transform[:6]
        diagonal = math.hypot(a, b, d, e)
        if not abs(a * e - b * d) > 1e-12 * diagonal**2:  # pixels without area, or NaN
            return None
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        try:
            longitude, latitude = map(np.array, transform_points(self.crs, _WGS84, x, y))
            there_x, there_y = map(
                np.array, transform_points(_WGS84, self.crs, longitude, latitude)
            )
        except GDAL_ERRORS:
            return None
        # Outside their domain, some projections give a location that projects back to other coordinates.
        allowed = diagonal / 2 + 1e-9 * (np.abs(x) + np.abs(y))
        known = (np.abs(latitude) <= 90 + 1e-9) & (np.abs(there_y - y) <= allowed)
        if not self.crs.is_geographic:  # longitudes have a seam
            known &= np.abs(there_x - x) <= allowed
        if known.all():
            return _geocentric(np.radians(longitude), np.radians(latitude))
        return None


def _pixels_after(pixels: int, scale: float) -> int:
    """How many pixels cover an axis once each is `scale` times as large, at least one."""
    return max(1, int(np.ceil(pixels / scale - 1e-6)))


def _tells_pixels_apart(transform: Affine, width: int, height: int) -> bool:
    """Whether all corners of a raster have finite coordinates and its pixels an area, in float precision."""
    a, b, c, d, e, f = transform[:6]
    first_pixel = [(0, 0), (1, 0), (0, 1)]
    far_corners = [(width, 0), (0, height), (width, height)]
    cols, rows = np.array(first_pixel + far_corners, dtype=np.float64).T
    with np.errstate(over="ignore", invalid="ignore"):
        x = a * cols + b * rows + c
        y = d * cols + e * rows + f
        across = x[1] - x[0], y[1] - y[0]
        down = x[2] - x[0], y[2] - y[0]
        area = across[0] * down[1] - down[0] * across[1]
    return bool(np.isfinite([*x, *y, area]).all() and area != 0)


def _span_a_plane(gcps: Sequence[GroundControlPoint]) -> bool:
    """Whether GDAL can fit a transform to at least two points; otherwise rasterio's transform is undefined memory."""
    points = np.array(
        [(point.col, point.row, point.x, point.y) for point in gcps], dtype=np.float64
    )  # (N, 4)
    # NaN is not below
    if not (np.abs(points) < _FARTHEST).all() or np.ptp(points, axis=0).min() < _SMALLEST_SPAN:
        return False
    centered = points - points.mean(axis=0)
    return len(points) == 2 or all(
        np.linalg.matrix_rank(side) == 2 for side in (centered[:, :2], centered[:, 2:])
    )


def _geocentric(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """(N, 3) meters from the Earth's center of N points in radians on the WGS84 ellipsoid, without poles and seams."""
    prime_vertical = _WGS84_AXIS / np.sqrt(1 - _WGS84_ECCENTRICITY2 * np.sin(latitude) ** 2)
    out = prime_vertical * np.cos(latitude)
    up = prime_vertical * (1 - _WGS84_ECCENTRICITY2) * np.sin(latitude)
    return np.stack([out * np.cos(longitude), out * np.sin(longitude), up], axis=-1)


def _between(
    values: np.ndarray,
    rows: np.ndarray,
    cols: np.ndarray,
    new_rows: np.ndarray,
    new_cols: np.ndarray,
) -> np.ndarray:
    """Bilinear interpolation of (R, C) values at ascending rows and columns to (R', C') new ones."""
    # (R', R)
    down = np.stack([np.interp(new_rows, rows, line) for line in np.eye(len(rows))], axis=1)
    # (C', C)
    across = np.stack([np.interp(new_cols, cols, line) for line in np.eye(len(cols))], axis=1)
    return down @ values @ across.T


def _rpcs(dataset: Any) -> RPC | None:
    """Rational polynomial coefficients of a dataset; None if missing or damaged."""
    try:
        return dataset.rpcs
    except (KeyError, ValueError, TypeError):
        return None


def sample_shape(height: int, width: int, longest: float = _SAMPLE_SIDE) -> tuple[int, int]:
    """Size of a decimated read of a raster, with at most `longest` pixels on its longer side."""
    factor = max(1.0, max(height, width) / longest)
    return max(1, round(height / factor)), max(1, round(width / factor))


def shifted(
    transform: Affine, row: float, col: float, scale_x: float = 1.0, scale_y: float = 1.0
) -> Affine:
    """The transform of a grid that starts at (row, col) of another grid, with pixels scaled by these factors."""
    a, b, c, d, e, f = transform[:6]
    x, y = a * col + b * row + c, d * col + e * row + f
    return Affine(a * scale_x, b * scale_y, x, d * scale_x, e * scale_y, y)
