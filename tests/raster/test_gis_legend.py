"""Maps open in QGIS with their classes named and colored, judged by QGIS itself."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from paths import ROOT
from rasterio.crs import CRS

from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.cog import BlockFile, map_layers, write_cog
from crossearth_hf.raster.gis_legend import write_attribute_table, write_qgis_style
from crossearth_hf.raster.grid import Grid
from crossearth_hf.raster.polygons import draw_polygons
from crossearth_hf.raster.writing import write_geotiff

LABEL_SET = get_label_set("land-cover")
ROWS = [
    ["land", "#f0e442"],
    ["building", "#d55e00"],
    ["road", "#cc79a7"],
    ["water", "#0072b2"],
    ["vegetation", "#009e73"],
]
SYSTEM_PYTHON = "/usr/bin/python3"


@cache
def qgis_is_here():
    """Whether Debian's Python has QGIS."""
    if not Path(SYSTEM_PYTHON).exists():
        return False
    run = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import qgis.core"],
        env=environment(),
        capture_output=True,
        check=False,
    )
    return run.returncode == 0


def environment():
    """Of Debian's Python: no window, nothing of the virtual environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "GDAL", "PROJ"))
    }
    return kept | {"QT_QPA_PLATFORM": "offscreen"}


def look(*paths):
    """What QGIS shows of files, by their names."""
    if not qgis_is_here():
        pytest.skip("QGIS is not here: apt-get install python3-qgis")
    command = [SYSTEM_PYTHON, str(ROOT / "tests/tools/qgis_look.py"), *map(str, paths)]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def map_file(folder):
    """A map with every class, and its polygons."""
    labels = (
        np.random.default_rng(0).integers(0, 5, (8, 8)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    )
    labels[:20] = 255
    place = Affine(2, 0, 499_000, 0, -2, 5_000_000)
    path = folder / "map.tif"
    write_geotiff(
        path, labels[None], crs="EPSG:32632", transform=place, nodata=255, label_set=LABEL_SET
    )
    pixels = np.bincount(labels.ravel(), minlength=256)[:5].tolist()
    return path, pixels


def test_qgis_shows_a_row_for_each_class(tmp_path):
    path, pixels = map_file(tmp_path)
    write_attribute_table(path, LABEL_SET, pixels)
    write_qgis_style(path, LABEL_SET)
    seen = look(path)["map.tif"]
    assert seen["rows"] == [[*row, index] for index, row in enumerate(ROWS)]
    assert seen["names"] == list(LABEL_SET.classes)
    assert seen["table"]["Class"] == list(LABEL_SET.classes)
    assert [float(count) for count in seen["table"]["Count"]] == pixels
    colors = zip(*(map(int, seen["table"][name]) for name in ("Red", "Green", "Blue")), strict=True)
    assert tuple(colors) == LABEL_SET.colors


def test_qgis_shows_shares_from_0_to_1(tmp_path):
    layer = map_layers(LABEL_SET)["confidence"]
    path = tmp_path / "sure.tif"
    grid = Grid(40, 40, CRS.from_epsg(32632), Affine(2, 0, 499_000, 0, -2, 5_000_000))
    with BlockFile(tmp_path / "blocks.tif", grid, layer) as file:
        file.write(0, 0, layer.stored(np.full((40, 40), 0.732, np.float32)))
    write_cog(path, tmp_path / "blocks.tif", layer, file.blocks)
    assert look(path)["sure.tif"]["value"] == pytest.approx(0.732, abs=1e-6)


def test_names_with_signs_of_xml(tmp_path):
    path, pixels = map_file(tmp_path)
    names = ("<land>", "a & b", 'the "road"', "Gewässer", "植生")
    label_set = type(LABEL_SET)("custom", names, LABEL_SET.colors)
    write_attribute_table(path, label_set, pixels)
    write_qgis_style(path, label_set)
    seen = look(path)["map.tif"]
    assert (
        [row[0] for row in seen["rows"]] == seen["names"] == seen["table"]["Class"] == list(names)
    )


def test_a_crs_in_the_side_file_stays(tmp_path):
    path, pixels = map_file(tmp_path)
    side_file = tmp_path / "map.tif.aux.xml"
    side_file.write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    write_attribute_table(path, LABEL_SET, pixels)
    text = side_file.read_text()
    assert "<SRS>EPSG:3857</SRS>" in text
    assert text.count("<Category>") == text.count("<Row ") == 5


def test_polygons_open_in_the_colors_of_their_classes(tmp_path):
    """A GeoPackage carries its own style; GeoJSON of the map's name uses that of the map, as QGIS looks for it."""
    path, _ = map_file(tmp_path)
    write_qgis_style(path, LABEL_SET)
    (tmp_path / "elsewhere").mkdir()
    grid = Grid(160, 160, CRS.from_epsg(32632), Affine(2, 0, 499_000, 0, -2, 5_000_000))
    count = draw_polygons(path, tmp_path / "elsewhere/p.gpkg", grid, LABEL_SET)
    draw_polygons(path, tmp_path / "map.geojson", grid, LABEL_SET)
    seen = look(tmp_path / "elsewhere/p.gpkg", tmp_path / "map.geojson")
    for name in ("p.gpkg", "map.geojson"):
        assert seen[name] == {"rows": [[*row, row[0]] for row in ROWS], "count": count}
