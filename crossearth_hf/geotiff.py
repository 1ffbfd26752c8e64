"""Rasters in: what every reader of scenes takes of rasterio.

A `Scene` reads windows of anything GDAL opens as 8-bit RGB with a validity mask; its `Grid` travels on to the maps
made from it. Georeferencing is copied, never recomputed.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from .bands import alpha_band, choose_bands, palette_of
from .errors import InputError
from .geotiff_writing import TILE, gdal_cause, ignore_missing_georeference
from .grid import GDAL_ERRORS, Grid, shifted
from .source_files import check_raster

_CACHE_BYTES = 128 * 2**20  # GDAL's own default is 5 % of the machine's memory, whatever the raster
_STRETCH_SIDE = 1024
_STRETCH_PERCENTILES = (2.0, 98.0)
_STRIP_WIDTH = 65_536
_MOST_STRIPS = 4_096  # that are searched for data where a decimated read finds none; our choice, as is the next
_MOST_SEARCHED = 2**28  # pixels


@dataclass(frozen=True)
class Raster:
    """A piece of a scene.

    Attributes:
        pixels: (C, H, W) uint8: RGB, or the scene's channels.
        valid: (H, W) bool, False where the scene has no data.
        crs: Coordinate reference system, or None.
        transform: From (column, row) of this piece to CRS coordinates.
    """

    pixels: np.ndarray
    valid: np.ndarray
    crs: CRS | None
    transform: Affine


class Scene:
    """A raster file opened for reading by windows, as 8-bit channels, mostly RGB, with a validity mask.

    Colour bands: those asked for; else the ones marked red, green and blue; else the first three; with one or two
    colour bands the first is used as grey. For more than three channels: those asked for, else the first ones in their
    order. Palettes are expanded; alpha is validity, not a colour, unless it is asked for. A pixel is valid where any
    chosen band has data (nodata value or mask), alpha is not 0, and, for floats, all bands are finite.
    Data other than 8-bit are stretched per band between the 2nd and 98th percentiles (our choice) of the pixels where
    that band has data, measured ONCE per scene on a decimated read, so windows have no seams.

    Args:
        path: Anything that GDAL opens.
        bands: Band numbers, counted from 1: one for each channel, or one for grey.
        resolution: Ground sampling distance in metres at which `read` resamples (bilinear, palettes nearest); the
            scene's own where None. `native` stays the scene at its own grid.
        num_channels: What a model takes, 3 or more.
        drivers: Names of the GDAL drivers that may open it; all where None.

    Attributes:
        stamps: Of every file that GDAL reads for the scene, a VRT's sources too: size in bytes, time of change in
            nanoseconds and number as opened; None for what is no file.

    Raises:
        InputError: for a file that cannot be read, more than `grid.MOST_PIXELS`, complex numbers, wrong bands, an
            unsuitable resolution, pipes and VRTs as `source_files.check_raster` says.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bands: Sequence[int] | None = None,
        resolution: float | None = None,
        num_channels: int = 3,
        drivers: Sequence[str] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        check_raster(self.path)
        before = _stamp(self.path)  # the others are known, and read, only once this one is open
        source = _open(self.path, drivers)
        try:
            self.stamps = {path: _stamp(path) for path in _files(source)} | {self.path: before}
            self.native_grid = Grid.of(source)
            self.native_grid.check_size(self.path)
            self.bands = choose_bands(source, bands, num_channels)
            self._palette = palette_of(source, self.bands)
            self.grid = self.native_grid if resolution is None else self.native_grid.rescaled(resolution)
            self._source = source
            self._data = source if resolution is None else _resampled(source, self.grid, self.bands)
        except BaseException:
            source.close()
            raise
        self._stretch: tuple[np.ndarray, np.ndarray] | None = None

    def __enter__(self) -> "Scene":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._data is not self._source:
            self._data.close()
        self._source.close()

    def check_unchanged(self) -> None:
        """Raises `InputError` where a file of the scene is no longer the one that was opened, or grew or shrank."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                raise InputError(f"{path} changed or vanished while it was read; run again once it is complete")

    @property
    def is_resampled(self) -> bool:
        """Whether `read` works on another grid than the file's."""
        return self._data is not self._source

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the file per pixel of `grid`, down and across; 1 unless resampled."""
        own, other = self.native_grid.transform, self.grid.transform
        return (
            float(np.hypot(other.b, other.e) / np.hypot(own.b, own.e)),
            float(np.hypot(other.a, other.d) / np.hypot(own.a, own.d)),
        )

    def summary(self) -> str:
        """One line: size, bands and their use, type, CRS, pixel size."""
        source, grid = self._source, self.native_grid
        bands = "palette" if self._palette is not None else f"bands {','.join(map(str, self.bands))} of {source.count}"
        shown = {1: "grey", 3: "RGB"}.get(len(self.bands), f"{len(self.bands)} channels")
        colours = "RGB" if self._palette is not None else shown
        dtype = source.dtypes[self.bands[0] - 1]
        stretch = "" if self._is_byte else ", stretched between percentiles 2 and 98"
        nowhere = "no CRS" if grid.has_place_of(source) else "a place that makes no sense, left out"
        place = "ground control points" if grid.gcps else grid.crs.to_string() if grid.crs else nowhere
        place = place if len(place) <= 40 else "custom CRS"
        size = grid.pixel_size()
        metres = f", {size[0]:.3g} m per pixel" if size else ""
        return f"{grid.width} x {grid.height} px, {bands} as {colours}, {dtype}{stretch}, {place}{metres}"

    def read(self, row: int, col: int, height: int, width: int) -> Raster:
        """The window that starts at (row, col) of `grid` and lies inside it. Raises `InputError` on damaged data."""
        window = Window(col, row, width, height)
        pixels, valid = self._read_channels(self._data, window, (height, width))
        return Raster(pixels, valid, self.grid.crs, shifted(self.grid.transform, row, col))

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool validity of a window of `native_grid`."""
        _, masks = self._read_values(self._source, Window(col, row, width, height), (height, width))
        return np.any(masks, axis=0)

    def thumbnail(self, longest: int) -> Raster:
        """The whole scene as RGB at its own grid, averaged down to at most `longest` pixels on its longer side."""
        grid = self.native_grid
        factor = max(1.0, max(grid.width, grid.height) / longest)
        height, width = (max(1, round(n / factor)) for n in (grid.height, grid.width))
        window = Window(0, 0, grid.width, grid.height)
        pixels, valid = self._read_channels(self._source, window, (height, width), Resampling.average)
        transform = shifted(grid.transform, 0, 0, grid.width / width, grid.height / height)
        return Raster(pixels[:3], valid, grid.crs, transform)

    @property
    def _is_byte(self) -> bool:
        return self._palette is not None or all(self._source.dtypes[band - 1] == "uint8" for band in self.bands)

    def _read_channels(
        self, data: Any, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """(C, *shape) uint8 and (*shape) bool of a window."""
        values, masks = self._read_values(data, window, shape, resampling)
        valid = np.any(masks, axis=0)
        if self._palette is not None:
            colours = self._palette[values[0]]  # (H, W, 4)
            return np.ascontiguousarray(colours[..., :3].transpose(2, 0, 1)), valid
        if not self._is_byte:
            values = self._stretched(values)
        return np.broadcast_to(values, (3, *shape)) if len(values) == 1 else values, valid

    def _read_values(
        self, data: Any, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw values (bands, *shape) of a window, and where each band has data: (bands, *shape) bool."""
        if self._palette is not None:
            resampling = Resampling.nearest
        try:
            # Band by band: they may differ in type.
            values = np.stack(
                [data.read(band, window=window, out_shape=shape, resampling=resampling) for band in self.bands]
            )
            masks = data.read_masks(self.bands, window=window, out_shape=values.shape) > 0
            alpha = alpha_band(data)
            if alpha is not None and alpha not in self.bands:
                masks &= data.read(alpha, window=window, out_shape=shape) > 0
        except GDAL_ERRORS as error:
            raise InputError(f"{self.path} is damaged or cut off ({gdal_cause(error)}); copy it again") from error
        if np.issubdtype(values.dtype, np.floating):
            masks &= np.isfinite(values).all(axis=0)
        if self._palette is not None:
            masks &= self._palette[values[0], 3] > 0
        return values, masks

    def _stretched(self, values: np.ndarray) -> np.ndarray:
        """(bands, H, W) of any real type -> uint8, by the one stretch of the scene."""
        if self._stretch is None:
            low, high = np.transpose([np.percentile(values, _STRETCH_PERCENTILES) for values in self._sample()])
            self._stretch = low, np.where(high > low, high, low + 1)
        low, high = (limit[:, None, None] for limit in self._stretch)
        scaled = np.nan_to_num(values.astype(np.float64), copy=False, posinf=0, neginf=0)
        scaled -= low
        scaled /= high - low
        np.clip(scaled, 0, 1, out=scaled)
        scaled *= 255
        return np.rint(scaled, out=scaled).astype(np.uint8)

    def _sample(self) -> list[np.ndarray]:
        """For each band (N,) values spread over the whole scene, where it has data; if nowhere, where others have."""
        source = self._source
        factor = max(1.0, max(source.width, source.height) / _STRETCH_SIDE)
        shape = (max(1, round(source.height / factor)), max(1, round(source.width / factor)))
        whole = Window(0, 0, source.width, source.height)
        # The strips are for specks of data that decimation missed.
        for window, size in chain([(whole, shape)], self._strips()):
            values, masks = self._read_values(source, window, size)
            valid = np.any(masks, axis=0)
            if valid.any():
                chosen = (mask if mask.any() else valid for mask in masks)
                return [band[mask].astype(np.float64) for band, mask in zip(values, chosen, strict=True)]
        return [np.zeros(1)] * len(self.bands)

    def _strips(self) -> Iterator[tuple[Window, tuple[int, int]]]:
        """Windows of the file from top to bottom, and their sizes; raises `InputError` once too many are taken."""
        source, searched = self._source, 0
        corners = product(range(0, source.height, TILE), range(0, source.width, _STRIP_WIDTH))
        for number, (row, col) in enumerate(corners):
            if number >= _MOST_STRIPS or searched >= _MOST_SEARCHED:
                raise InputError(
                    f"{self.path} holds no pixel with data in a sample of all its pixels and in the first "
                    f"{searched:,}; check its nodata value, mask or alpha band, or cut it to where it has data"
                )
            height, width = min(TILE, source.height - row), min(_STRIP_WIDTH, source.width - col)
            searched += height * width
            yield Window(col, row, width, height), (height, width)


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What tells a file from another one in its place; None for the folders and other names that GDAL opens."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _files(source: Any) -> list[str]:
    """The files that GDAL reads for a dataset, those of VRTs in a VRT too, of which it names the VRT alone."""
    found, waiting = dict.fromkeys(source.files), list(source.files)
    while waiting:
        path = waiting.pop()
        if path.lower().endswith(".vrt") and path != source.name:
            with suppress(*GDAL_ERRORS), rasterio.open(path) as inner:  # reading says what is wrong with it
                waiting += [name for name in inner.files if name not in found]
                found |= dict.fromkeys(inner.files)
    return list(found)


def _open(path: str, drivers: Sequence[str] | None) -> Any:
    """A rasterio dataset; raises `InputError` saying why there is none."""
    ignore_missing_georeference()
    try:
        source = rasterio.open(path, driver=drivers)
    except GDAL_ERRORS as error:
        raise InputError(_why_unreadable(path)) from error
    if source.count == 0:
        source.close()
        raise InputError(f"{path} is a container without bands of its own; name one of its subdatasets (see gdalinfo)")
    return source


def _why_unreadable(path: str) -> str:
    """One sentence on a path that GDAL does not open."""
    if os.path.isdir(path):
        return f"{path} is a folder; name the raster file in it"
    if not os.path.exists(path):
        return f"{path} does not exist; check the path of the scene"
    if not os.access(path, os.R_OK):
        return f"{path} may not be read; check its permissions"
    if os.path.getsize(path) == 0:
        return f"{path} is empty (0 bytes); copy the raster again"
    return f"{path} is no raster that GDAL can read, or it is damaged; check it with gdalinfo"


def _resampled(source: Any, grid: Grid, bands: list[int]) -> WarpedVRT:
    """The source resampled on the fly to `grid`, which has the same CRS; validity becomes an alpha band."""
    alpha = alpha_band(source)
    if alpha in bands:
        raise InputError(
            f"band {alpha} of {source.name} is marked as transparency, by which resampling weighs the others; if it "
            f"holds data, take the mark away: gdal_edit.py -colorinterp_{alpha} undefined"
        )
    nodata = source.nodata
    if nodata is None and np.issubdtype(np.dtype(source.dtypes[0]), np.floating):
        nodata = float("nan")
    return WarpedVRT(
        source,
        crs=source.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.bilinear if palette_of(source, bands) is None else Resampling.nearest,
        src_nodata=nodata,
        add_alpha=alpha is None,
    )


def bounded_cache() -> rasterio.Env:
    """Context in which GDAL keeps at most 128 MB of blocks."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


def read_band(path: Path, window: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """Nearest values (*shape) of the first band of a file in a window (row, col, height, width), fractions allowed."""
    row, col, height, width = window
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        return source.read(1, window=Window(col, row, width, height), out_shape=shape)
