"""Tiles of one mosaic as one virtual raster (VRT)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags

from ..errors import InputError
from .gdal import GDAL_ERRORS, ignore_missing_georeference
from .source_files import check_raster

TILES_MARK = "CROSSEARTH_TILES"
"""Metadata of these VRTs, by which they are known."""

_LARGEST_SHIFT = 0.05  # pixels between the grids of two tiles; our choice
_LARGEST_DIFFERENCE = 1e-6  # relative, of pixel sizes
_TYPES = {
    **{
        "uint8": "Byte",
        "int8": "Int8",
        "uint16": "UInt16",
        "int16": "Int16",
        "uint32": "UInt32",
        "int32": "Int32",
    },
    **{"uint64": "UInt64", "int64": "Int64", "float32": "Float32", "float64": "Float64"},
}  # GDAL's names


@dataclass(frozen=True)
class _Kind:
    """What all tiles share."""

    crs: Any
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    colors: tuple[ColorInterp, ...]
    names: tuple[str | None, ...]

    def difference(self, other: "_Kind") -> str | None:
        """In what another tile differs."""
        if self.crs != other.crs:
            return "has another CRS"
        if len(self.dtypes) != len(other.dtypes):
            return f"has {len(other.dtypes)} bands, not {len(self.dtypes)}"
        if self.dtypes != other.dtypes:
            return f"holds {other.dtypes[0]}, not {self.dtypes[0]}"
        if repr(self.nodata) != repr(other.nodata):  # NaN is not equal to itself
            return "has another nodata value"
        return None


@dataclass(frozen=True)
class _Tile:
    path: str
    transform: Affine
    width: int
    height: int
    block: tuple[int, int]


def mosaic_vrt(tiles: Sequence[str]) -> str:
    """The text of a VRT of tiles that lie side by side; where they overlap, the later one is on top.

    Pixels without a tile have no data. Tiles have one CRS, pixel size, number and type of bands, and nodata value.

    Args:
        tiles: Rasters on this machine.

    Raises:
        InputError: A tile cannot be read, is rotated, has no place or differs from the first one.
    """
    first, kind, has_mask = _opened(tiles[0])
    found = [first]
    for path in tiles[1:]:
        tile, other, masked = _opened(path)
        different = kind.difference(other) or _misfit(first, tile)
        if different is not None:
            raise InputError(
                f"{path} {different} than {tiles[0]}, so they cannot form one mosaic; make them alike "
                "(gdalwarp), or map them one by one"
            )
        found.append(tile)
        has_mask |= masked
    a, e = first.transform.a, first.transform.e
    cols = [round((tile.transform.c - first.transform.c) / a) for tile in found]
    rows = [round((tile.transform.f - first.transform.f) / e) for tile in found]
    left, top = min(cols), min(rows)
    places = [(row - top, col - left) for row, col in zip(rows, cols, strict=True)]
    width = max(col + tile.width for (_, col), tile in zip(places, found, strict=True))
    height = max(row + tile.height for (row, _), tile in zip(places, found, strict=True))
    corner = first.transform @ (left, top)
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    metadata = ElementTree.SubElement(root, "Metadata")
    ElementTree.SubElement(metadata, "MDI", key=TILES_MARK).text = "yes"
    if kind.crs is not None:
        ElementTree.SubElement(root, "SRS").text = kind.crs.to_wkt()
    place = (corner[0], a, 0.0, corner[1], 0.0, e)
    ElementTree.SubElement(root, "GeoTransform").text = ", ".join(
        f"{number:.17g}" for number in place
    )
    for band, dtype in enumerate(kind.dtypes, 1):
        element = _band(root, band, dtype, kind)
        for tile, (row, col) in zip(found, places, strict=True):
            element.append(_source(tile, str(band), row, col, dtype, kind.nodata[band - 1]))
    if has_mask or kind.nodata[0] is None:
        mask = ElementTree.SubElement(
            ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte"
        )
        for tile, (row, col) in zip(found, places, strict=True):
            mask.append(_source(tile, "mask,1", row, col, "uint8"))
    return ElementTree.tostring(root, encoding="unicode")


def mosaic_tiles(path: str) -> list[str]:
    """The tiles of a VRT that `mosaic_vrt` wrote, the first one first."""
    root = ElementTree.parse(path).getroot()
    return list(dict.fromkeys(element.text or "" for element in root.iter("SourceFilename")))


def _band(root: ElementTree.Element, band: int, dtype: str, kind: _Kind) -> ElementTree.Element:
    """A band without sources."""
    element = ElementTree.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band))
    name, nodata, color = kind.names[band - 1], kind.nodata[band - 1], kind.colors[band - 1]
    if name:
        ElementTree.SubElement(element, "Description").text = name
    if nodata is not None:
        ElementTree.SubElement(element, "NoDataValue").text = f"{nodata:.17g}"
    ElementTree.SubElement(element, "ColorInterp").text = color.name.capitalize()
    return element


def _source(
    tile: _Tile, band: str, row: int, col: int, dtype: str, nodata: float | None = None
) -> ElementTree.Element:
    """A tile as a source at (row, col), which hides nothing where it has the value `nodata`."""
    size = {"xSize": str(tile.width), "ySize": str(tile.height)}
    if nodata is None:
        source = ElementTree.Element("SimpleSource")
    else:
        source = ElementTree.Element("ComplexSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = tile.path
    ElementTree.SubElement(source, "SourceBand").text = band
    properties = {
        "RasterXSize": str(tile.width),
        "RasterYSize": str(tile.height),
        "DataType": _TYPES[dtype],
        "BlockXSize": str(tile.block[1]),
        "BlockYSize": str(tile.block[0]),
    }  # so that tiles are opened only when needed
    ElementTree.SubElement(source, "SourceProperties", properties)
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(col), "yOff": str(row), **size})
    if nodata is not None:
        ElementTree.SubElement(source, "NODATA").text = f"{nodata:.17g}"
    return source


def _opened(path: str) -> tuple[_Tile, _Kind, bool]:
    """A tile, what it shares with others, and whether it has a mask beside its bands."""
    check_raster(path)
    ignore_missing_georeference()
    try:
        with rasterio.open(path) as source:
            transform, size = source.transform, (source.width, source.height)
            kind = _Kind(
                source.crs,
                source.dtypes,
                source.nodatavals,
                source.colorinterp,
                tuple(source.descriptions),
            )
            has_mask = MaskFlags.per_dataset in source.mask_flag_enums[0]
            block = source.block_shapes[0]
    except GDAL_ERRORS as error:
        raise InputError(
            f"the tile {path} is damaged or is not a raster that GDAL can read; remove it"
        ) from error
    if transform.is_identity or transform.b or transform.d:
        raise InputError(
            f"the tile {path} has no georeference or is rotated; warp it (gdalwarp) or map it alone"
        )
    if not set(kind.dtypes) <= set(_TYPES):
        raise InputError(
            f"the tile {path} holds {kind.dtypes[0]}, which is not imagery; use rasters of real numbers"
        )
    if ColorInterp.palette in kind.colors:
        raise InputError(
            f"the tile {path} has a palette; expand it to colors first (gdal_translate -expand rgb)"
        )
    return _Tile(os.path.abspath(path), transform, *size, block), kind, has_mask


def _misfit(first: _Tile, tile: _Tile) -> str | None:
    """Why a tile does not lie on the grid of the first one."""
    a, e = first.transform.a, first.transform.e
    sizes = ((tile.transform.a, a), (tile.transform.e, e))
    if any(abs(own - other) > _LARGEST_DIFFERENCE * abs(other) for own, other in sizes):
        return "has pixels of another size"
    if max(_shifts(first, tile)) > _LARGEST_SHIFT:
        return "lies between the pixels, on another grid"
    return None


def _shifts(first: _Tile, tile: _Tile) -> Iterator[float]:
    """Pixels by which a tile lies between those of the first one, across and down."""
    offsets = (
        (tile.transform.c - first.transform.c) / first.transform.a,
        (tile.transform.f - first.transform.f) / first.transform.e,
    )
    for offset in offsets:
        yield abs(offset - round(offset))
