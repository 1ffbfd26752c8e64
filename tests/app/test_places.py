"""Scenes whose place on Earth makes no sense: mapped like any other, without a place."""

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint as Point

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

import app_parts
import pyogrio
from app_parts import patches, read_map, stub_model
from rasterio.crs import CRS
from rasters import write_raster

from crossearth_hf.app import pages, predict
from crossearth_hf.raster.grid import Grid
from crossearth_hf.raster.polygons import footprint

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NAN, INF = math.nan, math.inf
TRANSFORMS = {
    "NaN": Affine(NAN, 0, 0, 0, NAN, 0),
    "NaN origin": Affine(2, 0, NAN, 0, -2, 5e6),
    "infinite pixels": Affine(INF, 0, 0, 0, -2, 0),
    "infinite origin": Affine(2, 0, INF, 0, -2, 0),
    "infinite corner": Affine(1e307, 0, 5e5, 0, -1e307, 5e6),
    "pixels of no size": Affine(0, 0, 5e5, 0, 0, 5e6),
    "pixels of no area": Affine(1, 1, 5e5, 1, 1, 5e6),
    "pixels that no number tells apart": Affine(1e-12, 0, 5e5, 0, -1e-12, 5e6),
}
POINTS = {
    "NaN": [Point(0, 0, NAN, NAN), Point(0, 100, 1, 2), Point(100, 0, 3, 4)],
    "infinite": [Point(0, 0, INF, 5), Point(0, 100, 1, 2), Point(100, 0, 3, 4)],
    "NaN pixel": [Point(NAN, 0, 1, 1), Point(0, 100, 1, 2), Point(100, 0, 3, 4)],
    "too far": [Point(0, 0, 1e308, 5e6), Point(0, 200, -1e308, 5e6), Point(160, 0, 5e5, 1e308)],
    "one": [Point(0, 0, 5e5, 5e6)],
    "two on a row": [Point(0, 0, 5e5, 5e6), Point(0, 200, 5.01e5, 5e6)],
    "one place": [Point(10 * i, i * i, 5e5, 5e6) for i in range(4)],
    "a line": [Point(i, 2 * i, 5e5 + i, 5e6 + i) for i in range(4)],
}


def mapped(tmp_path, transform=None, **georeference):
    """What the app makes of patches with a georeference, checked to be the right classes."""
    pixels, ids = patches()
    write_raster(tmp_path / "s.tif", pixels, transform=transform, **georeference)
    (tmp_path / "job").mkdir()
    result = predict(tmp_path / "s.tif", stub_model(), tmp_path / "job")
    np.testing.assert_array_equal(read_map(result.report.files[0]), ids)
    return result


def assert_without_place(result):
    for path in result.report.files[:2]:
        with rasterio.open(path) as source:
            assert (source.crs, source.transform, source.gcps[0]) == (None, Affine.identity(), [])
    meta, _, _, (_, _, _, hectares) = pyogrio.raw.read(result.polygons, layer="map")
    assert meta["crs"] is None
    assert np.isnan(hectares).all()
    assert result.place is None
    assert result.report.hectares is None
    assert "impossible georeference" in result.summary
    assert "no known location on Earth" in pages.place(
        result.place, result.summary, result.advice, 1.0
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(tmp_path, name):
    assert_without_place(mapped(tmp_path, TRANSFORMS[name]))


@pytest.mark.parametrize("name", POINTS)
def test_ground_control_points(tmp_path, name):
    assert_without_place(mapped(tmp_path, crs=app_parts.CRS, gcps=POINTS[name]))


def test_two_ground_control_points_are_a_place(tmp_path):
    """South of (500000, 5000000) on the central meridian, by the formula of GDAL for two corners."""
    result = mapped(
        tmp_path,
        crs=app_parts.CRS,
        gcps=[Point(0, 0, 5e5, 5e6), Point(160, 200, 500_400, 4_999_680)],
    )
    assert (result.place.longitude, result.place.latitude) == pytest.approx(
        (9.0025, 45.152), abs=0.001
    )
    assert "ground control points" in result.summary
    with rasterio.open(result.report.files[0]) as source:
        assert [(point.x, point.y) for point in source.gcps[0]] == [
            (5e5, 5e6),
            (500_400, 4_999_680),
        ]


def test_degrees_beyond_the_poles_are_no_place():
    assert footprint(Grid(200, 160, CRS.from_epsg(4326), Affine(1, 0, 1e6, 0, -1, 1e6))) is None
    globe = footprint(
        Grid(1440, 721, CRS.from_epsg(4326), Affine(0.25, 0, -0.125, 0, -0.25, 90.125))
    )
    assert (globe.latitude, globe.south, globe.north) == (0, -90, 90), (
        "a row on each pole, as in weather grids"
    )


def test_a_scene_without_a_georeference_is_not_said_to_make_no_sense(tmp_path):
    result = mapped(tmp_path)
    assert "no CRS" in result.summary
    assert "sense" not in result.summary
