"""Outlines of rasters in degrees, with longitudes from -180 to 180."""

import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from crossearth_hf.raster.footprint import footprint
from crossearth_hf.raster.grid import Grid


@pytest.mark.parametrize("crs", [4326, 4167])
@pytest.mark.parametrize(
    ("start", "degrees", "west", "east", "parts"),
    [
        (10, 5, 10, 15, [(10, 15)]),
        (260, 5, -100, -95, [(-100, -95)]),
        (175, 10, 175, -175, [(175, 180), (-180, -175)]),
        (-185, 10, 175, -175, [(175, 180), (-180, -175)]),
        (0, 360, -180, 180, [(-180, 180)]),
    ],
)
def test_longitudes_lie_between_minus_180_and_180(crs, start, degrees, west, east, parts):
    grid = Grid(degrees, 4, CRS.from_epsg(crs), Affine(1, 0, start, 0, -1, 2))
    geometry, box = footprint(grid)
    assert box == pytest.approx([west, -2, east, 2], abs=1e-5)
    expected = shapely.union_all([shapely.box(left, -2, right, 2) for left, right in parts])
    found = shapely.geometry.shape(geometry)
    assert found.is_valid
    assert found.symmetric_difference(expected).area < 1e-3
