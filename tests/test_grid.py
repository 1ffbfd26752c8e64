"""Ground sizes and areas against pyproj's geodesics, and grids at another resolution."""

import numpy as np
import pytest
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from crossearth_hf.errors import InputError
from crossearth_hf.grid import Grid


def grid(epsg, transform, width=100, height=80):
    return Grid(width, height, None if epsg is None else CRS.from_epsg(epsg), transform)


def geodesic_area(epsg, corners):
    pyproj = pytest.importorskip("pyproj")
    to_degrees = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    lon, lat = to_degrees.transform(*zip(*corners, strict=True))
    return abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(lon, lat)[0])


@pytest.mark.parametrize(
    ("epsg", "transform"),
    [
        (4326, Affine(0.01, 0, 8, 0, -0.01, 60)),
        (4326, Affine(0.01, 0, 179.9, 0, -0.01, -30)),  # across the antimeridian
        (3857, Affine(10, 0, 1e6, 0, -10, 8e6)),
        (32632, Affine(0.1, 0, 3e5, 0, -0.1, 5.3e6)),
        (32632, Affine(1.8, 0.9, 3e5, 0.9, -1.8, 5.3e6)),
        (2263, Affine(1, 0, 980000, 0, -1, 190000)),  # New York, in feet
    ],
)
def test_areas_equal_geodesic_areas(epsg, transform):
    areas = grid(epsg, transform).row_areas(20, 10, 60, 40)
    assert areas.shape == (60,)
    for row in (0, 59):
        strip = [transform @ (c, r) for c, r in [(10, 20 + row), (50, 20 + row), (50, 21 + row), (10, 21 + row)]]
        assert 40 * areas[row] == pytest.approx(geodesic_area(epsg, strip), rel=2e-4)


def test_pixel_size_of_a_degree_at_the_equator():
    across, down = grid(4326, Affine(0.01, 0, 10, 0, -0.01, 0.4)).pixel_size()
    assert across == pytest.approx(1113.195, abs=0.01)  # 2 pi 6378137 m / 36000
    assert down == pytest.approx(1105.743, abs=0.01)  # a (1 - e^2) pi / 18000


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')])
def test_no_area_without_a_place_on_earth(crs):
    unknown = Grid(10, 10, crs, Affine(2, 0, 5, 0, -2, 7))
    assert unknown.pixel_size() is None
    assert unknown.row_areas(0, 0, 5, 5) is None


def test_rescaled_grid_covers_the_same_ground():
    fine = grid(4326, Affine(0.001, 0, 8, 0, -0.001, 60), width=101, height=79)
    coarse = fine.rescaled(250.0)
    assert coarse.pixel_size() == pytest.approx((250.0, 250.0), rel=1e-3)
    assert coarse.transform @ (0, 0) == pytest.approx((8, 60))
    east, south = coarse.transform @ (coarse.width, coarse.height)
    pixel_x, pixel_y = coarse.transform.a, coarse.transform.e
    assert 8.101 <= east < 8.101 + pixel_x
    assert 59.921 + pixel_y < south <= 59.921


def test_rescaling_refuses_what_makes_no_sense():
    known = grid(32632, Affine(1, 0, 5e5, 0, -1, 5e6))
    for metres in (0, -1, float("nan"), float("inf"), 0.01, 100):
        with pytest.raises(InputError, match="does not suit pixels of 1 x 1 m"):
            known.rescaled(metres)
    with pytest.raises(InputError, match="known CRS"):
        grid(None, Affine(1, 0, 5, 0, -1, 5)).rescaled(1)
    points = (GroundControlPoint(0, 0, 8.0, 50.0),)
    with pytest.raises(InputError, match="ground control points"):
        Grid(10, 10, None, Affine.identity(), points, CRS.from_epsg(4326)).rescaled(1)


def test_areas_of_rows_follow_the_latitude():
    areas = grid(4326, Affine(0.1, 0, 0, 0, -0.1, 70)).row_areas(0, 0, 80, 100)
    assert np.all(np.diff(areas) > 0)  # southwards pixels grow
