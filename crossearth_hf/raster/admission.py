"""Files that strangers send: checked before GDAL may guess what they are, and brought in as plain GeoTIFFs.

GDAL recognizes a raster by its content, whatever its name. Some formats name other files or addresses from which the
pixels come (VRT, WMS and others), so that an upload could show a file of the server: only three formats get in, each
opened by its own driver, and pictures are rewritten before anything else looks at them.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning

from ..errors import InputError
from .formats import SIGNATURE_BYTES, raster_driver
from .gdal import GDAL_ERRORS
from .scene import bounded_cache

SCENE_DRIVER = "GTiff"
"""The only GDAL driver that opens a file after it was brought in."""

_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # no file beside an upload says anything about it
_LARGEST_BLOCK = 64e6  # pixels times bands; GDAL decodes a block as a whole, and again for every window


def bring_in(upload: Path, target: Path, check_pixels: Callable[[int, int], None]) -> None:
    """Checks a regular file and puts it, as a GeoTIFF, at `target`.

    Args:
        upload: The file as it came.
        target: Where nothing is yet.
        check_pixels: Is told height and width before any pixel is read; what it raises comes out.

    Raises:
        InputError: for a format that may not come in, a file that is damaged or refers to others, tiles too large.
    """
    driver = _driver(upload)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env(**_ALONE), rasterio.open(upload, driver=driver) as source:
                check_pixels(source.height, source.width)
                if source.tags(ns="OVERVIEWS"):  # may name another file as overview
                    raise InputError("the file refers to other files; save it as a plain GeoTIFF (gdal_translate)")
                _check_blocks(upload, source)
                if driver != SCENE_DRIVER:
                    # Windows of a PNG or JPEG would each decode it from its top. A cut-off JPEG is only a warning.
                    with bounded_cache(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
                        rasterio.shutil.copy(
                            source, target, driver=SCENE_DRIVER, tiled=True, compress="deflate", zlevel=1
                        )
    except (*GDAL_ERRORS, SystemError) as error:  # the last: rasterio, where GDAL gives no reason
        raise InputError("the file is not an image that can be read, or it is damaged; export it again") from error
    if driver == SCENE_DRIVER:
        _link(upload, target)


def _driver(path: Path) -> str:
    """The GDAL driver for a file's first bytes."""
    with path.open("rb") as file:
        driver = raster_driver(file.read(SIGNATURE_BYTES))
    if driver is None:
        raise InputError(
            "the file is neither a GeoTIFF nor a JPEG nor a PNG, whatever its name; export it as one of these"
        )
    return driver


def _check_blocks(upload: Path, source: Any) -> None:
    """A few kilobytes may unpack to gigabytes where a GeoTIFF, or its overview, is a single tile of many bands."""
    for level in (None, *range(len(source.overviews(1)))):
        with rasterio.open(upload, driver=source.driver, overview_level=level) as opened:
            height, width = opened.block_shapes[0]
        if height * width * source.count > _LARGEST_BLOCK:
            raise InputError(
                f"the file is cut into tiles of {width:,} x {height:,} pixels and {source.count} bands, too large to "
                "unpack here; write it again in small ones (gdal_translate -co TILED=YES)"
            )


def _link(source: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system knows no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
