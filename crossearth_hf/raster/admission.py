"""Files from strangers: checked before GDAL may guess their format, and brought in as plain GeoTIFFs.

GDAL recognizes a raster by its content, not by its name. Some formats (VRT, WMS and others) refer to other files or
addresses, so an upload could show a file of the server. Therefore only three formats are accepted, each is opened by
its own driver, and pictures are rewritten before anything else reads them.
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
"""The only GDAL driver for accepted files."""

_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # files beside an upload are ignored
_LARGEST_BLOCK = (
    64e6  # pixels times bands; GDAL decodes a block as a whole, and again for every window
)


def bring_in(upload: Path, target: Path, check_pixels: Callable[[int, int], None]) -> None:
    """Checks a regular file and writes it to `target` as a GeoTIFF.

    Args:
        upload: The uploaded file.
        target: A path that does not exist yet.
        check_pixels: Called with height and width before any pixel is read; may raise.

    Raises:
        InputError: The file has another format, is damaged or refers to other files, or its tiles are too large.
    """
    driver = _driver(upload)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env(**_ALONE), rasterio.open(upload, driver=driver) as source:
                check_pixels(source.height, source.width)
                if source.tags(ns="OVERVIEWS"):  # may refer to another file as overview
                    raise InputError(
                        "the file refers to other files; save it as a plain GeoTIFF (gdal_translate)"
                    )
                _check_blocks(upload, source)
                if driver != SCENE_DRIVER:
                    # Each window of a PNG or JPEG would decode it from its top. GDAL only warns of a cut-off JPEG.
                    with bounded_cache(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
                        rasterio.shutil.copy(
                            source,
                            target,
                            driver=SCENE_DRIVER,
                            tiled=True,
                            compress="deflate",
                            zlevel=1,
                        )
    except (
        *GDAL_ERRORS,
        SystemError,
    ) as error:  # SystemError: from rasterio, if GDAL gives no reason
        raise InputError(
            "the file is not a readable image, or it is damaged; export it again"
        ) from error
    if driver == SCENE_DRIVER:
        _link(upload, target)


def _driver(path: Path) -> str:
    """The GDAL driver for a file's first bytes."""
    with path.open("rb") as file:
        driver = raster_driver(file.read(SIGNATURE_BYTES))
    if driver is None:
        raise InputError(
            "the file is not a GeoTIFF, JPEG or PNG, whatever its name says; export it as one of these"
        )
    return driver


def _check_blocks(upload: Path, source: Any) -> None:
    """Refuses huge tiles: a few kilobytes may unpack to gigabytes if a GeoTIFF is a single tile with many bands."""
    for level in (None, *range(len(source.overviews(1)))):
        with rasterio.open(upload, driver=source.driver, overview_level=level) as opened:
            height, width = opened.block_shapes[0]
        if height * width * source.count > _LARGEST_BLOCK:
            raise InputError(
                f"the file is cut into tiles of {width:,} x {height:,} pixels and {source.count} bands, too large to "
                "unpack here; write it again in small ones (gdal_translate -co TILED=YES)"
            )


def _link(source: Path, target: Path) -> None:
    """Links a file to a second name, or copies it if the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
