"""Values and validity of a raster's bands: declared by the file, given by a person, or found in the scene."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags, Resampling
from rasterio.windows import Window
from scipy import ndimage

from ..errors import InputError
from .bands import alpha_band
from .fill import Collar, Fill, Plateau, find_collars, find_fills, find_plateau, is_transparency
from .gdal import read_errors
from .grid import sample_shape
from .writing import TILE

_STRETCH_PERCENTILES = (2.0, 98.0)
_STRIP_WIDTH = 65_536
_MOST_STRIPS = 4_096  # searched for data if a decimated read finds none; our choice, like the next
_MOST_SEARCHED = 2**28  # pixels


class EmptyScene(InputError):
    """The scene has no pixel with data."""


@dataclass(frozen=True)
class Measured:
    """Measurements on a sample of a whole scene.

    Attributes:
        has_data: Whether any pixel has data.
        fills: Undeclared values that mean, or may mean, no data.
        collars: Constant regions at the border.
        plateau: A value of all bands in flat regions that may mean no data, or None.
        low, high: (bands,) float64 values that become 0 and 255.
    """

    has_data: bool
    fills: tuple[Fill, ...]
    collars: tuple[Collar, ...]
    plateau: Plateau | None
    low: np.ndarray
    high: np.ndarray


class RawBands:
    """Bands of an open rasterio dataset, each with a mask.

    Args:
        source: The dataset.
        bands: Numbers of the bands, counted from 1.
        palette: (65536, 4) colors of the only band, or None.
        alpha: Number of the transparency band, or None.
        nodata: More values that mean no data; None to search for them.

    Raises:
        InputError: No band can have one of the values in `nodata`.
    """

    def __init__(
        self,
        source: Any,
        bands: Sequence[int],
        palette: np.ndarray | None,
        alpha: int | None,
        nodata: Sequence[float] | None,
    ) -> None:
        self._source, self.bands, self._palette, self.nodata = source, list(bands), palette, nodata
        self.has_palette = palette is not None
        if alpha in self.bands:
            self.alpha = None
        else:
            self.alpha = alpha
        self.dtypes = [source.dtypes[band - 1] for band in self.bands]
        self.is_byte = palette is not None or set(self.dtypes) == {"uint8"}
        for value in nodata or ():
            if not any(_can_hold(dtype, value) for dtype in self.dtypes):
                raise InputError(
                    f"no-data value {value:g} does not fit {source.name}, whose bands are {self.dtypes[0]}; give a "
                    "value that the file can have, or 'none'"
                )

    def read(
        self, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (bands, *shape) of a window, and where each band has data: (bands, *shape) bool.

        Raises:
            InputError: The data are damaged.
        """
        fills = self.certain_fills
        if fills:
            resampling = Resampling.nearest
        values, masks = self._read_declared(window, shape, resampling)
        masks &= ~_filled(values, fills)
        # 8-bit bands share their validity: black in one band only is a color.
        return values, np.broadcast_to(masks.any(axis=0), masks.shape) if self.is_byte else masks

    def to_channels(self, values: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The result of `read` as (C, H, W) uint8 and (H, W) bool, with the scene's stretch."""
        valid = np.any(masks, axis=0)
        if self._palette is not None:
            colors = self._palette[values[0]]  # (H, W, 4)
            return np.ascontiguousarray(colors[..., :3].transpose(2, 0, 1)), valid
        if not self.is_byte:
            values = self._stretched(values)
        return np.broadcast_to(values, (3, *valid.shape)) if len(values) == 1 else values, valid

    @cached_property
    def measured(self) -> Measured:
        """Measured on a decimated read of the whole scene, or on the first pixels with data if that has none."""
        fills: list[Fill] = []
        for window, size in chain([self._whole()], self._strips()):
            values, masks = self._read_declared(window, size)
            if self.looks_for_fill:
                fills += [fill for fill in self._find(values, masks) if not _knows(fills, fill)]
            filled = _filled(values, [fill for fill in fills if fill.certain])
            masks &= ~filled
            valid = np.any(masks, axis=0)
            if valid.any():
                break
        collars, plateau = (
            ([], None)
            if self._palette is not None
            else (find_collars(values, valid), find_plateau(values, valid))
        )
        if (
            filled.any()
            and size != (window.height, window.width)
            and self._source.overviews(self.bands[0])
        ):
            # Averaged overviews mix fill and data.
            near = np.stack([ndimage.binary_dilation(band, np.ones((3, 3))) for band in filled])
            masks &= ~near
        chosen = [mask if mask.any() else valid if valid.any() else ~valid for mask in masks]
        data = [band[mask].astype(np.float64) for band, mask in zip(values, chosen, strict=True)]
        limits = np.transpose([np.percentile(band, _STRETCH_PERCENTILES) for band in data])
        low, high = np.nan_to_num(limits)  # NaN if all values are NaN
        high = np.where(high > low, high, low + 1)
        return Measured(bool(valid.any()), tuple(fills), tuple(collars), plateau, low, high)

    @property
    def has_transparent_colors(self) -> bool:
        """Whether some colors of the palette are transparent."""
        if self._palette is None:
            return False
        colors = self._source.colormap(self.bands[0]).values()
        return any(color[3] == 0 for color in colors)

    @property
    def looks_for_fill(self) -> bool:
        """Whether to search for undeclared fill."""
        return self.nodata is None and not self.is_byte

    @property
    def fills(self) -> tuple[Fill, ...]:
        """Undeclared values that mean, or may mean, no data."""
        if self.looks_for_fill:
            return self.measured.fills
        return ()

    @property
    def certain_fills(self) -> list[Fill]:
        """The fills that are treated as no data."""
        return [fill for fill in self.fills if fill.certain]

    def _find(self, values: np.ndarray, masks: np.ndarray) -> list[Fill]:
        """Undeclared fills of a sample; 8-bit bands have none."""
        return [fill for fill in find_fills(values, masks) if self.dtypes[fill.band] != "uint8"]

    def _read_declared(
        self, window: Window, shape: tuple[int, int], resampling: Resampling = Resampling.nearest
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, but only with the validity that the file and the person declare."""
        source = self._source
        if self._palette is not None:
            resampling = Resampling.nearest
        with read_errors(source.name):
            # Band by band, because their types may differ.
            values = np.stack(
                [
                    source.read(band, window=window, out_shape=shape, resampling=resampling)
                    for band in self.bands
                ]
            )
            masks = np.stack([self._mask(band, window, shape) for band in self.bands])
            if self.alpha is not None:
                masks &= source.read(self.alpha, window=window, out_shape=shape) > 0
        if np.issubdtype(values.dtype, np.floating):
            masks &= np.isfinite(values).all(axis=0)
        if self._palette is not None:
            masks &= self._palette[values[0], 3] > 0
        for value in self.nodata or ():
            same = np.stack(
                [
                    _equal(band, value, dtype)
                    for band, dtype in zip(values, self.dtypes, strict=True)
                ]
            )
            # black in one band only is a color
            masks &= ~(same.all(axis=0) if self.is_byte else same)
        return values, masks

    def _mask(self, band: int, window: Window, shape: tuple[int, int]) -> np.ndarray:
        """(*shape) bool, where a band has data according to the file, without transparency, which is read "
        "separately."""
        if MaskFlags.alpha in self._source.mask_flag_enums[band - 1]:
            return np.ones(shape, dtype=bool)
        return np.asarray(self._source.read_masks(band, window=window, out_shape=shape) > 0)

    def _stretched(self, values: np.ndarray) -> np.ndarray:
        """(bands, H, W) of any real type -> uint8."""
        low, high = (limit[:, None, None] for limit in (self.measured.low, self.measured.high))
        scaled = np.nan_to_num(values.astype(np.float64), copy=False, posinf=0, neginf=0)
        scaled -= low
        scaled /= high - low
        np.clip(scaled, 0, 1, out=scaled)
        scaled *= 255
        return np.rint(scaled, out=scaled).astype(np.uint8)

    def _whole(self) -> tuple[Window, tuple[int, int]]:
        """The whole file, and the size of a sample of it."""
        height, width = self._source.height, self._source.width
        return Window(0, 0, width, height), sample_shape(height, width)

    def _strips(self) -> Iterator[tuple[Window, tuple[int, int]]]:
        """Windows of the file from top to bottom, and their sizes; raises `EmptyScene` after too many.

        They find small regions of data that decimation missed.
        """
        source, searched = self._source, 0
        corners = product(range(0, source.height, TILE), range(0, source.width, _STRIP_WIDTH))
        for number, (row, col) in enumerate(corners):
            if number >= _MOST_STRIPS or searched >= _MOST_SEARCHED:
                raise EmptyScene(
                    f"{source.name} has no pixel with data in a sample of the whole and in the first "
                    f"{searched:,}; check its nodata value, mask or alpha band, or cut it to where it has data"
                )
            height, width = min(TILE, source.height - row), min(_STRIP_WIDTH, source.width - col)
            searched += height * width
            yield Window(col, row, width, height), (height, width)


def transparency_band(source: Any) -> int | None:
    """Number of the band that is marked as alpha and has transparency; None if it has data or is missing."""
    alpha = alpha_band(source)
    if alpha is None:
        return None
    with read_errors(source.name):
        sample = source.read(alpha, out_shape=sample_shape(source.height, source.width))
    if is_transparency(sample):
        return alpha
    return None


def _filled(values: np.ndarray, fills: Sequence[Fill]) -> np.ndarray:
    """(bands, H, W) bool, where bands have their fill."""
    filled = np.zeros(values.shape, dtype=bool)
    for fill in fills:
        filled[fill.band] |= values[fill.band] == fill.value
    return filled


def _knows(fills: Sequence[Fill], fill: Fill) -> bool:
    return any((known.band, known.value) == (fill.band, fill.value) for known in fills)


def _can_hold(dtype: str, value: float) -> bool:
    """Whether a band of this type can have a value."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    limits = np.iinfo(kind)
    return value == np.rint(value) and limits.min <= value <= limits.max


def _equal(values: np.ndarray, value: float, dtype: str) -> np.ndarray:
    """Where values equal a number; floats, as a person writes them, to the first five digits."""
    if np.dtype(dtype).kind == "f":
        return np.isclose(values, value, rtol=1e-5, atol=0)
    return values == value
