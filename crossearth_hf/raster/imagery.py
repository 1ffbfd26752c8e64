"""Rasters that are not imagery: maps of this package, maps of classes."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from ..errors import InputError
from .fill import MOST_CLASSES, count_flat_classes
from .gdal import GDAL_ERRORS, ignore_missing_georeference, read_errors
from .grid import sample_shape
from .writing import OUTPUT_TAG

ReadWindow = Callable[[Window, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""`read(window, shape)`: values (*shape) of a band in a window of a file, and their validity."""

_WINDOW = 256


class OwnOutput(InputError):
    """The raster is a map of this package or one of its other files."""


class ClassMap(InputError):
    """The raster is a map of classes by its color table.

    Attributes:
        without_flag: The sentence without the command line's flag.
    """

    def __init__(self, finding: str) -> None:
        remedy = "write its colors out (gdal_translate -expand rgb)"
        super().__init__(f"{finding}; if it is a picture, add --palette-as-image or {remedy}")
        self.without_flag = f"{finding}; if it is a picture, {remedy}"


def check_imagery(
    source: Any, bands: list[int], *, has_palette: bool, palette_as_image: bool
) -> None:
    """Refuses rasters of classes or scores.

    Args:
        source: An open rasterio dataset.
        bands: Numbers of the bands to read.
        has_palette: Whether the only band has a palette.
        palette_as_image: Whether a palette is always a picture.

    Raises:
        OwnOutput: The raster is a result of this package.
        ClassMap: The raster has a palette with few values in flat regions.
    """
    if palette_as_image and has_palette:
        return
    output = own_output(source)
    if output is not None:
        raise OwnOutput(f"{source.name} holds {output} of this package, not imagery")
    read = partial(_piece, source, bands[0])
    if has_palette:
        classes = flat_classes(read, source.height, source.width)
    else:
        classes = None
    if classes is not None:
        raise ClassMap(
            f"{source.name} uses {classes} colors of its color table in flat regions, like a map of classes"
        )


def own_output(source: Any) -> str | None:
    """What a raster is if this package, or an older version, has written it; None for all others."""
    names = {
        "labels": "a map",
        "confidence": "confidences",
        "probabilities": "probabilities",
        "preview": "a preview",
    }
    tagged = names.get(source.tags().get(OUTPUT_TAG, ""))
    if tagged is not None:
        return tagged
    if source.descriptions == ("class",) and "CLASS_0" in source.tags(1):
        return names["labels"]
    is_share = set(source.dtypes) == {"float32"} and str(source.nodata) == "nan"
    if is_share and source.descriptions == ("confidence",):
        return names["confidence"]
    return None


def is_own_output(path: str) -> bool:
    """Whether a file is a result of this package; files that cannot be opened are not."""
    ignore_missing_georeference()
    try:
        with rasterio.open(path) as source:
            return own_output(source) is not None
    except GDAL_ERRORS:
        return False


def flat_classes(read: ReadWindow, height: int, width: int, fewest: int = 2) -> int | None:
    """Number of classes that a band probably has, at least `fewest`; None for imagery. See "
    "`fill.count_flat_classes`."""
    values, valid = read(*next(_windows(height, width)))
    # nearly all pictures return here, without a sample of the whole
    if len(np.unique(values[valid])) > MOST_CLASSES:
        return None
    shape = sample_shape(height, width)
    sample = read(Window(0, 0, width, height), shape)
    if shape == (height, width):
        pieces = iter([sample])
    else:
        # read only where values are few
        pieces = (read(*window) for window in _windows(height, width))
    return count_flat_classes(np.unique(sample[0][sample[1]]), pieces, fewest)


def _windows(height: int, width: int) -> Iterator[tuple[Window, tuple[int, int]]]:
    """Nine windows spread over a raster, and their sizes."""
    tall, wide = min(_WINDOW, height), min(_WINDOW, width)
    for down in (1, 3, 5):
        for across in (1, 3, 5):
            row, col = (height - tall) * down // 6, (width - wide) * across // 6
            yield Window(col, row, wide, tall), (tall, wide)


def _piece(
    source: Any, band: int, window: Window, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """(*shape) values and validity of a window; raises `InputError` on damaged data."""
    with read_errors(source.name):
        values = source.read(band, window=window, out_shape=shape)
        return values, source.read_masks(band, window=window, out_shape=shape) > 0
