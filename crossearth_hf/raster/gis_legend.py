"""Names and colors of classes where GIS programs look for them: QGIS's style and GDAL's attribute table of a map.

A TIFF's color table has 256 entries without names, which QGIS shows as 256 rows. Only a style file gives QGIS, also
old releases, a row for each class. The attribute table is for ArcGIS and others.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ..files.working_folders import OWN_SIDE_FILE
from ..labels import Color, LabelSet

STYLE_VERSION = "3.22"
"""The QGIS release whose styles these are; later ones read them too."""

_INTEGER, _REAL, _STRING = 0, 1, 2  # types of GDAL's attribute tables
_COLUMNS = (("Value", _INTEGER, 5), ("Count", _REAL, 1), ("Class", _STRING, 2),
            ("Red", _INTEGER, 6), ("Green", _INTEGER, 7), ("Blue", _INTEGER, 8))  # fmt: skip
"""Name, type and GDAL's usage of each column. A count may exceed 32-bit integers."""


def write_attribute_table(map_file: Path, label_set: LabelSet, pixels: Sequence[int]) -> None:
    """Writes GDAL's category names and attribute table of a map into `MAP.tif.aux.xml`; a CRS in that file stays.

    Args:
        map_file: The map.
        label_set: Names and colors of the classes.
        pixels: Pixels of each class.
    """
    side_file = Path(f"{map_file}.aux.xml")
    if side_file.exists():
        root = ElementTree.parse(side_file).getroot()
    else:
        root = Element("PAMDataset")
    note = SubElement(root, "Metadata", domain="CROSSEARTH")
    SubElement(note, "MDI", key="note").text = OWN_SIDE_FILE
    band = root.find("PAMRasterBand")
    if band is None:
        band = SubElement(root, "PAMRasterBand", band="1")
    names = SubElement(band, "CategoryNames")
    for name in label_set.classes:
        SubElement(names, "Category").text = name
    band.append(_attribute_table(label_set, pixels))
    ElementTree.indent(root)
    side_file.write_text(ElementTree.tostring(root, encoding="unicode"), encoding="utf-8")


def write_qgis_style(map_file: Path, label_set: LabelSet) -> None:
    """Writes the style that QGIS loads with a map, `MAP.qml`."""
    map_file.with_suffix(".qml").write_text(qgis_style(label_set), encoding="utf-8")


def _attribute_table(label_set: LabelSet, pixels: Sequence[int]) -> Element:
    table = Element("GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(_COLUMNS):
        column = SubElement(table, "FieldDefn", index=str(index))
        SubElement(column, "Name").text = name
        SubElement(column, "Type").text = str(kind)
        SubElement(column, "Usage").text = str(usage)
    classes = zip(label_set.classes, label_set.colors, pixels, strict=True)
    for index, (name, color, count) in enumerate(classes):
        row = SubElement(table, "Row", index=str(index))
        for cell in (index, int(count), name, *color):
            SubElement(row, "F").text = str(cell)
    return table


def hex_color(color: Color) -> str:
    """A color as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def qgis_style(label_set: LabelSet) -> str:
    """A QGIS style (QML) for a map, and for polygons with the field `class`.

    QGIS looks for a style by a file's name without its ending, so one style serves `map.tif` and `map.geojson`.
    """
    root = Element("qgis", version=STYLE_VERSION, styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    raster = SubElement(
        pipe,
        "rasterrenderer",
        type="paletted",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
    )
    palette = SubElement(raster, "colorPalette")
    renderer = SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr="class", symbollevels="0"
    )
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for index, (name, color) in enumerate(zip(label_set.classes, label_set.colors, strict=True)):
        key = str(index)
        SubElement(
            palette, "paletteEntry", value=key, color=hex_color(color), alpha="255", label=name
        )
        SubElement(categories, "category", value=name, symbol=key, label=name, render="true")
        symbol = SubElement(
            symbols, "symbol", type="fill", name=key, alpha="1", clip_to_extent="1", force_rhr="0"
        )
        layer = SubElement(
            symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"}
        )
        rgba = ",".join(map(str, (*color, 255)))
        for setting, value in (("color", rgba), ("style", "solid"), ("outline_style", "no")):
            SubElement(layer, "prop", k=setting, v=value)
    SubElement(root, "layerGeometryType").text = "2"  # polygons
    ElementTree.indent(root)
    return f"<!-- {OWN_SIDE_FILE} -->\n{ElementTree.tostring(root, encoding='unicode')}\n"
