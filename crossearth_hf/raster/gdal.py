"""What GDAL and rasterio raise, warn of and print, and what becomes of it here."""

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rasterio._io
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from ..errors import InputError

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""What rasterio raises; the second is not wrapped everywhere and has no public name."""


def gdal_cause(error: BaseException) -> str:
    """GDAL's own words, at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turns GDAL's errors on reading pixels of the raster `name` into `InputError`."""
    try:
        yield
    except GDAL_ERRORS as error:
        raise InputError(f"{name} is damaged or cut off ({gdal_cause(error)}); copy it again") from error


def ignore_missing_georeference() -> None:
    """Silences rasterio's warning about rasters without a georeference, which are welcome here, for this process.

    For good, once a raster is opened: threads that leave `warnings.catch_warnings` in another order than they entered
    it take away each other's filters, or leave them behind.
    """
    applying = (
        action
        for action, message, kind, module, _ in warnings.filters
        if message is module is None and issubclass(NotGeoreferencedWarning, kind)
    )
    if next(applying, None) != "ignore":
        warnings.simplefilter("ignore", NotGeoreferencedWarning)


def silence_libtiff() -> None:
    """Keeps libtiff from printing what fails on a full disk, for this process; GDAL reports it all the same.

    libtiff prints some errors of files that GDAL writes by itself, past GDAL's handlers and so past rasterio's.
    """
    with suppress(OSError, AttributeError):  # another build of GDAL may hide its libtiff
        ctypes.CDLL(rasterio._io.__file__).TIFFSetErrorHandler(None)
