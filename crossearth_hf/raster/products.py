"""Products that are folders or archives: which raster in them is meant, or how it is named."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import rasterio

from ..errors import InputError
from .gdal import GDAL_ERRORS

_RASTERS = (".tif", ".tiff", ".jp2", ".img", ".vrt", ".png", ".jpg", ".jpeg")
_FINEST = ":10m:"  # of the subdatasets of Sentinel-2: red, green, blue and near infrared


def raster_of(path: str) -> str:
    """What GDAL opens for a path: the bands of 10 m of a Sentinel-2 folder (.SAFE), and any other path itself.

    Raises:
        InputError: The .SAFE folder has no such bands, or has those of several zones.
    """
    if not (path.rstrip("/").upper().endswith(".SAFE") and os.path.isdir(path)):
        return path
    metadata = sorted(Path(path).glob("MTD_MSI*.xml"))
    if not metadata:
        raise InputError(
            f"{path} lacks MTD_MSI*.xml, so the Sentinel-2 product is incomplete; unpack it again"
        )
    try:
        with rasterio.open(metadata[0]) as product:
            return finest(path, product.subdatasets)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{path} cannot be read by GDAL's driver SENTINEL2; name one of its .jp2 files"
        ) from error


def finest(path: str, subdatasets: Sequence[str]) -> str:
    """The subdataset of a Sentinel-2 product with pixels of 10 m; `InputError` if there is not exactly one."""
    found = [name for name in subdatasets if _FINEST in name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(found or subdatasets) or "none"
    raise InputError(f"{path} has {len(found)} subdatasets of 10 m; name one of {names}")


def archive_remedy(path: str) -> str | None:
    """A sentence on how to name a raster in a ZIP archive; None for another file."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(_RASTERS)]
    except (OSError, zipfile.BadZipFile):
        names = []
    if not names:
        return f"{path} is an archive without a raster that is known by its name; unpack it and name the raster"
    if len(names) == 1:
        return (
            f"{path} is an archive; unpack it, or name the raster in it: /vsizip/{path}/{names[0]}"
        )
    return f"{path} is an archive of {len(names)} rasters; unpack it, or name one of them: /vsizip/{path}/{names[0]}"
