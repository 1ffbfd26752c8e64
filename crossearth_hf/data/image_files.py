"""One image or mask, in a file or in bytes, as arrays: whole, or by windows where the file allows it.

Plain 8-bit pictures are read by Pillow, everything else by `raster.scene.Scene`: training sees a raster in the bands
and with the stretch that `crossearth predict` would use.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from ..errors import InputError
from ..labels import IGNORE_INDEX
from ..raster.fill import Fill
from ..raster.gdal import read_errors
from ..raster.grid import Grid
from ..raster.scene import DEFAULT_READING, Raster, Reading, Scene, bounded_cache, color_table, read_band
from ..raster.source_files import check_regular
from ..raster.writing import TILE
from .mask_values import Color, MaskValues, to_ids

WINDOW_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", *WINDOW_SUFFIXES)
MASK_SUFFIXES = (".png", ".tif", ".tiff")

File = Path | bytes
Window = tuple[int, int, int, int]
"""Row, column, height and width in pixels."""
Picture = tuple[np.ndarray, np.ndarray | None]
"""(H, W, C) uint8, RGB or the bands asked for, 0 without data; (H, W) bool, False without data, or None where all
pixels have data."""


_AS_MASK = Reading(nodata=(), palette_as_image=True)  # every value stands as it is
_PLAIN_FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "BMP"}
_PLAIN_MODES = {"1", "L", "P", "RGB"}
_OPEN_SCENES = 64


def read_image(file: File, name: str, reading: Reading = DEFAULT_READING) -> Picture:
    """The whole image.

    Args:
        file: A path, or the bytes of an image file of any kind.
        name: What messages call it.
        reading: Bands and values without data; by default as `Scene` finds them.

    Raises:
        InputError: it cannot be read, lacks the bands, or cannot hold the values.
    """
    if _keeps_pictures(reading) and _is_plain(file):
        return _decode(file, name, "RGB"), None
    with _scene(file, name, reading) as scene:
        return _picture(scene.read(0, 0, scene.grid.height, scene.grid.width))


def image_size(file: File, name: str, reading: Reading = DEFAULT_READING) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone; raises as `read_image`."""
    if _keeps_pictures(reading) and _is_plain(file):
        with Image.open(_source(file)) as image:
            return image.height, image.width
    with _scene(file, name, reading) as scene:
        return scene.grid.height, scene.grid.width


def undeclared_fills(file: File, name: str, reading: Reading) -> tuple[Fill, ...]:
    """Values that seem to mean no data although neither the file nor `reading` names them; raises as `read_image`."""
    if reading.nodata is not None or _is_plain(file):
        return ()
    with _scene(file, name, reading) as scene:
        return scene.undeclared_fills()


def raster_grid(path: Path) -> Grid | None:
    """Where a raster lies; None for plain pictures. Raises `InputError` if it cannot be read."""
    if _is_picture(path):
        return None
    with _scene(path, str(path), _AS_MASK) as scene:
        return scene.native_grid


def pixel_size(path: Path) -> float | None:
    """Meters on the ground per pixel of an image, the mean of both axes; None where it has no georeference."""
    grid = raster_grid(path)
    if grid is None:
        sides = None
    else:
        sides = grid.pixel_size()
    if sides is None:
        return None
    return (sides[0] * sides[1]) ** 0.5


def read_image_window(path: Path, reading: Reading, window: Window) -> Picture:
    """One window of a raster file, without reading the rest; raises `InputError` on damaged data.

    The file stays open, since it measures its stretch once.
    """
    with bounded_cache():
        return _picture(_kept_open(str(path), reading, os.getpid()).read(*window))


def read_mask(file: File, name: str, mask_values: MaskValues = None) -> np.ndarray:
    """(H, W) uint8 ids of a single-band mask, 255 ignored.

    Raises:
        InputError: it cannot be read, is in color, holds fractions, values outside 0..255 or without a class, or
            others than ignored ones where it declares no data.
    """
    return to_ids(read_mask_values(file, name, mask_values), mask_values, name)


def read_mask_values(file: File, name: str, mask_values: MaskValues = None) -> np.ndarray:
    """(H, W) uint8 of a single-band mask as it is; raises as `read_mask`, but for values without a class."""
    return np.concatenate(list(_mask_strips(file, name, mask_values)))


def read_mask_window(path: Path, window: Window, mask_values: MaskValues = None) -> np.ndarray:
    """(h, w) uint8 ids of one window of a raster mask that `mask_counts` has found good."""
    return to_ids(as_values(_first_band(str(path), window, str(path)), str(path)), mask_values, str(path))


def mask_counts(file: File, name: str, mask_values: MaskValues = None) -> tuple[np.ndarray, tuple[int, int]]:
    """(256,) pixels of every value of a mask, and its (height, width); rasters are read in strips.

    Raises as `read_mask`, but for values without a class.
    """
    counts, height, width = np.zeros(256, dtype=np.int64), 0, 0
    for strip in _mask_strips(file, name, mask_values):
        counts += np.bincount(strip.ravel(), minlength=256)
        height, width = height + strip.shape[0], strip.shape[1]
    return counts, (height, width)


def mask_palette(file: File, name: str) -> dict[int, Color] | None:
    """The color of every value of a mask; None where it has no color table. Raises `InputError` on damaged files."""
    if not _is_picture(file):
        with _scene(file, name, _AS_MASK) as scene:
            return color_table(scene.path)
    with Image.open(_source(file)) as image:
        if image.mode == "P":
            colors = image.getpalette("RGB")
        else:
            colors = None
    if colors is None:
        return None
    triples = zip(colors[::3], colors[1::3], colors[2::3], strict=True)
    return {value: (red, green, blue) for value, (red, green, blue) in enumerate(triples)}


def resize_bands(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Bilinear with antialiasing where it shrinks.

    Args:
        pixels: (H, W, C) uint8.
        size: New (width, height).
        box: Left, top, right and bottom of the part that is resized; the whole where None.

    Returns:
        (height, width, C) uint8.
    """
    # Bands beyond RGB one by one: Pillow would take the fourth for transparency.
    parts = [pixels[..., :3], *np.moveaxis(pixels[..., 3:], -1, 0)]
    resized = [Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, box=box) for part in parts]
    return np.dstack([np.asarray(part) for part in resized])


def _mask_strips(file: File, name: str, mask_values: MaskValues) -> Iterator[np.ndarray]:
    """(h, W) uint8 values from top to bottom, checked."""
    if _is_picture(file):
        labels = as_values(_decode_mask(file, name), name)
        yield from (labels[row : row + TILE] for row in range(0, len(labels), TILE))
        return
    with _scene(file, name, _AS_MASK) as scene:
        if scene.data_bands > 1:
            raise InputError(_no_label_map(name))
        height, width = scene.grid.height, scene.grid.width
        for row in range(0, height, TILE):
            window = (row, 0, min(TILE, height - row), width)
            values = as_values(_first_band(scene.path, window, name), name)
            _check_hidden(values[~scene.read_valid(*window)], name, mask_values)
            yield values


def _check_hidden(values: np.ndarray, name: str, mask_values: MaskValues) -> None:
    """Refuses classes under pixels that the mask itself declares empty: it would be a guess which of both holds."""
    if IGNORE_INDEX not in (mask_values or ()):
        wrong = values[values != IGNORE_INDEX]
    else:
        wrong = values
    if len(wrong):
        raise InputError(
            f"{name} holds the id {wrong[0]} where it declares no data; write {IGNORE_INDEX} for pixels without label, "
            "or take the declaration away (gdal_edit.py -unsetnodata)"
        )


def _first_band(path: str, window: Window, name: str) -> np.ndarray:
    with read_errors(name):
        return read_band(Path(path), window, window[2:])


def as_values(values: np.ndarray, name: str) -> np.ndarray:
    """(H, W) uint8 of a band of whole numbers."""
    whole = values.ndim == 2 and values.dtype.kind in "iub"
    if not whole or values.max(initial=0) > 255 or values.min(initial=0) < 0:
        raise InputError(_no_label_map(name))
    return values.astype(np.uint8)


def _no_label_map(name: str) -> str:
    return f"{name} is not a label map; a mask holds one band of class ids from 0 to 255, not colors or fractions"


def _picture(raster: Raster) -> Picture:
    pixels = np.array(raster.pixels.transpose(1, 2, 0), order="C")  # (H, W, C)
    if raster.valid.all():
        return pixels, None
    pixels[~raster.valid] = 0
    return pixels, raster.valid


def _is_plain(file: File) -> bool:
    """Whether Pillow shows what GDAL would: 8 bits, no transparency."""
    try:
        with Image.open(_source(file)) as image:
            # Pillow shortens the numbers of 16-bit color without a word.
            shortened = image.format == "PNG" and "16" in str(image.tile[0][3])
            plain = image.format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES
            return plain and not shortened and "transparency" not in image.info
    except (OSError, Image.DecompressionBombError):
        return False


def _is_picture(file: File) -> bool:
    """Whether a file is of a plain picture format: neither windows nor nodata."""
    try:
        with Image.open(_source(file)) as image:
            return image.format in _PLAIN_FORMATS
    except (OSError, Image.DecompressionBombError):
        return False


def _decode(file: File, name: str, mode: str | None) -> np.ndarray:
    """Pixels as an array, converted to the PIL `mode` if one is given."""
    try:
        with Image.open(_source(file)) as image:
            return np.array(image if mode is None else image.convert(mode))
    except (OSError, SyntaxError) as error:  # Pillow calls a broken PNG a syntax error
        raise InputError(f"{name} cannot be read as an image ({error}); replace the file") from error


def _decode_mask(file: File, name: str) -> np.ndarray:
    """Values of a picture: of gray with 2 or 4 bits those in the file, which Pillow spreads over 0..255."""
    values = _decode(file, name, None)
    with Image.open(_source(file)) as image:
        if image.tile:
            stored = str(image.tile[0][3])
        else:
            stored = ""
    if values.dtype == np.uint8:
        return values // {"L;2": 85, "L;4": 17}.get(stored, 1)
    return values


def _source(file: File) -> Path | io.BytesIO:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    check_regular(file)
    return file


@lru_cache(maxsize=_OPEN_SCENES)
def _kept_open(path: str, reading: Reading, process: int) -> Scene:
    """The scene at `path`, opened once per process: forked workers must not share a file handle."""
    return reading.open(path)


def _keeps_pictures(reading: Reading) -> bool:
    """Whether plain 8-bit pictures are read as they are."""
    return reading.bands is None and not reading.nodata and reading.num_channels == 3


@contextmanager
def _scene(file: File, name: str, reading: Reading) -> Iterator[Scene]:
    """A file or bytes opened by GDAL, which wants the latter on disk."""
    if not isinstance(file, bytes):
        with bounded_cache(), reading.open(file) as scene:
            yield scene
        return
    with TemporaryDirectory(prefix="crossearth-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(file)
        try:
            with _scene(path, name, reading) as scene:
                yield scene
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
