"""Uploads: their limits, a name of ours, and their end."""

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..raster.admission import SCENE_DRIVER, bring_in
from ..raster.imagery import ClassMap
from ..raster.scene import Scene, bounded_cache

SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")

_FIELDS = {"--nodata": "No data", "--bands": "Bands"}


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes:
        megapixels: Pixels to predict, in millions.
        megabytes: Size of the file.
    """

    megapixels: float = 100
    megabytes: float = 200

    def check_pixels(self, height: int, width: int) -> None:
        """Raises `InputError` for a scene of too many pixels."""
        if height * width > self.megapixels * 1e6:
            raise InputError(
                f"the scene has {width:,} x {height:,} = {height * width / 1e6:,.1f} million pixels, this server takes "
                f"{self.megapixels:g} million; cut out a part of it, or run `crossearth predict` on your own machine"
            )


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
        _check_bytes(Path(upload), limits)
        bring_in(Path(upload), scene_file, limits.check_pixels)
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
    if remedy.startswith("--"):
        return f"with crossearth predict, {remedy}"
    return remedy


def _check_bytes(upload: Path, limits: Limits) -> None:
    """Raises `InputError` for what is not a file, an empty file and one that is too large."""
    size = _size(upload)
    if size == 0:
        raise InputError("the file is empty (0 bytes); export it again and drop it here")
    if size > limits.megabytes * 1e6:
        raise InputError(
            f"the file has {size / 1e6:,.0f} MB, this server takes {limits.megabytes:g} MB; cut out a part of it, "
            "or run `crossearth predict` on your own machine"
        )


def _size(path: Path) -> int:
    """Bytes of a regular file: what else a path may name could hang, or lead out of the upload folder."""
    try:
        status = path.lstat()
    except (OSError, ValueError) as error:  # the second: a name that holds a zero
        raise InputError("the file is no longer here, uploads are deleted after a while; drop it here again") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError("this is not a file that was uploaded; drop a GeoTIFF, JPEG or PNG into the box")
    return status.st_size


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
