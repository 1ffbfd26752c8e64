"""Files that strangers send: checked before GDAL may guess what they are, and given a name of ours.

GDAL recognises a raster by its content, whatever its name. Some formats name other files or addresses from which the
pixels come (VRT, WMS and others), so that an upload could show a file of the server: only three formats get in, each
opened by its own driver, and pictures are rewritten before anything else looks at them.
"""

import os
import re
import shutil
import stat
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning

from crossearth_hf.errors import InputError
from crossearth_hf.raster.gdal import GDAL_ERRORS
from crossearth_hf.raster.imagery import ClassMap
from crossearth_hf.raster.scene import Scene, bounded_cache
from crossearth_hf.scenarios.build.rasters import SIGNATURE_BYTES, raster_driver

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")

SCENE_DRIVER = "GTiff"
"""The only GDAL driver that opens an upload after it was brought in."""

_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}  # no file beside an upload says anything about it
_FIELDS = {"--nodata": "No data", "--bands": "Bands"}
_LARGEST_BLOCK = 64e6  # pixels times bands; GDAL decodes a block as a whole, and again for every window


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes:
        megapixels: Pixels to predict, in millions.
        megabytes: Size of the file.
    """

    megapixels: float = 100
    megabytes: float = 200


@contextmanager
def admitted(
    upload: str | os.PathLike[str] | None,
    folder: Path,
    limits: Limits,
    *,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | None = None,
    resolution: float | None = None,
    num_channels: int = 3,
) -> Iterator[Scene]:
    """An uploaded file as an open scene, under a name of ours in `folder`.

    Args:
        upload: The file as it came.
        folder: An empty folder of this job.
        limits: Largest sizes.
        bands, nodata, resolution, num_channels: As in `Scene`.

    Raises:
        InputError: from here and from the body, without any path of the server in its message.
    """
    if upload is None:
        raise InputError("There is no scene yet; drop a GeoTIFF, JPEG or PNG into the box, or choose an example.")
    scene_file = folder / "scene.tif"
    try:
        _bring_in(Path(upload), scene_file, limits)
        with (
            bounded_cache(),
            Scene(
                scene_file,
                bands=bands,
                nodata=nodata,
                resolution=resolution,
                num_channels=num_channels,
                driver=SCENE_DRIVER,
            ) as scene,
        ):
            _check_pixels(scene.grid.height, scene.grid.width, limits)
            yield scene
    except InputError as error:
        message = error.without_flag if isinstance(error, ClassMap) else str(error)
        message = message.replace(str(scene_file), "the file").replace(str(folder), "the folder")
        raise InputError(message[0].upper() + message[1:].rstrip(".") + ".") from error


def notices(scene: Scene, *, with_fields: bool = False) -> tuple[str, ...]:
    """Sentences on what is odd about a scene.

    Args:
        scene: The scene.
        with_fields: Whether there are the fields of the map tab, which the sentences then name in place of flags.
    """
    return tuple(
        notice.finding if notice.remedy is None else f"{notice.finding}; {_advice(notice.remedy, with_fields)}"
        for notice in scene.notices()
    )


def _advice(remedy: str, with_fields: bool) -> str:
    """A remedy in words of the page: its own fields, or the command that has the flag."""
    named = re.fullmatch(r"(--\w+)[ =](\S+) (.*)", remedy)
    if named is not None and with_fields and named[1] in _FIELDS:
        return f"{named[2]} in the field {_FIELDS[named[1]]} {named[3]}"
    return f"with crossearth predict, {remedy}" if remedy.startswith("--") else remedy


def _bring_in(upload: Path, target: Path, limits: Limits) -> None:
    """Checks an upload and puts it, as a GeoTIFF, at `target`."""
    size = _size(upload)
    if size == 0:
        raise InputError("the file is empty (0 bytes); export it again and drop it here")
    if size > limits.megabytes * 1e6:
        raise InputError(
            f"the file has {size / 1e6:,.0f} MB, this server takes {limits.megabytes:g} MB; cut out a part of it, "
            "or run `crossearth predict` on your own machine"
        )
    driver = _driver(upload)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env(**_ALONE), rasterio.open(upload, driver=driver) as source:
                _check_pixels(source.height, source.width, limits)
                if source.tags(ns="OVERVIEWS"):  # may name another file as overview
                    raise InputError("the file refers to other files; save it as a plain GeoTIFF (gdal_translate)")
                _check_blocks(upload, source)
                if driver != "GTiff":
                    # Windows of a PNG or JPEG would each decode it from its top. A cut-off JPEG is only a warning.
                    with bounded_cache(), rasterio.Env(GDAL_ERROR_ON_LIBJPEG_WARNING=True):
                        rasterio.shutil.copy(source, target, driver="GTiff", tiled=True, compress="deflate", zlevel=1)
    except (*GDAL_ERRORS, SystemError) as error:  # the last: rasterio, where GDAL gives no reason
        raise InputError("the file is no image that can be read, or it is damaged; export it again") from error
    if driver == "GTiff":
        _link(upload, target)


def _size(path: Path) -> int:
    """Bytes of a regular file: what else a path may name could hang, or lead out of the upload folder."""
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:  # the second: a name that holds a zero
        raise InputError("the file is no longer here, uploads are deleted after a while; drop it here again") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is no file that was uploaded; drop a GeoTIFF, JPEG or PNG into the box")
    return status.st_size


def _driver(path: Path) -> str:
    """The GDAL driver for a file's first bytes."""
    with path.open("rb") as file:
        driver = raster_driver(file.read(SIGNATURE_BYTES))
    if driver is None:
        raise InputError(
            "the file is neither a GeoTIFF nor a JPEG nor a PNG, whatever its name; export it as one of these"
        )
    return driver


def _check_pixels(height: int, width: int, limits: Limits) -> None:
    if height * width > limits.megapixels * 1e6:
        raise InputError(
            f"the scene has {width:,} x {height:,} = {height * width / 1e6:,.1f} million pixels, this server takes "
            f"{limits.megapixels:g} million; cut out a part of it, or run `crossearth predict` on your own machine"
        )


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


def remove_old(folder: Path, age: float, *, spared: Path) -> None:
    """Removes uploads that nobody sent or used for `age` seconds, what else gradio left beside them, empty folders.

    Gradio's own task would end for good at the first path that it cannot remove, and knows nothing of broken uploads.
    """
    before = time.time() - age
    for path in [*folder.glob("*/*"), *folder.glob("*")]:  # files before the folders that hold them
        if spared in (path, path.parent):
            continue
        with suppress(OSError):  # a folder that is not empty, a file that just went
            status = path.lstat()
            if status.st_ctime < before:
                path.rmdir() if stat.S_ISDIR(status.st_mode) else path.unlink()
