"""Errors, warnings and printed messages of GDAL and rasterio."""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rasterio._io
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ..errors import InputError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""Errors of rasterio; the second is not wrapped everywhere and has no public name."""


def gdal_cause(error: BaseException) -> str:
    """GDAL's own message, at the end of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turns GDAL's errors on reading pixels of the raster `name` into `InputError`."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise InputError(
            f"{name} is damaged or cut off ({gdal_cause(error)}); copy it again"
        ) from error


def read_in_order() -> None:
    """Lets GDAL read the sources of virtual rasters one after the other, in this process.

    In decimated reads of several threads, two sources may write the same row, and either of them may be the last.
    """
    os.environ.setdefault("VRT_NUM_THREADS", "1")


def ignore_missing_georeference() -> None:
    """Silences rasterio's warning about rasters without a georeference, for the rest of this process.

    It is permanent because threads that leave `warnings.catch_warnings` in another order than they entered it remove
    each other's filters or leave them behind.
    """
    applying = (
        action
        for action, message, kind, module, _ in warnings.filters
        if message is module is None and issubclass(NotGeoreferencedWarning, kind)
    )
    if next(applying, None) != "ignore":
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def silence_libtiff() -> None:
    """Keeps libtiff from printing errors of a full disk, for this process; GDAL reports them anyway.

    libtiff itself prints some errors of files that GDAL writes, which bypasses the handlers of GDAL and rasterio.
    """
    with suppress(OSError, AttributeError):  # other builds of GDAL may hide their libtiff
        ctypes.CDLL(rasterio._io.__file__).TIFFSetErrorHandler(None)
