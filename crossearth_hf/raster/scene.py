"""Rasters in: what every reader of scenes takes of rasterio.

A `Scene` reads windows of anything GDAL opens as 8-bit RGB with a validity mask; its `Grid` travels on to the maps
made from it. Georeferencing is copied, never recomputed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from ..errors import InputError
from .bands import choose_bands, palette_of
from .fill import Fill
from .gdal import GDAL_ERRORS, gdal_cause, ignore_missing_georeference
from .grid import Grid, sample_shape, shifted
from .imagery import check_imagery
from .notices import Notice, describe, find_notices
from .raw_bands import EmptyScene, RawBands, transparency_band
from .resampling import read_resampled
from .scene_files import files_of
from .source_files import check_raster

_CACHE_BYTES = 128 * 2**20  # GDAL's own default is 5 % of the machine's memory, whatever the raster


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

    Color bands: those asked for; else the ones that are red, green and blue by name, code or wavelength; else the ones
    marked so; else the first three; with one or two color bands the first is used as gray. For more than three
    channels: those asked for, else the first ones in their order. Palettes are expanded; alpha is validity, not a
    color, unless it is asked for, or takes so many values that it must be data. A pixel is valid where any chosen
    band has data (nodata value or mask), alpha is not 0, and, for floats, all bands are finite.
    Data other than 8-bit are stretched per band between the 2nd and 98th percentiles (our choice) of the pixels where
    that band has data, measured ONCE per scene on a decimated read, so windows have no seams. Fill that the file does
    not declare is found there too (see `fill.find_fills`), and is no data. 8-bit values are all data.

    Args:
        path: Anything that GDAL opens.
        bands: Band numbers, counted from 1: one for each channel, or one for gray.
        resolution: Ground sampling distance in meters at which `read` resamples (bilinear, palettes nearest); the
            scene's own where None. `native` stays the scene at its own grid.
        num_channels: What a model takes, 3 or more.
        driver: Name of the only GDAL driver that may open it; any where None.
        nodata: Values that mean no data, beside what the file declares: of 8-bit pixels those that all chosen bands
            hold, else for each band. None to find undeclared fill, () for none.
        palette_as_image: Whether a palette of few values in flat regions is a picture all the same.

    Attributes:
        bands: The numbers of the bands that were chosen.
        data_bands: How many bands the file has, without that of transparency.
        stamps: Of every file that GDAL reads for the scene, a VRT's sources too: size in bytes, time of change in
            nanoseconds and number as opened; None for what is not a file.

    Raises:
        InputError: for a file that cannot be read, more than `grid.MOST_PIXELS`, complex numbers, wrong bands, an
            unsuitable resolution, pipes and VRTs as `source_files.check_raster` says, no-data values that no band can
            hold, maps of classes and our own results as `imagery.check_imagery` says.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        bands: Sequence[int] | None = None,
        resolution: float | None = None,
        num_channels: int = 3,
        driver: str | None = None,
        nodata: Sequence[float] | None = None,
        palette_as_image: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.resolution = resolution
        self.num_channels = num_channels
        self._driver = driver
        if nodata is None:
            self.nodata = None
        else:
            self.nodata = tuple(nodata)
        self.palette_as_image = palette_as_image
        self._bands_were_named = bands is not None
        check_raster(self.path)
        before = _stamp(self.path)  # the others are known, and read, only once this one is open
        source = _open(self.path, driver)
        try:
            self.stamps = {path: _stamp(path) for path in files_of(source)} | {self.path: before}
            self.native_grid = Grid.of(source)
            self.native_grid.check_size(self.path)
            alpha = transparency_band(source)
            self.bands = choose_bands(source, bands, num_channels, alpha)
            self.data_bands = source.count - (alpha is not None)
            palette = palette_of(source, self.bands)
            check_imagery(source, self.bands, has_palette=palette is not None, palette_as_image=palette_as_image)
            self._raw = RawBands(source, self.bands, palette, alpha, self.nodata)
            if resolution is None:
                self.grid = self.native_grid
            else:
                self.grid = self.native_grid.rescaled(resolution)
            self._source = source
        except BaseException:
            source.close()
            raise
        self.is_resampled = resolution is not None

    def __enter__(self) -> "Scene":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._source.close()

    def reopened(self) -> "Scene":
        """The same scene, opened anew and read in the same way; raises `InputError` as opening does."""
        return Scene(
            self.path,
            bands=self.bands,
            resolution=self.resolution,
            num_channels=self.num_channels,
            driver=self._driver,
            nodata=self.nodata,
            palette_as_image=self.palette_as_image,
        )

    def check_unchanged(self) -> None:
        """Raises `InputError` where a file of the scene is no longer the one that was opened, or grew or shrank."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                raise InputError(f"{path} changed or vanished while it was read; run again once it is complete")

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the file per pixel of `grid`, down and across; 1 unless resampled."""
        own, other = self.native_grid.transform, self.grid.transform
        return (
            float(np.hypot(other.b, other.e) / np.hypot(own.b, own.e)),
            float(np.hypot(other.a, other.d) / np.hypot(own.a, own.d)),
        )

    def summary(self) -> str:
        """One line: size, bands and their use, type, limits of the stretch, where validity comes from, place."""
        grid = self.native_grid
        if grid.has_place_of(self._source):
            nowhere = "no CRS"
        else:
            nowhere = "a place that makes no sense, left out"
        if grid.gcps:
            place = "ground control points"
        elif grid.crs:
            place = grid.crs.to_string()
        else:
            place = nowhere
        if grid.rpcs:
            place = "georeferenced by RPCs"
        if not (len(place) <= 40):
            place = "custom CRS"
        size = grid.pixel_size()
        if size:
            meters = f", {size[0]:.3g} m per pixel"
        else:
            meters = ""
        return f"{grid.width} x {grid.height} px, {describe(self._raw, self._source)}, {place}{meters}"

    def notices(self) -> list[Notice]:
        """What a person should know before the map is made; reads a sample of the whole scene."""
        return find_notices(self._raw, self._source, bands_were_named=self._bands_were_named)

    def check_has_data(self) -> None:
        """Raises `EmptyScene` where no pixel has data; reads a sample of the whole scene."""
        if not self._raw.measured.has_data:
            raise EmptyScene(f"{self.path} holds no pixel with data; check its nodata value, mask or alpha band")

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Values of bands that mean no data, or might, and that nobody names; reads a sample of the whole scene."""
        if self._raw.looks_for_fill:
            return self._raw.measured.fills
        return ()

    def read(self, row: int, col: int, height: int, width: int) -> Raster:
        """The window that starts at (row, col) of `grid` and lies inside it. Raises `InputError` on damaged data."""
        if self.is_resampled:
            size, window = (self.native_grid.height, self.native_grid.width), (row, col, height, width)
            values, masks = read_resampled(self._read, size, self.scale, window, nearest=self._raw.has_palette)
        else:
            values, masks = self._read(row, col, height, width)
        pixels, valid = self._raw.to_channels(values, masks)
        return Raster(pixels, valid, self.grid.crs, shifted(self.grid.transform, row, col))

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool validity of a window of `native_grid`."""
        return np.any(self._read(row, col, height, width)[1], axis=0)

    def thumbnail(self, longest: int) -> Raster:
        """The whole scene as RGB at its own grid, averaged down to at most `longest` pixels on its longer side."""
        grid = self.native_grid
        height, width = sample_shape(grid.height, grid.width, longest)
        window = Window(0, 0, grid.width, grid.height)
        pixels, valid = self._raw.to_channels(*self._raw.read(window, (height, width), Resampling.average))
        transform = shifted(grid.transform, 0, 0, grid.width / width, grid.height / height)
        return Raster(pixels[:3], valid, grid.crs, transform)

    def _read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, height, width) of a window of `native_grid`, and where there is data."""
        return self._raw.read(Window(col, row, width, height), (height, width))


@dataclass(frozen=True)
class Reading:
    """How a person or a model wants rasters read: the arguments of `Scene`, which says what they mean."""

    bands: tuple[int, ...] | None = None
    nodata: tuple[float, ...] | None = None
    num_channels: int = 3
    palette_as_image: bool = False
    resolution: float | None = None

    def open(self, path: str | os.PathLike[str]) -> Scene:
        """The raster at a path; raises as `Scene`."""
        return Scene(
            path,
            bands=self.bands,
            resolution=self.resolution,
            num_channels=self.num_channels,
            nodata=self.nodata,
            palette_as_image=self.palette_as_image,
        )


DEFAULT_READING = Reading()


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What tells a file from another one in its place; None for the folders and other names that GDAL opens."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def files_behind(path: str | os.PathLike[str]) -> list[str]:
    """A raster and the files that GDAL reads for it; it alone where GDAL cannot open it, which reading it says."""
    name = os.fspath(path)
    try:
        check_raster(name)
        source = _open(name, None)
    except InputError:
        return [name]
    with source:
        return [name, *files_of(source)]


def _open(path: str, driver: str | None) -> Any:
    """A rasterio dataset; raises `InputError` saying why there is none."""
    ignore_missing_georeference()
    try:
        source = rasterio.open(path, driver=driver)
    except GDAL_ERRORS as error:
        raise InputError(_why_unreadable(path)) from error
    try:
        _ = source.rpcs, source.colorinterp  # side files are parsed only now; the second tells of errors of the first
    except GDAL_ERRORS as error:
        source.close()
        raise InputError(f"a file beside {path} is damaged ({gdal_cause(error)}); repair it or move it away") from error
    if source.driver == "GTI":
        source.close()
        raise InputError(f"{path} is a tile index, whose tiles GDAL does not tell; map a VRT of them (gdalbuildvrt)")
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
    return f"{path} is not a raster that GDAL can read, or it is damaged; check it with gdalinfo"


def bounded_cache() -> rasterio.Env:
    """Context in which GDAL keeps at most 128 MB of blocks."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


def read_band(path: Path, window: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """Nearest values (*shape) of the first band of a file in a window (row, col, height, width), fractions allowed."""
    row, col, height, width = window
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        return source.read(1, window=Window(col, row, width, height), out_shape=shape)


def color_table(path: str | os.PathLike[str]) -> dict[int, tuple[int, int, int]] | None:
    """Red, green and blue of every value of the first band of a file; None where it has no color table."""
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        if source.colorinterp[0] != ColorInterp.palette:
            return None
        return {value: color[:3] for value, color in source.colormap(1).items()}
