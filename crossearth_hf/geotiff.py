"""Rasters in, Cloud-Optimised GeoTIFF out: with `grid`, the only user of rasterio.

A `Scene` reads windows of anything GDAL opens as 8-bit RGB with a validity mask; its `Grid` travels on to the maps
made from it. Georeferencing is copied, never recomputed.
"""

import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from .errors import InputError
from .grid import GDAL_ERRORS, Grid, shifted
from .labels import IGNORE_INDEX, LabelSet
from .outputs import check_output, staged

TILE = 256
"""Side in pixels of the tiles of working files; blocks written at its multiples are compressed once."""

_CACHE_BYTES = 128 * 2**20  # GDAL's own default is 5 % of the machine's memory, whatever the raster
_STRETCH_SIDE = 1024
_STRETCH_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True)
class Raster:
    """A piece of a scene.

    Attributes:
        pixels: (3, H, W) uint8 RGB.
        valid: (H, W) bool, False where the scene has no data.
        crs: Coordinate reference system, or None.
        transform: From (column, row) of this piece to CRS coordinates.
    """

    pixels: np.ndarray
    valid: np.ndarray
    crs: CRS | None
    transform: Affine


class Scene:
    """A raster file opened for reading by windows, as 8-bit RGB with a validity mask.

    Colour bands: those asked for; else the ones marked red, green and blue; else the first three; with one or two
    colour bands the first is used as grey. Palettes are expanded; alpha is validity, not a colour. A pixel is valid
    where any chosen band has data (nodata value or mask), alpha is not 0, and, for floats, all bands are finite.
    Data other than 8-bit are stretched per band between their 2nd and 98th percentiles (our choice), measured ONCE
    per scene on a decimated read, so windows have no seams.

    Args:
        path: Anything that GDAL opens.
        bands: One or three band numbers, counted from 1.
        resolution: Ground sampling distance in metres at which `read` resamples (bilinear, palettes nearest); the
            scene's own where None. `native` stays the scene at its own grid.

    Raises:
        InputError: for a file that cannot be read, complex numbers, wrong bands, an unsuitable resolution.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, bands: Sequence[int] | None = None, resolution: float | None = None
    ) -> None:
        self.path = os.fspath(path)
        source = _open(self.path)
        try:
            self.bands = _choose_bands(source, bands)
            self._palette = _palette(source, self.bands)
            self.native_grid = Grid.of(source)
            self.grid = self.native_grid if resolution is None else self.native_grid.rescaled(resolution)
            self._source = source
            self._data = source if resolution is None else _resampled(source, self.grid, self._palette is not None)
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
        colours = "RGB" if len(self.bands) == 3 or self._palette is not None else "grey"
        dtype = source.dtypes[self.bands[0] - 1]
        stretch = "" if self._is_byte else ", stretched between percentiles 2 and 98"
        place = "ground control points" if grid.gcps else grid.crs.to_string() if grid.crs else "no CRS"
        place = place if len(place) <= 40 else "custom CRS"
        size = grid.pixel_size()
        metres = f", {size[0]:.3g} m per pixel" if size else ""
        return f"{grid.width} x {grid.height} px, {bands} as {colours}, {dtype}{stretch}, {place}{metres}"

    def read(self, row: int, col: int, height: int, width: int) -> Raster:
        """The window that starts at (row, col) of `grid` and lies inside it. Raises `InputError` on damaged data."""
        window = Window(col, row, width, height)
        pixels, valid = self._read_rgb(self._data, window, (height, width))
        return Raster(pixels, valid, self.grid.crs, shifted(self.grid.transform, row, col))

    def read_valid(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) bool validity of a window of `native_grid`."""
        return self._read_values(self._source, Window(col, row, width, height), (height, width))[1]

    def thumbnail(self, longest: int) -> Raster:
        """The whole scene at its own grid, averaged down to at most `longest` pixels on its longer side."""
        grid = self.native_grid
        factor = max(1.0, max(grid.width, grid.height) / longest)
        height, width = (max(1, round(n / factor)) for n in (grid.height, grid.width))
        window = Window(0, 0, grid.width, grid.height)
        pixels, valid = self._read_rgb(self._source, window, (height, width), Resampling.average)
        transform = shifted(grid.transform, 0, 0, grid.width / width, grid.height / height)
        return Raster(pixels, valid, grid.crs, transform)

    @property
    def _is_byte(self) -> bool:
        return self._palette is not None or all(self._source.dtypes[band - 1] == "uint8" for band in self.bands)

    def _read_rgb(
        self, data: Any, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """(3, *shape) uint8 and (*shape) bool of a window."""
        values, valid = self._read_values(data, window, shape, resampling)
        if self._palette is not None:
            colours = self._palette[values[0]]  # (H, W, 4)
            return np.ascontiguousarray(colours[..., :3].transpose(2, 0, 1)), valid
        if not self._is_byte:
            values = self._stretched(values)
        return np.broadcast_to(values, (3, *shape)) if len(values) == 1 else values, valid

    def _read_values(
        self, data: Any, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raw values (bands, *shape) and validity (*shape) of a window."""
        if self._palette is not None:
            resampling = Resampling.nearest
        try:
            # Band by band: they may differ in type.
            values = np.stack(
                [data.read(band, window=window, out_shape=shape, resampling=resampling) for band in self.bands]
            )
            valid = data.read_masks(self.bands, window=window, out_shape=values.shape).any(axis=0)
            if ColorInterp.alpha in data.colorinterp:
                alpha = data.colorinterp.index(ColorInterp.alpha) + 1
                valid &= data.read(alpha, window=window, out_shape=shape) > 0
        except GDAL_ERRORS as error:
            raise InputError(f"{self.path} is damaged or cut off ({_cause(error)}); copy it again") from error
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values).all(axis=0)
        if self._palette is not None:
            valid &= self._palette[values[0], 3] > 0
        return values, valid

    def _stretched(self, values: np.ndarray) -> np.ndarray:
        """(bands, H, W) of any real type -> uint8, by the one stretch of the scene."""
        if self._stretch is None:
            low, high = np.percentile(self._sample(), _STRETCH_PERCENTILES, axis=1)
            self._stretch = low, np.where(high > low, high, low + 1)
        low, high = (limit[:, None, None] for limit in self._stretch)
        scaled = (np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0) - low) / (high - low)
        return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)

    def _sample(self) -> np.ndarray:
        """(bands, N) valid values spread over the whole scene."""
        source = self._source
        factor = max(1.0, max(source.width, source.height) / _STRETCH_SIDE)
        shape = (max(1, round(source.height / factor)), max(1, round(source.width / factor)))
        values, valid = self._read_values(source, Window(0, 0, source.width, source.height), shape)
        if valid.any():
            return values[:, valid].astype(np.float64)
        for row in range(0, source.height, TILE):  # specks of data that decimation missed
            height = min(TILE, source.height - row)
            values, valid = self._read_values(source, Window(0, row, source.width, height), (height, source.width))
            if valid.any():
                return values[:, valid].astype(np.float64)
        return np.zeros((len(self.bands), 1))


def _open(path: str) -> Any:
    """A rasterio dataset; raises `InputError` saying why there is none."""
    try:
        with _quiet():
            source = rasterio.open(path)
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


def _choose_bands(source: Any, bands: Sequence[int] | None) -> list[int]:
    """Band numbers to read, as the docstring of `Scene` says."""
    colours = [band for band, role in enumerate(source.colorinterp, 1) if role != ColorInterp.alpha]
    if bands is not None:
        chosen = list(bands)
        if len(chosen) not in (1, 3) or not all(1 <= band <= source.count for band in chosen):
            raise InputError(
                f"bands {','.join(map(str, chosen))} do not fit {source.name}; "
                f"give one or three numbers from 1 to {source.count}, such as {'1,2,3' if source.count > 2 else '1'}"
            )
    elif not colours:
        raise InputError(f"{source.name} holds transparency only; give a raster with at least one colour band")
    else:
        marked = [role for role in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) if role in source.colorinterp]
        if len(marked) == 3:
            chosen = [source.colorinterp.index(role) + 1 for role in marked]
        else:
            chosen = colours[:3] if len(colours) >= 3 else colours[:1]
    for band in chosen:
        if source.dtypes[band - 1].startswith("complex"):  # "complex_int16" is no type of numpy's
            raise InputError(f"band {band} of {source.name} holds complex numbers; convert it to amplitudes first")
    return chosen


def _palette(source: Any, bands: list[int]) -> np.ndarray | None:
    """(65536, 4) uint8 RGBA of a single palette band, else None."""
    if len(bands) > 1 or source.colorinterp[bands[0] - 1] != ColorInterp.palette:
        return None
    palette = np.zeros((65536, 4), dtype=np.uint8)
    for value, colour in source.colormap(bands[0]).items():
        palette[value] = colour
    return palette


def _resampled(source: Any, grid: Grid, is_palette: bool) -> WarpedVRT:
    """The source resampled on the fly to `grid`, which has the same CRS; validity becomes an alpha band."""
    nodata = source.nodata
    if nodata is None and np.issubdtype(np.dtype(source.dtypes[0]), np.floating):
        nodata = float("nan")
    return WarpedVRT(
        source,
        crs=source.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.nearest if is_palette else Resampling.bilinear,
        src_nodata=nodata,
        add_alpha=ColorInterp.alpha not in source.colorinterp,
    )


def bounded_cache() -> rasterio.Env:
    """Context in which GDAL keeps at most 128 MB of blocks."""
    return rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES)


class BlockFile:
    """A single band written block by block to a working GeoTIFF, closed, and copied to a Cloud-Optimised one.

    Args:
        path: Working file.
        grid: Size and georeference.
        dtype: Type of the values.
        nodata: Value without data.
        label_set: Makes the band categorical: colour table, class names, overviews of the most frequent class.
            Otherwise overviews are averages.

    Raises:
        InputError: from here and all methods, where the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, grid: Grid, *, dtype: str, nodata: float, label_set: LabelSet | None = None) -> None:
        self.path, self._categorical = path, label_set is not None
        self._checksums: list[tuple[Window, int]] = []
        with _write_errors(path):
            self._target = _create(path, grid, dtype, count=1, nodata=nodata, label_set=label_set)

    def write(self, row: int, col: int, values: np.ndarray) -> None:
        """Writes (H, W) values at (row, col)."""
        window = Window(col, row, values.shape[1], values.shape[0])
        with _write_errors(self.path):
            self._target.write(values, 1, window=window)
        self._checksums.append((window, zlib.crc32(np.ascontiguousarray(values).data)))

    def __enter__(self) -> "BlockFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _write_errors(self.path):
            self._target.close()
            if kind is None:
                _check_written(self.path, self._checksums)

    def copy_to_cog(self, target: Path) -> None:
        """Copies the closed file to a Cloud-Optimised GeoTIFF with overviews."""
        with _write_errors(target):
            rasterio.shutil.copy(
                self.path,
                target,
                driver="COG",
                compress="DEFLATE",
                predictor="STANDARD" if self._categorical else "FLOATING_POINT",
                blocksize=512,
                overview_resampling="MODE" if self._categorical else "AVERAGE",
                bigtiff="IF_SAFER",
            )
            _check_written(target, self._checksums)


def read_band(path: Path, window: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
    """Nearest values (*shape) of the first band of a file in a window (row, col, height, width), fractions allowed."""
    row, col, height, width = window
    with _quiet(), rasterio.open(path) as source:
        return source.read(1, window=Window(col, row, width, height), out_shape=shape)


def write_geotiff(
    path: str | os.PathLike[str],
    pixels: np.ndarray,
    *,
    crs: Any,
    transform: Affine,
    nodata: float | None = None,
    label_set: LabelSet | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an array as a tiled, compressed GeoTIFF.

    Args:
        path: Ends in .tif or .tiff.
        pixels: (C, H, W) of any type that GeoTIFF knows.
        crs: Anything that rasterio takes as a CRS, or None.
        transform: From (column, row) to CRS coordinates.
        nodata: Value of pixels without data.
        label_set: Adds class names and, with C = 1 and uint8, the colour table.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InputError: for a path that may not be written, a full disk.
    """
    target = check_output(path, (".tif", ".tiff"), overwrite=overwrite)
    count, height, width = pixels.shape
    grid = Grid(width, height, None if crs is None else CRS.from_user_input(crs), transform)
    with staged([target]) as (stage,), _write_errors(target):
        with _create(stage, grid, str(pixels.dtype), count=count, nodata=nodata, label_set=label_set) as dataset:
            dataset.write(pixels)
        _check_written(stage, [(Window(0, 0, width, height), zlib.crc32(np.ascontiguousarray(pixels).data))])


def _create(path: Path, grid: Grid, dtype: str, *, count: int, nodata: float | None, label_set: LabelSet | None) -> Any:
    """A new tiled GeoTIFF, open for writing; classes get their names and colours, 255 is transparent."""
    with _quiet():
        dataset = rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=count,
            dtype=dtype,
            nodata=nodata,
            tiled=True,
            blockxsize=TILE,
            blockysize=TILE,
            compress="deflate",
            bigtiff="if_safer",
            **grid.georeference(),
        )
    if label_set is not None:
        dataset.write_colormap(1, {**dict(enumerate(label_set.colors)), IGNORE_INDEX: (0, 0, 0, 0)})
        dataset.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(label_set.classes)})
        dataset.set_band_description(1, "class")
    return dataset


def _check_written(path: Path, checksums: list[tuple[Window, int]]) -> None:
    """Reads a file again: GDAL does not report what fails while a file is closed."""
    with _quiet(), rasterio.open(path) as dataset:
        for window, checksum in checksums:
            if zlib.crc32(np.ascontiguousarray(dataset.read(window=window)).data) != checksum:
                raise RasterioIOError("what was written cannot be read again")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences rasterio's warning about rasters without a georeference, which are welcome here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turns GDAL's errors on writing `path` into `InputError`."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise InputError(
            f"{path.name} cannot be written ({_cause(error)}), nothing was changed; free space or choose another folder"
        ) from error


def _cause(error: BaseException) -> str:
    """GDAL's own words, at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
