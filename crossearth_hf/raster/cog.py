"""The rasters of a map: written in blocks into working files, joined, and copied to Cloud-Optimized GeoTIFFs."""

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
from .gdal import GDAL_ERRORS, ignore_missing_georeference, read_in_order, silence_libtiff
from .grid import Grid
from .writing import JOB_TAG, TILE, Block, check_written, create_geotiff, write_errors

SHARE_STEP = 0.004
"""Step of shares that are written as bytes: 0 to 250 for 0 to 1, with 255 for no data."""

_SOURCES = "Sources"  # placeholder for the sources of a band while a VRT is written

RasterReader = Callable[[tuple[float, float, float, float], tuple[int, int]], np.ndarray]
"""`read(window, shape)`: nearest values (bands, *shape) in a window (row, col, height, width), which may be "
"fractions."""


@dataclass(frozen=True)
class Layer:
    """Content of a raster of a map.

    Attributes:
        name: "labels", "confidence" or "probabilities".
        dtype: Type of the values.
        nodata: Value that means no data.
        bands: Names of the bands.
        label_set: Classes of a categorical band, for its color table, class names and overviews of the most frequent
            class. Otherwise overviews are averages.
        scale: What the file's values are to be multiplied by, as its metadata say; None if they are meant as they are.
        job: What decides the values, which becomes a tag; None for working files.
    """

    name: str
    dtype: str
    nodata: float
    bands: tuple[str, ...]
    label_set: LabelSet | None = None
    scale: float | None = None
    job: str | None = None

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Values as the file holds them; NaN becomes no data where there is a scale."""
        if self.scale is None:
            return values
        steps = np.rint(np.nan_to_num(values) / self.scale)
        return np.where(np.isnan(values), self.nodata, steps).astype(self.dtype)


def map_layers(label_set: LabelSet, *, float_shares: bool = False) -> dict[str, Layer]:
    """The possible layers of a map, by name; shares are bytes in steps of `SHARE_STEP`, or float32."""
    shares: dict[str, Any]
    if float_shares:
        shares = {"dtype": "float32", "nodata": float("nan")}
    else:
        shares = {"dtype": "uint8", "nodata": IGNORE_INDEX, "scale": SHARE_STEP}
    return {
        "labels": Layer("labels", "uint8", IGNORE_INDEX, ("class",), label_set),
        "confidence": Layer("confidence", bands=("confidence",), **shares),
        "probabilities": Layer("probabilities", bands=label_set.classes, **shares),
    }


def read_share(
    path: Path, window: tuple[float, float, float, float], shape: tuple[int, int]
) -> np.ndarray:
    """Nearest shares (*shape) of a file's first band in a window (row, col, height, width), NaN without data."""
    row, col, height, width = window
    ignore_missing_georeference()
    with rasterio.open(path) as source:
        values = source.read(
            1, window=Window(col, row, width, height), out_shape=shape, masked=True
        )
        return (values.astype(np.float32) * np.float32(source.scales[0])).filled(np.nan)


class BlockFile:
    """A working file of a layer, written block by block and read again when it is closed.

    Args:
        path: GeoTIFF to write.
        grid: Size and georeference.
        layer: Its content.
        output: The file that a person asked for, for error messages; `path` by default.

    Attributes:
        blocks: Written blocks.

    Raises:
        InputError: The disk is full or the file cannot be written. All methods raise this error too.
    """

    def __init__(self, path: Path, grid: Grid, layer: Layer, output: Path | None = None) -> None:
        self.path, self.blocks = path, list[Block]()
        self._output = output or path
        with write_errors(self._output, path):
            # Confidences hardly compress; probabilities have few digits.
            compression = (
                {"compress": "none"}
                if layer.name == "confidence"
                else {"compress": "deflate", "zlevel": 1}
            )
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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with write_errors(self._output, self.path):
            self._target.close()
            if kind is None:
                check_written(self.path, self.blocks)


@dataclass(frozen=True)
class Piece:
    """A closed working file with a rectangle of a raster, and its blocks in the file's own pixels."""

    path: Path
    top: int
    left: int
    height: int
    width: int
    blocks: tuple[Block, ...]


def write_mosaic(
    path: Path, grid: Grid, layer: Layer, pieces: Iterable[Piece], output: Path | None = None
) -> None:
    """Writes a GDAL virtual raster (VRT) of a layer that consists of pieces; other pixels have no data.

    Args:
        path: File to write.
        grid, layer: Grid and layer of the whole.
        pieces: Its working files; iterated once per band.
        output: As in `BlockFile`.

    Raises:
        InputError: The file cannot be written.
    """
    template = path.with_name(f"empty-{path.name}.tif")
    with write_errors(output or path, path):
        _create(template, grid, layer, sparse_ok=True).close()
        # GDAL writes georeference, colors and names
        rasterio.shutil.copy(template, path, driver="VRT")
        root = ElementTree.parse(path).getroot()
        for band in list(root.iter("VRTRasterBand")):
            for source in band.findall("SimpleSource") + band.findall("ComplexSource"):
                band.remove(source)
            ElementTree.SubElement(band, _SOURCES)
        head, *rest = ElementTree.tostring(root, encoding="unicode").split(f"<{_SOURCES} />")
        with open(path, "w", encoding="utf-8") as file:  # piece by piece, because there may be many
            file.write(head)
            for index, following in enumerate(rest, 1):
                sources = (_source(piece, index, layer.dtype) for piece in pieces)
                file.writelines(
                    ElementTree.tostring(source, encoding="unicode") for source in sources
                )
                file.write(following)
        template.unlink()
        for side_file in side_files(template):  # what GeoTIFF cannot hold; the VRT has it now
            side_file.unlink(missing_ok=True)


def write_cog(
    target: Path, source: Path, layer: Layer, blocks: Iterable[Block], output: Path | None = None
) -> None:
    """Copies a working file or mosaic to a Cloud-Optimized GeoTIFF with overviews, and reads it again.

    Args:
        target: File to write.
        source: Closed working file or mosaic.
        layer: Its content.
        blocks: Blocks that the target must then contain, in its pixels.
        output: As in `BlockFile`.

    Raises:
        InputError: The disk is full or the file cannot be written.
    """
    categorical = layer.label_set is not None
    if categorical:
        compression = {"level": 6, "predictor": "NO"}
    elif layer.dtype == "uint8":
        compression = {"level": 6, "predictor": "STANDARD"}
    else:  # higher levels save 3 % of the size at twice the time
        compression = {"level": 1, "predictor": "FLOATING_POINT"}
    ignore_missing_georeference()
    silence_libtiff()
    with write_errors(output or target, target), rasterio.Env(GDAL_PAM_ENABLED=True):
        rasterio.shutil.copy(
            source,
            target,
            driver="COG",
            compress="DEFLATE",
            **compression,
            blocksize=512,
            overview_resampling="MODE" if categorical else "AVERAGE",
            bigtiff="IF_SAFER",
            num_threads="ALL_CPUS",
        )
        check_written(target, blocks)


def crs_remark(written: Path, grid: Grid, output: Path) -> str | None:
    """A sentence if the finished file `written` does not contain the CRS of its grid; else None.

    GDAL writes a CRS without GeoTIFF keys, such as a rotated pole, into a side file.
    """
    with rasterio.open(written) as raster:
        found = Grid.of(raster)
    if (found.crs, found.gcps_crs) != (grid.crs, grid.gcps_crs):
        return (
            f"{output} has another CRS than the scene, because GeoTIFF cannot hold the scene's CRS"
        )
    present = [file for file in side_files(written) if file.exists()]
    if present:
        return f"GeoTIFF cannot hold the CRS of the scene: keep {output}{present[0].name.removeprefix(written.name)}"
    return None


@contextmanager
def raster_reader(path: Path) -> Iterator[RasterReader]:
    """Opens a working file or mosaic; yields a function that reads it, or raises `InputError`."""
    ignore_missing_georeference()
    read_in_order()
    with rasterio.open(path) as source:

        def read(window: tuple[float, float, float, float], shape: tuple[int, int]) -> np.ndarray:
            row, col, height, width = window
            try:
                return source.read(
                    window=Window(col, row, width, height), out_shape=(source.count, *shape)
                )
            except GDAL_ERRORS as error:
                raise InputError(
                    f"the working file {path} cannot be read again; run again"
                ) from error

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
    if layer.job is not None:
        dataset.update_tags(**{JOB_TAG: layer.job})
    if layer.scale is not None:
        dataset.scales = [layer.scale] * len(layer.bands)
    return dataset


def _source(piece: Piece, band: int, dtype: str) -> ElementTree.Element:
    """A band of a piece as a source of a virtual raster's band."""
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
    }  # so that pieces are opened only when needed
    ElementTree.SubElement(source, "SourceProperties", properties)
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(
        source, "DstRect", {"xOff": str(piece.left), "yOff": str(piece.top), **size}
    )
    return source
