"""Tiles of one mosaic as one virtual raster (VRT)."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags

from ..errors import InputError
from .gdal import GDAL_ERRORS, ignore_missing_georeference
from .raw_bands import transparency_band
from .source_files import check_raster

TILES_MARK = "CROSSEARTH_TILES"
"""Metadata of these VRTs, by which they are known."""

_INNER_BLOCK = 128  # pixels, GDAL's block of a VRT within a VRT
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

    @property
    def is_float(self) -> bool:
        return self.dtypes[0].startswith("float")

    @property
    def shares_nodata(self) -> bool:
        """Whether a pixel has no data if all bands have their nodata value, which GDAL cannot compare with NaN."""
        return all(value is not None and not math.isnan(value) for value in self.nodata)


@dataclass(frozen=True)
class _Tile:
    path: str
    transform: Affine
    width: int
    height: int
    block: tuple[int, int]
    has_mask: bool  # beside its bands
    has_transparency: bool


def mosaic_vrt(tiles: Sequence[str], nodata: Sequence[float] | None = None) -> str:
    """The text of a VRT of tiles that lie side by side; where they overlap, the later one with data is on top.

    A pixel comes whole from one tile. Pixels without a tile have no data. Tiles have one CRS, pixel size, number and
    type of bands, and nodata value.

    Args:
        tiles: Rasters on this machine.
        nodata: The values that mean no data, as in `Scene`. A single one counts as the nodata value of tiles that
            declare none and have no alpha band; which tile is on top does not depend on others.

    Raises:
        InputError: A tile cannot be read, is rotated, has no place or differs from the first one.
    """
    first, kind = _opened(tiles[0])
    found = [first]
    for path in tiles[1:]:
        tile, other = _opened(path)
        different = kind.difference(other) or _misfit(first, tile)
        if different is not None:
            raise InputError(
                f"{path} {different} than {tiles[0]}, so they cannot form one mosaic; make them alike "
                "(gdalwarp), or map them one by one"
            )
        found.append(tile)
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
    # alpha may mark a band of data, in which 0 is a value like any other
    is_transparent = all(tile.has_transparency for tile in found)
    hidden = _with_given(kind, nodata or ())
    sources = [
        _Source(tile, hidden, place, is_transparent)
        for tile, place in zip(found, places, strict=True)
    ]
    for band, dtype in enumerate(kind.dtypes, 1):
        _band(root, band, dtype, kind).extend(source.of_band(band) for source in sources)
    if kind.nodata[0] is None or any(tile.has_mask for tile in found):
        mask = ElementTree.SubElement(
            ElementTree.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte"
        )
        mask.extend(source.of_mask() for source in sources)
    return ElementTree.tostring(root, encoding="unicode")


def _with_given(kind: _Kind, nodata: Sequence[float]) -> _Kind:
    """The kind with a given nodata value, where the tiles leave it open."""
    is_open = set(kind.nodata) == {None} and ColorInterp.alpha not in kind.colors
    if not is_open or len(nodata) != 1:
        return kind
    return replace(kind, nodata=(nodata[0],) * len(kind.dtypes))


def mosaic_tiles(path: str) -> list[str]:
    """The tiles of a VRT that `mosaic_vrt` wrote, the first one first."""
    return list(dict.fromkeys(_source_files(ElementTree.parse(path).getroot())))


def _source_files(root: ElementTree.Element) -> Iterator[str]:
    """The files of a VRT's sources, also of VRTs within it."""
    for element in root.iter("SourceFilename"):
        text = element.text or ""
        if text.startswith("<"):
            yield from _source_files(ElementTree.fromstring(text))
        else:
            yield text


def _band(root: ElementTree.Element, band: int, dtype: str, kind: _Kind) -> ElementTree.Element:
    """A band without sources."""
    element = ElementTree.SubElement(root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band))
    name, nodata, color = kind.names[band - 1], kind.nodata[band - 1], kind.colors[band - 1]
    if name:
        ElementTree.SubElement(element, "Description").text = name
    if nodata is None and kind.is_float:  # the value of pixels that no tile shows
        nodata = math.nan
    if nodata is not None:
        ElementTree.SubElement(element, "NoDataValue").text = f"{nodata:.17g}"
    ElementTree.SubElement(element, "ColorInterp").text = color.name.capitalize()
    return element


@dataclass(frozen=True)
class _Source:
    """A tile as a source of the mosaic at (row, col), which hides nothing where it has no data.

    Args:
        tile: The tile.
        kind: What it shares with the others.
        place: Row and column of its upper left corner.
        is_transparent: Whether a band marked as alpha is transparency.
    """

    tile: _Tile
    kind: _Kind
    place: tuple[int, int]
    is_transparent: bool

    def of_band(self, band: int) -> ElementTree.Element:
        """The source of a band."""
        nodata = self.kind.nodata[band - 1]
        if self.kind.is_float:  # values that are not finite are no data
            nodata = math.nan
        elif self.tile.has_mask or self._is_wrapped:
            nodata = None
        element = self._element(str(band), self.kind.dtypes[band - 1])
        if nodata is not None:
            _add_rule(element, "NODATA", f"{nodata:.17g}")
        if self.tile.has_mask or self._is_wrapped or self.is_transparent:
            _add_rule(element, "UseMaskBand", "true")
        return element

    def of_mask(self) -> ElementTree.Element:
        """The source of the mask, in which transparency has no part because it is a band."""
        if ColorInterp.alpha in self.kind.colors and not (self.tile.has_mask or self._is_wrapped):
            element = self._element("1", self.kind.dtypes[0])
            _add_rule(element, "ScaleOffset", "255")
            _add_rule(element, "ScaleRatio", "0")
            return element
        element = self._element("mask,1", "uint8")
        _add_rule(element, "NODATA", "0")
        return element

    @property
    def _is_wrapped(self) -> bool:
        """Whether a VRT around the tile makes a mask of its nodata values, which GDAL otherwise applies by band."""
        return self.kind.shares_nodata and not self.tile.has_mask

    def _element(self, band: str, dtype: str) -> ElementTree.Element:
        """A source without rules."""
        name, block = self.tile.path, self.tile.block
        if self._is_wrapped:
            name = _with_shared_nodata(self.tile, self.kind)
            block = (min(_INNER_BLOCK, self.tile.height), min(_INNER_BLOCK, self.tile.width))
        return _plain_source(self.tile, name, band, dtype, block, self.place)


def _add_rule(source: ElementTree.Element, name: str, text: str) -> None:
    """Adds a rule to a source, which simple sources have not."""
    source.tag = "ComplexSource"
    ElementTree.SubElement(source, name).text = text


def _with_shared_nodata(tile: _Tile, kind: _Kind) -> str:
    """The text of a VRT of one tile, whose mask hides the pixels with the nodata value in all bands."""
    root = ElementTree.Element(
        "VRTDataset", rasterXSize=str(tile.width), rasterYSize=str(tile.height)
    )
    values = " ".join(f"{value:.17g}" for value in kind.nodata if value is not None)
    metadata = ElementTree.SubElement(root, "Metadata")
    ElementTree.SubElement(metadata, "MDI", key="NODATA_VALUES").text = values
    for band, dtype in enumerate(kind.dtypes, 1):
        element = ElementTree.SubElement(
            root, "VRTRasterBand", dataType=_TYPES[dtype], band=str(band)
        )
        element.append(_plain_source(tile, tile.path, str(band), dtype, tile.block, (0, 0)))
    return ElementTree.tostring(root, encoding="unicode")


def _plain_source(
    tile: _Tile, name: str, band: str, dtype: str, block: tuple[int, int], place: tuple[int, int]
) -> ElementTree.Element:
    """A source that shows all of a tile, by its own name or another one, at (row, col)."""
    row, col = place
    size = {"xSize": str(tile.width), "ySize": str(tile.height)}
    source = ElementTree.Element("SimpleSource")
    ElementTree.SubElement(source, "SourceFilename", relativeToVRT="0").text = name
    ElementTree.SubElement(source, "SourceBand").text = band
    properties = {
        "RasterXSize": str(tile.width),
        "RasterYSize": str(tile.height),
        "DataType": _TYPES[dtype],
        "BlockXSize": str(block[1]),
        "BlockYSize": str(block[0]),
    }  # so that tiles are opened only when needed
    ElementTree.SubElement(source, "SourceProperties", properties)
    ElementTree.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ElementTree.SubElement(source, "DstRect", {"xOff": str(col), "yOff": str(row), **size})
    return source


def _opened(path: str) -> tuple[_Tile, _Kind]:
    """A tile, and what it shares with others."""
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
            flags = source.mask_flag_enums[0]
            has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
            has_transparency = transparency_band(source) is not None
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
    tile = _Tile(os.path.abspath(path), transform, *size, block, has_mask, has_transparency)
    return tile, kind


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
