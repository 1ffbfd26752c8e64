"""Exact raw pixels of all bands and types, by windows, from files and members of zips; and their encoding.

`raster.scene.Scene` reads a raster as 8-bit RGB; here nothing is stretched, chosen or masked.
"""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from ...errors import InputError
from ...raster.formats import SIGNATURE_BYTES, raster_driver
from ...raster.gdal import GDAL_ERRORS
from ...raster.grid import Grid
from .archives import READ_ERRORS, RawFile

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
PNG_OPTIONS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Of images. Aerial tiles hold few repetitions beyond runs: zlib's search for them (the default, at level 6) takes 4 to
6 times as long, and the files are within -0.4 and +2.2 % of it (tiles of Potsdam, Vaihingen and LoveDA)."""
LABEL_OPTIONS = {"compress_level": 6}
"""Of label maps, which do repeat: 2 ms a tile, a quarter smaller than at level 1."""

_PLAIN_MODES = {"L": 1, "RGB": 3}
_PNG_END, _TAIL = (
    b"IEND\xaeB`\x82",
    1024,
)  # the last chunk; some programs write a few bytes behind it
_MAX_PIXELS = 2**31
_NEAR = 2**16  # bytes
_OPTIONS = {
    "GDAL_CACHEMAX": 32 * 2**20,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # sidecar files are not part of the raw data
    "GDAL_ERROR_ON_LIBJPEG_WARNING": True,  # a JPEG that breaks off is damaged, not gray at the bottom
}


@dataclass(frozen=True)
class RawRaster:
    """An image opened for reading by windows.

    Attributes:
        name: What messages call it.
        grid: Size and georeference.
        bands: Number of bands.
        dtype: Type of the values.
        format: "GTiff", "PNG" or "JPEG".
    """

    name: str
    grid: Grid
    bands: int
    dtype: np.dtype[Any]
    format: str
    _source: Any

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.grid.height, self.grid.width

    def read(
        self, row: int, col: int, height: int, width: int, bands: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """(height, width, bands) values of a window; `InputError` on damaged data or a band that is not there."""
        if bands is not None and max(bands) > self.bands:
            raise InputError(
                f"{self.name} has {self.bands} bands, no band {max(bands)}; check the raw file"
            )
        try:
            window = Window(col, row, width, height)
            values = self._source.read(bands and list(bands), window=window)
        except GDAL_ERRORS as error:
            raise InputError(
                f"{self.name} is damaged or cut off ({error}); download or copy it again"
            ) from error
        return values.transpose(1, 2, 0)


@contextmanager
def open_raster(file: RawFile, content: bytes | None = None) -> Iterator[RawRaster]:
    """Opens a TIFF, PNG or JPEG. A file on disk is read by windows; a member of a zip is held in memory once,
    as it is stored, checksum verified.

    Args:
        file: The raw file.
        content: Its bytes, if they have been read already.

    Raises:
        InputError: The file is not an image of these kinds, it is damaged, or it is larger than 2^31 pixels.
    """
    if content is None and file.member is not None:
        content = file.read_bytes()
    with warnings.catch_warnings(), rasterio.Env(**_OPTIONS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with _opened(file, content) as source:
            if source.width * source.height > _MAX_PIXELS or source.count == 0:
                raise InputError(
                    f"{file} is {source.width}x{source.height} pixels, which no raw image of this set is"
                )
            dtype = np.dtype(source.dtypes[0])
            yield RawRaster(str(file), Grid.of(source), source.count, dtype, source.driver, source)


@contextmanager
def _opened(file: RawFile, content: bytes | None) -> Iterator[Any]:
    """The rasterio dataset of a file, or of its bytes."""
    driver = _driver(file, content)
    if driver == "PNG":
        if content is None:
            content = file.read_bytes()
        if _PNG_END not in content[-_TAIL:]:  # GDAL reads black where a PNG breaks off
            raise InputError(
                f"{file} is damaged or cut off (it has no end); download or copy it again"
            )
    with ExitStack() as stack:
        try:
            if content is None:
                source = rasterio.open(file.path, driver=driver)
            else:
                source = stack.enter_context(MemoryFile(content)).open(driver=driver)
        except GDAL_ERRORS as error:
            raise InputError(
                f"{file} cannot be read as an image ({error}); download or copy it again"
            ) from error
        yield stack.enter_context(source)


def _driver(file: RawFile, content: bytes | None) -> str:
    if content is None:
        with file.stream() as stream:
            content = stream.read(SIGNATURE_BYTES)
    driver = raster_driver(content)
    if driver is None:
        raise InputError(
            f"{file} cannot be read as an image (no TIFF, PNG or JPEG); download or copy it again"
        )
    return driver


@dataclass(frozen=True)
class Header:
    """The header of an image: (height, width), number of bands, type of the values."""

    size: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]


def read_header(file: RawFile) -> Header:
    """The header of an image, read alone where its place and format allow; raises as `open_raster`."""
    try:
        with file.stream() as stream:
            if file.member is None or _starts_with_header(stream.read(8)):
                stream.seek(0)
                with Image.open(stream) as image:
                    # Pillow takes 16-bit color for 8-bit; only its decoder's name tells.
                    if image.mode in _PLAIN_MODES and "16" not in str(image.tile):
                        return Header(
                            (image.height, image.width),
                            _PLAIN_MODES[image.mode],
                            np.dtype(np.uint8),
                        )
    except (*READ_ERRORS, SyntaxError, Image.DecompressionBombError):
        pass  # Pillow does not know every TIFF
    with open_raster(file) as raster:
        return Header(raster.size, raster.bands, raster.dtype)


def _starts_with_header(head: bytes) -> bool:
    """Whether a TIFF's directory lies near the start; otherwise a zip would be decompressed twice to reach it."""
    order = {b"II": "little", b"MM": "big"}.get(head[:2])
    return order is None or int.from_bytes(head[4:8], order) < _NEAR  # type: ignore[arg-type]


def encode_image(pixels: np.ndarray) -> tuple[bytes, str]:
    """(H, W, bands) values -> the bytes of a lossless image file, and its ending.

    PNG for 8-bit gray and RGB; Deflate-compressed TIFF for everything else, with all bands as plain samples (Pillow and
    `datasets.Image` cannot decode every such TIFF: read it with rasterio).
    """
    height, width, bands = pixels.shape
    if pixels.dtype == np.uint8 and bands == 1:
        return _png(pixels[..., 0], PNG_OPTIONS), ".png"
    if pixels.dtype == np.uint8 and bands == 3:
        return _png(pixels, PNG_OPTIONS), ".png"
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": bands,
        "dtype": pixels.dtype,
    }
    options = {
        "compress": "deflate",
        "interleave": "pixel",
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(**profile, **options) as target:
            target.write(pixels.transpose(2, 0, 1))
        return bytes(memory.getbuffer()), ".tif"


def encode_labels(labels: np.ndarray) -> bytes:
    """(H, W) uint8 ids as PNG."""
    return _png(labels, LABEL_OPTIONS)


def _png(pixels: np.ndarray, options: dict[str, int]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", **options)
    return buffer.getvalue()
