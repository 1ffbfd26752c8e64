"""Reading rasters, for all readers of scenes.

A `Scene` reads windows of anything that GDAL opens as 8-bit RGB with a validity mask. Maps of a scene get its `Grid`:
georeferencing is copied, never recomputed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from ..errors import InputError
from .area import Area, PlacedArea
from .bands import choose_bands, palette_of
from .fill import Fill
from .gdal import GDAL_ERRORS, gdal_cause, ignore_missing_georeference, read_in_order
from .grid import Grid, sample_shape, shifted
from .imagery import check_imagery
from .notices import Notice, describe, find_notices
from .products import archive_remedy, raster_of
from .raw_bands import EmptyScene, RawBands, transparency_band
from .remote import INDIRECT_DRIVERS, RemoteRaster, fingerprint, is_url
from .resampling import read_resampled
from .scene_files import files_of
from .source_files import check_raster

_MOST_NAMED = 8  # subdatasets in a sentence
_CACHE_BYTES = 128 * 2**20  # GDAL's own default is 5 % of the machine's memory, whatever the raster


LONGEST_CRS_NAME = 40
"""Characters of a CRS in a summary; our choice: longer ones are whole definitions."""


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
    """A raster file opened for reading by windows, as 8-bit channels (mostly RGB) with a validity mask.

    Color bands are the requested ones; else the bands that are red, green and blue by name, code or wavelength; else by
    color interpretation; else the first three. With one or two color bands, the first is used as gray. For more than
    three channels, they are the requested bands or else the first ones. Palettes are expanded. Alpha is validity, not a
    color, unless it is requested or has so many values that it must be data. A pixel is valid if any chosen band has
    data (nodata value or mask), alpha is not 0 and, for floats, all bands are finite.
    Data other than 8-bit are stretched per band between the 2nd and 98th percentiles (our choice) of the pixels where
    that band has data. These are measured ONCE per scene on a decimated read, so windows have no seams. Undeclared fill
    is found there too (see `fill.find_fills`) and counts as no data. All 8-bit values are data.

    Args:
        path: Anything that GDAL opens.
        bands: Band numbers, counted from 1: one for each channel, or one for gray.
        resolution: Ground sampling distance in meters at which `read` resamples (bilinear, palettes nearest); None for
            the scene's own.
        num_channels: Channels of the model, 3 or more.
        driver: Name of the only GDAL driver that may open it; None for any.
        nodata: More values that mean no data: for 8-bit pixels if all chosen bands have them, else per band. None to
            find undeclared fill, () for no more.
        palette_as_image: Whether a palette with few values in flat regions is a picture anyway.
        area: What of the scene becomes a map; None for all of it. It changes no pixel that is read.
        remote: Whether the path may be a URL (https, http, s3, gs, az), or a VRT of such.

    Attributes:
        bands: Numbers of the chosen bands.
        data_bands: Number of bands of the file without transparency.
        stamps: For each file that GDAL reads for the scene, also a VRT's sources: size in bytes, time of change in
            nanoseconds and inode when opened; None for names that are not files.

    Raises:
        InputError: The file cannot be read, has too many pixels (`grid.MOST_PIXELS`), complex numbers or the wrong
            bands, is a pipe or an unsafe VRT (`source_files.check_raster`), or is a map of classes or our own result
            (`imagery.check_imagery`). Or the resolution is unsuitable, or no band can have a no-data value.
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
        area: Area | None = None,
        remote: bool = False,
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
        self.area = area
        self.is_resampled = resolution is not None
        self._bands_were_named = bands is not None
        self.remote = remote
        check_raster(self.path, remote=remote)
        before = _stamp(self.path)  # the other files are known and read only once this one is open
        source = _open(self.path, driver, remote=remote)
        try:
            if is_url(self.path):
                self.stamps = {self.path: fingerprint(source)}
            else:
                self.stamps = {path: _stamp(path) for path in files_of(source)} | {
                    self.path: before
                }
            self.native_grid = Grid.of(source)
            self.native_grid.check_size(self.path)
            alpha = transparency_band(source)
            self.bands = choose_bands(source, bands, num_channels, alpha)
            self.data_bands = source.count - (alpha is not None)
            palette = palette_of(source, self.bands)
            check_imagery(
                source,
                self.bands,
                has_palette=palette is not None,
                palette_as_image=palette_as_image,
            )
            self._raw = RawBands(source, self.bands, palette, alpha, self.nodata)
            if resolution is None:
                self.grid = self.native_grid
            else:
                self.grid = self.native_grid.rescaled(resolution)
            self._check_area()
            self._source = source
        except BaseException:
            source.close()
            raise

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._source.close()

    def reopened(self) -> "Scene":
        """The same scene, opened again and read in the same way; raises `InputError` as opening does."""
        return self.reading.open(self.path, driver=self._driver)

    @property
    def reading(self) -> "Reading":
        """How it is read."""
        return Reading(
            tuple(self.bands),
            self.nodata,
            self.num_channels,
            self.palette_as_image,
            self.resolution,
            self.area,
            self.remote,
        )

    @property
    def asked(self) -> "Reading":
        """How it is read, without bands that nobody named."""
        if self._bands_were_named:
            return self.reading
        return replace(self.reading, bands=None)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the file."""
        return dict(self._source.tags())

    def check_unchanged(self) -> None:
        """Raises `InputError` if a file of the scene was replaced or changed since it was opened; not behind a URL."""
        if is_url(self.path):
            return
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                raise InputError(
                    f"{path} changed or vanished while it was read; run again once it is complete"
                )

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the file per pixel of `grid`, down and across; 1 unless resampled."""
        own, other = self.native_grid.transform, self.grid.transform
        return (
            float(np.hypot(other.b, other.e) / np.hypot(own.b, own.e)),
            float(np.hypot(other.a, other.d) / np.hypot(own.a, own.d)),
        )

    def summary(self) -> str:
        """One line: size, bands and their use, type, limits of the stretch, origin of the validity, location."""
        grid = self.native_grid
        if grid.rpcs:
            place = "georeferenced by RPCs"
        elif grid.gcps:
            place = "ground control points"
        elif grid.crs:
            place = grid.crs.to_string()
            if len(place) > LONGEST_CRS_NAME:
                place = "custom CRS"
        elif grid.has_place_of(self._source):
            place = "no CRS"
        else:
            place = "an impossible georeference, which is ignored"
        size = grid.pixel_size()
        if size:
            meters = f", {size[0]:.3g} m per pixel"
        else:
            meters = ""
        return f"{grid.width} x {grid.height} px, {self.reading_in_words()}, {place}{meters}"

    def reading_in_words(self) -> str:
        """Bands and their use, type, limits of the stretch and origin of the validity."""
        return describe(self._raw, self._source)

    def notices(self) -> list[Notice]:
        """Notices for a person before the map is made; reads a sample of the whole scene."""
        return find_notices(self._raw, self._source, bands_were_named=self._bands_were_named)

    def check_has_data(self) -> None:
        """Raises `EmptyScene` if no pixel has data; reads a sample of the whole scene."""
        if not self._raw.measured.has_data:
            raise EmptyScene(
                f"{self.path} has no pixel with data; check its nodata value, mask or alpha band"
            )

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Undeclared values that mean, or may mean, no data; reads a sample of the whole scene."""
        return self._raw.fills

    def read(self, row: int, col: int, height: int, width: int) -> Raster:
        """The window that starts at (row, col) of `grid` and lies inside it; `InputError` for damaged data."""
        if self.is_resampled:
            size, window = (
                (self.native_grid.height, self.native_grid.width),
                (row, col, height, width),
            )
            values, masks = read_resampled(
                self._read, size, self.scale, window, nearest=self._raw.has_palette
            )
        else:
            values, masks = self._read(row, col, height, width)
        pixels, valid = self._raw.to_channels(values, masks)
        return Raster(pixels, valid, self.grid.crs, shifted(self.grid.transform, row, col))

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool, which pixels of a window of `native_grid` have data."""
        return np.any(self._read(row, col, height, width)[1], axis=0)

    @cached_property
    def placed_area(self) -> PlacedArea | None:
        """The area on `grid`; None for the whole scene."""
        if self.area is None:
            return None
        return PlacedArea(self.area, self.grid, self.path)

    @cached_property
    def native_area(self) -> PlacedArea | None:
        """The area on `native_grid`; None for the whole scene."""
        if self.area is None or not self.is_resampled:
            return self.placed_area
        return PlacedArea(self.area, self.native_grid, self.path)

    def _check_area(self) -> None:
        """Raises `EmptyScene` if the area does not touch the scene."""
        if self.area is not None and self.native_area is not None and self.native_area.is_empty:
            raise EmptyScene(
                f"{self.path} does not touch the {self.area.name}; check the area and its CRS"
            )

    def thumbnail(self, longest: int) -> Raster:
        """The whole scene as RGB at its own grid, averaged down to at most `longest` pixels on its longer side."""
        grid = self.native_grid
        height, width = sample_shape(grid.height, grid.width, longest)
        window = Window(0, 0, grid.width, grid.height)
        pixels, valid = self._raw.to_channels(
            *self._raw.read(window, (height, width), Resampling.average)
        )
        transform = shifted(grid.transform, 0, 0, grid.width / width, grid.height / height)
        return Raster(pixels[:3], valid, grid.crs, transform)

    def _read(self, row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, height, width) of a window of `native_grid`, and where there is data."""
        return self._raw.read(Window(col, row, width, height), (height, width))


@dataclass(frozen=True)
class Reading:
    """How rasters are read: arguments of `Scene`, which explains them."""

    bands: tuple[int, ...] | None = None
    nodata: tuple[float, ...] | None = None
    num_channels: int = 3
    palette_as_image: bool = False
    resolution: float | None = None
    area: Area | None = None
    remote: bool = False

    def open(self, path: str | os.PathLike[str], *, driver: str | None = None) -> Scene:
        """The raster at a path, opened by any GDAL driver or by this one; raises as `Scene`."""
        return Scene(
            path,
            bands=self.bands,
            resolution=self.resolution,
            num_channels=self.num_channels,
            driver=driver,
            nodata=self.nodata,
            palette_as_image=self.palette_as_image,
            area=self.area,
            remote=self.remote,
        )


DEFAULT_READING = Reading()


def _stamp(path: str) -> tuple[int, int, int] | None:
    """Identifies a version of a file; None for folders and other names that GDAL opens."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def files_behind(path: str | os.PathLike[str]) -> list[str]:
    """A raster and the files that GDAL reads for it; only the raster if GDAL cannot open it."""
    name = os.fspath(path)
    try:
        check_raster(name)
        source = _open(name, None, remote=False)
    except InputError:
        return [name]
    with source:
        return [name, *files_of(source)]


def _open(path: str, driver: str | None, *, remote: bool) -> Any:
    """A rasterio dataset; `InputError` with the reason if it cannot be opened."""
    ignore_missing_georeference()
    read_in_order()
    if is_url(path):
        source: Any = RemoteRaster(path, driver)
    else:
        try:
            source = rasterio.open(raster_of(path), driver=driver)
        except GDAL_ERRORS as error:
            raise InputError(_why_unreadable(path)) from error
    if source.driver in INDIRECT_DRIVERS and not remote:
        source.close()
        raise InputError(
            f"{path} gets its pixels from the network; add --remote to allow network access"
        )
    try:
        _ = (
            source.rpcs,
            source.colorinterp,
        )  # parses side files; the second access raises errors of the first
    except GDAL_ERRORS as error:
        source.close()
        raise InputError(
            f"a file beside {path} is damaged ({gdal_cause(error)}); repair it or move it away"
        ) from error
    if source.driver == "GTI":
        source.close()
        raise InputError(
            f"{path} is a tile index, and GDAL does not list its tiles; map a VRT of them (gdalbuildvrt)"
        )
    if source.count == 0:
        parts = ", ".join(source.subdatasets[:_MOST_NAMED]) or "see gdalinfo"
        source.close()
        raise InputError(
            f"{path} is a container without its own bands; name one of its subdatasets ({parts})"
        )
    return source


def _why_unreadable(path: str) -> str:
    """One sentence about a path that GDAL cannot open."""
    if os.path.isdir(path):
        return f"{path} is a folder; name the raster file in it"
    if not os.path.exists(path):
        return f"{path} does not exist; check the path of the scene"
    archive = archive_remedy(path)
    if archive is not None:
        return archive
    if not os.access(path, os.R_OK):
        return f"{path} is not readable; check its permissions"
    if os.path.getsize(path) == 0:
        return f"{path} is empty (0 bytes); copy the raster again"
    return f"{path} is damaged or is not a raster that GDAL can read; check it with gdalinfo"


def bounded_cache() -> rasterio.Env:
    """Context in which GDAL keeps at most 128 MB of blocks."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


def read_band(
    path: Path, window: tuple[float, float, float, float], shape: tuple[int, int]
) -> np.ndarray:
    """Nearest values (*shape) of a file's first band in a window (row, col, height, width), which may be fractions."""
    row, col, height, width = window
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        return source.read(1, window=Window(col, row, width, height), out_shape=shape)


def read_bands(path: Path, window: tuple[int, int, int, int]) -> np.ndarray:
    """All bands of a file as they are, transparency too, in a window (row, col, height, width), as (bands, H, W)."""
    row, col, height, width = window
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        return source.read(window=Window(col, row, width, height))


def color_table(path: str | os.PathLike[str]) -> dict[int, tuple[int, int, int]] | None:
    """Red, green and blue of each value of a file's first band; None if it has no color table."""
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        if source.colorinterp[0] != ColorInterp.palette:
            return None
        return {value: color[:3] for value, color in source.colormap(1).items()}
