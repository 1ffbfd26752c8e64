"""Writing arrays and blocks as GeoTIFFs, which are read again to check them."""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio._io
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from ..errors import InputError
from ..files.outputs import check_output, refusal_of_disk, staged
from ..labels import IGNORE_INDEX, LabelSet
from .gdal import GDAL_ERRORS, gdal_cause, ignore_missing_georeference, silence_libtiff
from .grid import Grid

OUTPUT_TAG = "CROSSEARTH"
JOB_TAG = "CROSSEARTH_JOB"
"""Tag of our own results with their content: "labels", "confidence", "probabilities" or "preview"."""

TILE = 256
"""Side of the tiles of working files in pixels; blocks at multiples of it are compressed only once."""


def write_geotiff(
    path: str | os.PathLike[str],
    pixels: np.ndarray,
    *,
    crs: Any,
    transform: Affine,
    nodata: float | None = None,
    label_set: LabelSet | None = None,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Writes an array as a tiled, compressed GeoTIFF.

    Args:
        path: Ends in .tif or .tiff.
        pixels: (C, H, W) of any type that GeoTIFF supports.
        crs: Anything that rasterio accepts as a CRS, or None.
        transform: From (column, row) to CRS coordinates.
        nodata: Value of pixels without data.
        label_set: Adds class names and, with C = 1 and uint8, the color table.
        overwrite: Whether an existing file may be replaced.
        options: More creation options of GDAL.

    Raises:
        InputError: The path must not be written, or the disk is full.
    """
    target = check_output(path, (".tif", ".tiff"), overwrite=overwrite)
    count, height, width = pixels.shape
    grid = Grid(width, height, None if crs is None else CRS.from_user_input(crs), transform)
    with staged([target]) as (stage,), write_errors(target, stage):
        dtype = str(pixels.dtype)
        with create_geotiff(
            stage, grid, dtype, count=count, nodata=nodata, label_set=label_set, **options
        ) as dataset:
            dataset.write(pixels)
        check_written(stage, [Block.of(0, 0, pixels)])


def create_geotiff(
    path: Path,
    grid: Grid,
    dtype: str,
    *,
    count: int,
    nodata: float | None,
    label_set: LabelSet | None = None,
    content: str | None = None,
    compress: str = "deflate",
    **options: Any,
) -> Any:
    """A new tiled GeoTIFF, open for writing; classes get their names and colors, 255 is transparent.

    `content` becomes the tag that identifies our own results; by default "labels" if there are classes.
    """
    ignore_missing_georeference()
    silence_libtiff()
    dataset = rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=grid.width,
        height=grid.height,
        count=count,
        dtype=dtype,
        nodata=nodata,
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        compress=compress,
        bigtiff="if_safer",
        **options,
        **grid.georeference(),
    )
    if content is not None or label_set is not None:
        dataset.update_tags(**{OUTPUT_TAG: content or "labels"})
    if label_set is not None:
        dataset.write_colormap(1, {**dict(enumerate(label_set.colors)), IGNORE_INDEX: (0, 0, 0, 0)})
        dataset.update_tags(
            1, **{f"CLASS_{index}": name for index, name in enumerate(label_set.classes)}
        )
        dataset.set_band_description(1, "class")
    return dataset


@dataclass(frozen=True)
class Block:
    """A rectangle written into a raster, in its pixels, and the CRC-32 of its (bands, height, width) values."""

    row: int
    col: int
    height: int
    width: int
    checksum: int

    @classmethod
    def of(cls, row: int, col: int, values: np.ndarray) -> "Block":
        """The block of (..., H, W) `values` written at (row, col)."""
        height, width = values.shape[-2:]
        return cls(row, col, height, width, zlib.crc32(np.ascontiguousarray(values).data))


def check_written(path: Path, blocks: Iterable[Block]) -> None:
    """Reads blocks of a file again, because GDAL does not report errors when a file is closed.

    Raises:
        RasterioIOError: The content differs.
    """
    with rasterio.open(path) as dataset:
        for block in blocks:
            values = dataset.read(window=Window(block.col, block.row, block.width, block.height))
            if Block.of(block.row, block.col, values) != block:
                raise RasterioIOError("the written data cannot be read again")


@contextmanager
def write_errors(output: Path, working_file: Path | None = None) -> Iterator[None]:
    """Turns GDAL's errors while writing into `InputError`.

    Args:
        output: The file that a person asked for.
        working_file: The file that is written for it, if that is another one.
    """
    try:
        yield
    except GDAL_ERRORS as error:
        reason = refusal_of_disk((working_file or output).parent) or gdal_cause(error)
        raise InputError(
            f"{output} cannot be written ({reason}), and nothing was changed; free space or choose another folder"
        ) from error
