"""The rasters of a map: written block by block into working files, put together, copied to Cloud-Optimized GeoTIFFs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.windows import Window

from ..errors import InputError
from ..files.working_folders import side_files
from ..labels import IGNORE_INDEX, LabelSet
from .gdal import GDAL_ERRORS, ignore_missing_georeference, silence_libtiff
from .grid import Grid
from .writing import TILE, Block, check_written, create_geotiff, write_errors

_SOURCES = "Sources"  # stands for those of a band while a VRT is written

RasterReader = Callable[[tuple[float, float, float, float], tuple[int, int]], np.ndarray]
"""Nearest values (bands, *shape) in a window (row, col, height, width), fractions allowed: `read(window, shape)`."""


@dataclass(frozen=True)
class Layer:
    """What a raster of a map holds.

    Attributes:
        name: "labels", "confidence" or "probabilities".
        dtype: Type of the values.
        nodata: Value without data.
        bands: Names of the bands.
        label_set: Of a categorical band: its color table, class names and overviews of the most frequent class. Else
            overviews are averages.
    """

    name: str
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    label_set: LabelSet | None = None


def map_layers(label_set: LabelSet) -> dict[str, Layer]:
    """The layers that a map can have, by name."""
    nan = float("nan")
    return {
        "labels": Layer("labels", "uint8", IGNORE_INDEX, ("class",), label_set),
        "confidence": Layer("confidence", "float32", nan, ("confidence",)),
        "probabilities": Layer("probabilities", "float32", nan, label_set.classes),
    }


class BlockFile:
    """A working file of a layer, written block by block, read again once it is closed.

    Args:
        path: GeoTIFF to write.
        grid: Size and georeference.
        layer: What it holds.
        output: The file that a person asked for, named where writing fails; `path` by default.

    Attributes:
        blocks: What was written.

    Raises:
        InputError: from here and all methods, where the disk is full or the file cannot be written.
    """

    def __init__(self, path: Path, grid: Grid, layer: Layer, output: Path | None = None) -> None:
        self.path, self.blocks = path, list[Block]()
        self._output = output or path
        with write_errors(self._output, path):
            # The digits of confidences hardly compress; those of probabilities are few.
            compression = {"compress": "none"} if layer.name == "confidence" else {"compress": "deflate", "zlevel": 1}
            self._target = _create(path, grid, layer, **compression)

    def write(self, row: int, col: int, values: np.ndarray) -> None:
        """Writes (H, W) or (bands, H, W) values at (row, col)."""
        values = values.reshape(-1, *values.shape[-2:])
        with write_errors(self._output, self.path):
            self._target.write(values, window=Window(col, row, values.shape[2], values.shape[1]))
        self.blocks.append(Block.of(row, col, values))

    def __enter__(self) -> "BlockFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with write_errors(self._output, self.path):
            self._target.close()
            if kind is None:
                check_written(self.path, self.blocks)


@dataclass(frozen=True)
class Piece:
    """A closed working file that holds a rectangle of a raster, and the blocks of it in the file's own pixels."""

    path: Path
    top: int
    left: int
    height: int
    width: int
    blocks: tuple[Block, ...]


def write_mosaic(path: Path, grid: Grid, layer: Layer, pieces: Iterable[Piece], output: Path | None = None) -> None:
    """Writes a GDAL virtual raster (VRT) of a layer that consists of pieces; pixels of no piece hold no data.

    Args:
        path: To be written.
        grid, layer: Of the whole.
        pieces: Its working files, gone through once for each band.
        output: As in `BlockFile`.

    Raises:
        InputError: where it cannot be written.
    """
    template = path.with_name(f"empty-{path.name}.tif")
    with write_errors(output or path, path):
        _create(template, grid, layer, sparse_ok=True).close()
        rasterio.shutil.copy(template, path, driver="VRT")  # GDAL writes georeference, colors and names in its way
        root = ElementTree.parse(path).getroot()
        for band in list(root.iter("VRTRasterBand")):
            for source in band.findall("SimpleSource") + band.findall("ComplexSource"):
                band.remove(source)
            ElementTree.SubElement(band, _SOURCES)
        head, *rest = ElementTree.tostring(root, encoding="unicode").split(f"<{_SOURCES} />")
        with open(path, "w", encoding="utf-8") as file:  # piece by piece, since they may be many
            file.write(head)
            for index, following in enumerate(rest, 1):
                sources = (_source(piece, index, layer.dtype) for piece in pieces)
                file.writelines(ElementTree.tostring(source, encoding="unicode") for source in sources)
                file.write(following)
        template.unlink()
        for side_file in side_files(template):  # GDAL puts there what GeoTIFF cannot hold; the VRT holds it now
            side_file.unlink(missing_ok=True)


def write_cog(target: Path, source: Path, layer: Layer, blocks: Iterable[Block], output: Path | None = None) -> None:
    """Copies a working file or mosaic to a Cloud-Optimized GeoTIFF with overviews, and reads it again.

    Args:
        target: To be written.
        source: Closed working file or mosaic.
        layer: What it holds.
        blocks: What the target must hold then, in its pixels.
        output: As in `BlockFile`.

    Raises:
        InputError: where the disk is full or the file cannot be written.
    """
    categorical = layer.label_set is not None
    ignore_missing_georeference()
    silence_libtiff()
    with write_errors(output or target, target), rasterio.Env(GDAL_PAM_ENABLED=True):
        rasterio.shutil.copy(
            source,
            target,
            driver="COG",
            compress="DEFLATE",
            level=6 if categorical else 1,  # of shares the higher levels save 3 % of the size for twice the time
            predictor="NO" if categorical else "FLOATING_POINT",
            blocksize=512,
            overview_resampling="MODE" if categorical else "AVERAGE",
            bigtiff="IF_SAFER",
            num_threads="ALL_CPUS",
        )
        check_written(target, blocks)


def crs_remark(written: Path, grid: Grid, output: Path) -> str | None:
    """A sentence where a finished file `written` does not hold the CRS of its grid by itself; None where it does.

    GDAL puts a CRS that GeoTIFF has no keys for, such as a rotated pole, into a side file.
    """
    with rasterio.open(written) as raster:
        found = Grid.of(raster)
    if (found.crs, found.gcps_crs) != (grid.crs, grid.gcps_crs):
        return f"{output} has another CRS than the scene: GeoTIFF cannot hold that one"
    present = [file for file in side_files(written) if file.exists()]
    if present:
        return f"GeoTIFF cannot hold the CRS of the scene: keep {output}{present[0].name.removeprefix(written.name)}"
    return None


@contextmanager
def raster_reader(path: Path) -> Iterator[RasterReader]:
    """Opens a working file or mosaic for reading; what it yields raises `InputError` where that fails."""
    ignore_missing_georeference()
    with rasterio.open(path) as source:

        def read(window: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
            row, col, height, width = window
            try:
                return source.read(window=Window(col, row, width, height), out_shape=(source.count, *shape))
            except GDAL_ERRORS as error:
                raise InputError(f"the working file {path} cannot be read again; run again") from error

        yield read


def _create(path: Path, grid: Grid, layer: Layer, **options: Any) -> rasterio.io.DatasetWriter:
    """A new GeoTIFF for a layer, with the names of its bands."""
    dataset = create_geotiff(
        path,
        grid,
        layer.dtype,
        count=len(layer.bands),
        nodata=layer.nodata,
        label_set=layer.label_set,
        content=layer.name,
        interleave="band",
        **options,
    )
    for index, name in enumerate(layer.bands, 1):
        dataset.set_band_description(index, name)
    return dataset


def _source(piece: Piece, band: int, dtype: str) -> ElementTree.Element:
    """A band of a piece as source of a band of a virtual raster."""
    size = {"xSize": str(piece.width), "ySize": str(piece.height)}
    source = ElementTree.Element("SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = str(piece.path)
    ElementTree.SubElement(source, "SourceBand").text = str(band)
    properties = {
        "RasterXSize": str(piece.width),
        "RasterYSize": str(piece.height),
        "DataType": {"uint8": "Byte", "float32": "Float32"}[dtype],
        "BlockXSize": str(TILE),
        "BlockYSize": str(TILE),
    }  # so that pieces are opened when they are needed
    ElementTree.SubElement(source, "SourceProperties", properties)
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(piece.left), "yOff": str(piece.top), **size})
    return source
