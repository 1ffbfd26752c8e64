"""One image or mask, from a file or from bytes, as arrays: whole, or by windows if the file allows it.

Pillow reads plain 8-bit pictures, and `raster.scene.Scene` reads everything else: training sees a raster with the same
bands and stretch as `crossearth predict`.
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
from ..labels import IGNORE_INDEX, Color
from ..raster.fill import Fill
from ..raster.gdal import read_errors
from ..raster.grid import Grid
from ..raster.scene import (
    DEFAULT_READING,
    Raster,
    Reading,
    Scene,
    bounded_cache,
    color_table,
    read_bands,
)
from ..raster.source_files import check_regular
from ..raster.writing import TILE
from .mask_colors import places_of_bands, places_of_palette
from .mask_values import ANY_IDS, MaskReading, to_ids

WINDOW_SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", *WINDOW_SUFFIXES)
MASK_SUFFIXES = (".png", ".tif", ".tiff")

File = Path | bytes
Window = tuple[int, int, int, int]
"""Row, column, height and width in pixels."""
Picture = tuple[np.ndarray, np.ndarray | None]
"""(H, W, C) uint8, RGB or the chosen bands, 0 without data; (H, W) bool, False without data, or None if all pixels have
data."""


_AS_MASK = Reading(nodata=(), palette_as_image=True)  # reads every value unchanged
_PLAIN_FORMATS = {"PNG", "JPEG", "MPO", "WEBP", "BMP"}
_PLAIN_MODES = {"1", "L", "P", "RGB"}
_OPEN_SCENES = 64


def read_image(file: File, name: str, reading: Reading = DEFAULT_READING) -> Picture:
    """Reads the whole image.

    Args:
        file: A path, or the bytes of an image file of any kind.
        name: Name of the image in messages.
        reading: Bands and no-data values; by default as `Scene` finds them.

    Raises:
        InputError: The image cannot be read, lacks the bands, or cannot hold the values.
    """
    if _keeps_pictures(reading) and _is_plain(file):
        return _decode(file, name, "RGB"), None
    with _scene(file, name, reading) as scene:
        return _picture(scene.read(0, 0, scene.grid.height, scene.grid.width))


def image_size(file: File, name: str, reading: Reading = DEFAULT_READING) -> tuple[int, int]:
    """(height, width) in pixels, from the header alone; raises `InputError` like `read_image`."""
    if _keeps_pictures(reading) and _is_plain(file):
        with Image.open(_for_pillow(file)) as image:
            return image.height, image.width
    with _scene(file, name, reading) as scene:
        return scene.grid.height, scene.grid.width


def undeclared_fills(file: File, name: str, reading: Reading) -> tuple[Fill, ...]:
    """Values that probably mean no data but are not declared, not even by `reading`; raises like `read_image`."""
    if reading.nodata is not None or _is_plain(file):
        return ()
    with _scene(file, name, reading) as scene:
        return scene.undeclared_fills()


def raster_grid(path: Path) -> Grid | None:
    """Location of a raster; None for plain pictures. Raises `InputError` if it cannot be read."""
    if _is_picture(path):
        return None
    with _scene(path, str(path), _AS_MASK) as scene:
        return scene.native_grid


def pixel_size(path: Path) -> float | None:
    """Meters on the ground per pixel of an image, the mean of both axes; None without a georeference."""
    grid = raster_grid(path)
    if grid is None:
        return None
    sides = grid.pixel_size()
    if sides is None:
        return None
    return (sides[0] * sides[1]) ** 0.5


def read_image_window(path: Path, reading: Reading, window: Window) -> Picture:
    """Reads one window of a raster file without the rest; raises `InputError` for damaged data.

    The file stays open, so its stretch is measured once.
    """
    with bounded_cache():
        return _picture(_kept_open(str(path), reading, os.getpid()).read(*window))


def read_mask(file: File, name: str, masks: MaskReading = ANY_IDS) -> np.ndarray:
    """(H, W) uint8 ids of a mask, 255 ignored.

    Raises:
        InputError: The mask cannot be read; it holds fractions, values outside 0..255 or without a class, or colors or
            bands that `places_of_bands` does not accept; or pixels that it declares as no data have a class.
    """
    return to_ids(read_mask_values(file, name, masks), masks, name)


def read_mask_values(file: File, name: str, masks: MaskReading = ANY_IDS) -> np.ndarray:
    """(H, W) uint8 values of a mask; for a mask of colors or several bands, the positions of the classes.

    It raises `InputError` like `read_mask`, except for values without a class.
    """
    return np.concatenate(list(_mask_strips(file, name, masks)))


def read_mask_window(path: Path, window: Window, masks: MaskReading = ANY_IDS) -> np.ndarray:
    """(h, w) uint8 ids of one window of a raster mask that `mask_counts` has checked."""
    return to_ids(read_mask_window_values(path, window, masks), masks, str(path))


def read_mask_window_values(path: Path, window: Window, masks: MaskReading = ANY_IDS) -> np.ndarray:
    """(h, w) uint8 of one window of a raster mask, see `read_mask_values`."""
    with _scene(path, str(path), _AS_MASK) as scene:
        return _window_values(scene, window, str(path), masks)


def mask_size(path: Path) -> tuple[int, int]:
    """(height, width) of a mask in pixels, from the header alone; raises `InputError` if it cannot be read."""
    return image_size(path, str(path), _AS_MASK)


def mask_counts(
    file: File, name: str, masks: MaskReading = ANY_IDS
) -> tuple[np.ndarray, tuple[int, int]]:
    """(256,) pixels of every value of a mask, and its (height, width); rasters are read in strips.

    It raises `InputError` like `read_mask`, except for values without a class.
    """
    counts, height, width = np.zeros(256, dtype=np.int64), 0, 0
    for strip in _mask_strips(file, name, masks):
        counts += histogram(strip)
        height, width = height + strip.shape[0], strip.shape[1]
    return counts, (height, width)


def histogram(labels: np.ndarray) -> np.ndarray:
    """(256,) pixels of every value of uint8 labels."""
    return np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)


def occurring(pixels: np.ndarray) -> dict[int, int]:
    """Pixels of every value that occurs, from a `histogram`."""
    return {value: int(pixels[value]) for value in np.flatnonzero(pixels).tolist()}


def is_in_color(file: File, name: str, masks: MaskReading) -> bool:
    """Whether a mask shows its classes by colors or bands, not by values; raises `InputError` for damaged files."""
    if _is_picture(file):
        bands = _decode_mask(file, name).ndim
    else:
        with _scene(file, name, _AS_MASK) as scene:
            bands = scene.data_bands + 1
    return bands > 2 or (masks.colors_decide and mask_palette(file, name) is not None)


def mask_palette(file: File, name: str) -> dict[int, Color] | None:
    """The color of every value of a mask; None without a color table. Raises `InputError` for damaged files."""
    if not _is_picture(file):
        with _scene(file, name, _AS_MASK) as scene:
            return color_table(scene.path)
    with Image.open(_for_pillow(file)) as image:
        if image.mode != "P":
            return None
        colors = image.getpalette("RGB")
    if colors is None:
        return None
    triples = zip(colors[::3], colors[1::3], colors[2::3], strict=True)
    return {value: (red, green, blue) for value, (red, green, blue) in enumerate(triples)}


def resize_bands(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resizes bilinearly, with antialiasing where it shrinks.

    Args:
        pixels: (H, W, C) uint8.
        size: New (width, height).
        box: Left, top, right and bottom of the part to resize; the whole image if None.

    Returns:
        (height, width, C) uint8.
    """
    # Bands beyond RGB are resized one by one, because Pillow takes the fourth for transparency.
    parts = [pixels[..., :3], *np.moveaxis(pixels[..., 3:], -1, 0)]
    resized = [
        Image.fromarray(part).resize(size, Image.Resampling.BILINEAR, box=box) for part in parts
    ]
    return np.dstack([np.asarray(part) for part in resized])


def _mask_strips(file: File, name: str, masks: MaskReading) -> Iterator[np.ndarray]:
    """(h, W) uint8 values from top to bottom, checked."""
    if _is_picture(file):
        values = _picture_values(file, name, masks)
        yield from (values[row : row + TILE] for row in range(0, len(values), TILE))
        return
    with _scene(file, name, _AS_MASK) as scene:
        height, width = scene.grid.height, scene.grid.width
        for row in range(0, height, TILE):
            yield _window_values(scene, (row, 0, min(TILE, height - row), width), name, masks)


def _picture_values(file: File, name: str, masks: MaskReading) -> np.ndarray:
    """(H, W) uint8 values of a mask in a plain picture."""
    values = _decode_mask(file, name)
    if values.ndim == 3 and values.shape[-1] == 2:
        raise InputError(_no_label_map(name))  # gray with transparency
    if values.ndim == 3:
        return places_of_bands(np.moveaxis(values, -1, 0), name, masks)
    return places_of_palette(as_values(values, name), mask_palette(file, name), name, masks)


def _window_values(scene: Scene, window: Window, name: str, masks: MaskReading) -> np.ndarray:
    """(h, w) uint8 values of one window of a raster mask; transparent pixels of a mask of colors are 255."""
    with read_errors(name):
        bands = read_bands(Path(scene.path), window)
    hidden = ~scene.read_valid(*window)
    if scene.data_bands == 1:
        palette = None
        if masks.colors_decide:
            palette = color_table(scene.path)
        values = places_of_palette(as_values(bands[0], name), palette, name, masks)
    else:
        values = places_of_bands(bands, name, masks)
        if scene.data_bands < len(bands):  # transparency hides pixels; it declares nothing
            if len(masks.classes.classes) == len(bands):
                return values
            return np.where(hidden, np.uint8(IGNORE_INDEX), values)
    _check_hidden(values[hidden], name, masks)
    return values


def _check_hidden(values: np.ndarray, name: str, masks: MaskReading) -> None:
    """Raises `InputError` if pixels that the mask declares as no data have a class: it is unclear which is right."""
    wrong = values[~np.isin(masks.table[values], (IGNORE_INDEX, masks.no_label))]
    if not len(wrong):
        return
    hint = ""
    if wrong[0] == 0 and masks.is_plain:
        hint = "; if 0 means no label and the classes count from 1, add --mask-offset 1"
    raise InputError(
        f"{name} holds the id {wrong[0]} where it declares no data; write {IGNORE_INDEX} for pixels without label, "
        f"or take the declaration away (gdal_edit.py -unsetnodata){hint}"
    )


def read_colors(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 of a picture in color; raises `InputError` for damaged and other files."""
    pixels = _decode(path, str(path), None)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"{path} is not an 8-bit RGB picture; export it as an 8-bit RGB PNG")
    return pixels


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
    """Whether Pillow and GDAL read the same pixels: 8 bits, no transparency."""
    try:
        with Image.open(_for_pillow(file)) as image:
            # Pillow silently shortens 16-bit colors.
            shortened = image.format == "PNG" and "16" in str(image.tile[0][3])
            plain = image.format in _PLAIN_FORMATS and image.mode in _PLAIN_MODES
            return plain and not shortened and "transparency" not in image.info
    except (OSError, Image.DecompressionBombError):
        return False


def _is_picture(file: File) -> bool:
    """Whether a file has a plain picture format, without windows and no-data values."""
    try:
        with Image.open(_for_pillow(file)) as image:
            return image.format in _PLAIN_FORMATS
    except (OSError, Image.DecompressionBombError):
        return False


def _decode(file: File, name: str, mode: str | None) -> np.ndarray:
    """Pixels as an array, converted to the PIL `mode` if one is given."""
    try:
        with Image.open(_for_pillow(file)) as image:
            if mode is None:
                return np.array(image)
            return np.array(image.convert(mode))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise InputError(
            f"{name} cannot be read as an image ({error}); replace the file"
        ) from error


def _decode_mask(file: File, name: str) -> np.ndarray:
    """Values of a picture; Pillow scales gray of 2 or 4 bits to 0..255, which is undone here."""
    values = _decode(file, name, None)
    if values.dtype != np.uint8:
        return values
    with Image.open(_for_pillow(file)) as image:
        stored = [str(tile[3]) for tile in image.tile[:1]]
    if stored == ["L;2"]:
        return values // 85
    if stored == ["L;4"]:
        return values // 17
    return values


def _for_pillow(file: File) -> Path | io.BytesIO:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    check_regular(file)
    return file


@lru_cache(maxsize=_OPEN_SCENES)
def _kept_open(path: str, reading: Reading, process: int) -> Scene:
    """The scene at `path`, opened once per process: forked workers must not share a file handle."""
    return reading.open(path)


def _keeps_pictures(reading: Reading) -> bool:
    """Whether plain 8-bit pictures are read unchanged."""
    return reading.bands is None and not reading.nodata and reading.num_channels == 3


@contextmanager
def _scene(file: File, name: str, reading: Reading) -> Iterator[Scene]:
    """A file or bytes opened by GDAL; bytes are written to a temporary file."""
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
