"""Run by the Python that has QGIS: prints, as JSON, the legends with which QGIS opens files.

QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/tools/qgis_look.py map.tif map.gpkg
"""

import json
import os
import sys

from osgeo import gdal
from qgis.core import QgsApplication, QgsPointXY, QgsRasterLayer, QgsVectorLayer


def rows_of_raster(path):
    """Legend rows, value of the pixel in the middle, and the names and table that GDAL reads."""
    layer = QgsRasterLayer(path, "map")
    assert layer.isValid(), path
    renderer = layer.renderer()
    rows = []
    if hasattr(renderer, "classes"):
        rows = [[row.label, row.color.name(), row.value] for row in renderer.classes()]
    value, known = layer.dataProvider().sample(QgsPointXY(layer.extent().center()), 1)
    opened = gdal.Open(path)  # must live as long as its band
    band = opened.GetRasterBand(1)
    table = band.GetDefaultRAT()
    columns = {}
    if table is not None:
        for column in range(table.GetColumnCount()):
            cells = [table.GetValueAsString(row, column) for row in range(table.GetRowCount())]
            columns[table.GetNameOfCol(column)] = cells
    return {
        "rows": rows,
        "value": value if known else None,
        "names": band.GetCategoryNames(),
        "table": columns,
    }


def rows_of_polygons(path):
    """Legend rows, and the number of polygons."""
    layer = QgsVectorLayer(path, "map", "ogr")
    assert layer.isValid(), path
    renderer = layer.renderer()
    rows = []
    if renderer.type() == "categorizedSymbol":
        rows = [
            [row.label(), row.symbol().color().name(), row.value()] for row in renderer.categories()
        ]
    return {"rows": rows, "count": layer.featureCount()}


def main():
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    found = {}
    for path in sys.argv[1:]:
        look = rows_of_raster if path.endswith(".tif") else rows_of_polygons
        found[os.path.basename(path)] = look(path)
    print(json.dumps(found), flush=True)
    os._exit(0)  # QGIS without a window often crashes when Python ends


if __name__ == "__main__":
    main()
