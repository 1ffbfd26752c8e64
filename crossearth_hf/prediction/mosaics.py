"""Tiles that become one map: a virtual raster beside the map while the job lasts."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ..arguments import check_paths
from ..errors import InputError
from ..files.outputs import check_output
from ..raster.scene import Scene
from ..raster.tiles import TILES_MARK, mosaic_vrt
from .kept_parts import unfinished_parts
from .one_scene import SUFFIXES


@contextmanager
def scene_or_mosaic(
    scene: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Scene,
    map_path: str | os.PathLike[str],
    nodata: Sequence[float] | None = None,
) -> Iterator[str | os.PathLike[str] | Scene]:
    """The scene itself, or the tiles of a list as one virtual raster for the duration of a block.

    Args:
        scene, map_path: As in `predict`.
        nodata: As in `mosaic_vrt`.

    Raises:
        InputError: As in `tiles_as_one`, or the list is empty.
    """
    if isinstance(scene, Sequence) and not isinstance(scene, str):
        check_paths(**{f"scene[{index}]": tile for index, tile in enumerate(scene)})
        if not scene:
            raise InputError("the list of tiles is empty; name one raster or more")
        with tiles_as_one([os.fspath(tile) for tile in scene], map_path, nodata) as mosaic:
            yield mosaic
    elif isinstance(scene, Scene):
        yield scene
    else:
        check_paths(scene=scene)
        yield scene


@contextmanager
def tiles_as_one(
    tiles: Sequence[str], map_path: str | os.PathLike[str], nodata: Sequence[float] | None = None
) -> Iterator[Path]:
    """A virtual raster of tiles, hidden beside their map; it stays as long as the map is unfinished.

    Args:
        tiles: Rasters on this machine, as `mosaic_vrt` takes them.
        map_path: The map to write.
        nodata: As in `mosaic_vrt`.

    Raises:
        InputError: The tiles cannot be joined (see `mosaic_vrt`), the map cannot be written, or another file is in
            place of the VRT.
    """
    target = check_output(map_path, SUFFIXES["labels"], overwrite=True)
    place = target.with_name(f".{target.name}.tiles.vrt")
    text = mosaic_vrt(tiles, nodata)
    before = _text(place)
    if before is not None and TILES_MARK not in before:
        raise InputError(
            f"{place} is in the place of a working file; move it away, or choose another name for the map"
        )
    if before != text:  # an interrupted job goes on only if the file is the same
        place.write_text(text, encoding="utf-8")
    try:
        yield place
    finally:
        if not unfinished_parts(target).exists():
            place.unlink(missing_ok=True)


def _text(path: Path) -> str | None:
    """The text of a file; None if there is none, "" if it is no text."""
    if not os.path.lexists(path):
        return None
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""
