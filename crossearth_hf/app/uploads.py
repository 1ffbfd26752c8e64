"""Uploads: their limits, their new name, and their removal."""

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..raster.admission import SCENE_DRIVER, bring_in
from ..raster.imagery import ClassMap
from ..raster.scene import DEFAULT_READING, Reading, Scene, bounded_cache

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")

_FIELDS = {"--nodata": "No data", "--bands": "Bands"}


@dataclass(frozen=True)
class Limits:
    """Largest sizes of an upload.

    Attributes:
        megapixels: Pixels to map, in millions.
        megabytes: Size of the file.
    """

    megapixels: float = 100
    megabytes: float = 200

    def check_pixels(self, height: int, width: int) -> None:
        """Raises `InputError` for a scene of too many pixels."""
        if height * width > self.megapixels * 1e6:
            raise InputError(
                f"the scene has {width:,} x {height:,} = {height * width / 1e6:,.1f} million pixels; this server takes "
                f"{self.megapixels:g} million; cut out a part of it, or run `crossearth predict` on your own machine"
            )


@contextmanager
def admitted(
    upload: str | os.PathLike[str] | None,
    folder: Path,
    limits: Limits,
    reading: Reading = DEFAULT_READING,
) -> Iterator[Scene]:
    """An uploaded file as an open scene, under a new name in `folder`.

    Args:
        upload: The file as it came.
        folder: An empty folder of this job.
        limits: Largest sizes.
        reading: How it is read.

    Raises:
        InputError: The upload cannot be used, or the body raises this error. The message has no paths of the server.
    """
    if upload is None:
        raise InputError(
            "There is no scene yet; drop a GeoTIFF, JPEG or PNG into the box, or choose an example."
        )
    scene_file = folder / "scene.tif"
    try:
        _check_bytes(Path(upload), limits)
        bring_in(Path(upload), scene_file, limits.check_pixels)
        with bounded_cache(), reading.open(scene_file, driver=SCENE_DRIVER) as scene:
            limits.check_pixels(scene.grid.height, scene.grid.width)
            yield scene
    except InputError as error:
        if isinstance(error, ClassMap):
            message = error.without_flag
        else:
            message = str(error)
        message = message.replace(str(scene_file), "the file").replace(str(folder), "the folder")
        raise InputError(message[0].upper() + message[1:].rstrip(".") + ".") from error


def notices(scene: Scene, *, with_fields: bool = False) -> tuple[str, ...]:
    """Sentences about oddities of a scene.

    Args:
        scene: The scene.
        with_fields: Whether the page has the fields of the map tab, which the sentences then name instead of flags.
    """
    return tuple(
        notice.finding
        if notice.remedy is None
        else f"{notice.finding}; {_advice(notice.remedy, with_fields)}"
        for notice in scene.notices()
    )


def _advice(remedy: str, with_fields: bool) -> str:
    """A remedy that names the fields of the page, or else the command that has the flag."""
    named = re.fullmatch(r"(--\w+)[ =](\S+) (.*)", remedy)
    if named is not None and with_fields and named[1] in _FIELDS:
        return f"{named[2]} in the field {_FIELDS[named[1]]} {named[3]}"
    if remedy.startswith("--"):
        return f"with crossearth predict, {remedy}"
    return remedy


def _check_bytes(upload: Path, limits: Limits) -> None:
    """Raises `InputError` for an empty or too large file, and for anything that is not a file."""
    size = _size(upload)
    if size == 0:
        raise InputError("the file is empty (0 bytes); export it again and drop it here")
    if size > limits.megabytes * 1e6:
        raise InputError(
            f"the file has {size / 1e6:,.0f} MB; this server takes {limits.megabytes:g} MB; cut out a part of it, "
            "or run `crossearth predict` on your own machine"
        )


def _size(path: Path) -> int:
    """Bytes of a regular file; other kinds of path could hang, or lead out of the upload folder."""
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:  # the second: a name that holds a zero
        raise InputError(
            "the file was deleted, as all uploads are after a while; drop it here again"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            "this is not a file that was uploaded; drop a GeoTIFF, JPEG or PNG into the box"
        )
    return status.st_size


def remove_old(folder: Path, age: float, *, spared: Path) -> None:
    """Removes empty folders, and uploads and other files of gradio that were not used for `age` seconds.

    Gradio's own task stops for good at the first path that it cannot remove, and does not know of broken uploads.
    """
    before = time.time() - age
    for path in [*folder.glob("*/*"), *folder.glob("*")]:  # files before the folders that hold them
        if spared in (path, path.parent):
            continue
        with suppress(OSError):  # a folder that is not empty, a file that just went
            status = path.lstat()
            if status.st_ctime < before:
                path.rmdir() if stat.S_ISDIR(status.st_mode) else path.unlink()
