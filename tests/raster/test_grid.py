"""Ground sizes and areas against pyproj's geodesics, and grids at another resolution."""

import numpy as np
import pytest
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from crossearth_hf.errors import InputError
from crossearth_hf.prediction import resolution_advice
from crossearth_hf.raster.grid import Grid


def grid(epsg, transform, width=100, height=80):
    return Grid(width, height, None if epsg is None else CRS.from_epsg(epsg), transform)


WORLD = {  # CRS and transform of 20 x 18 pixels; each of its own kind
    "degrees at the pole": ("EPSG:4326", Affine(1, 0, 0, 0, -1, 90)),
    "degrees across the antimeridian": ("EPSG:4326", Affine(0.1, 0, 179, 0, -0.1, 60)),
    "large pixels": ("EPSG:4326", Affine(5, 0, -50, 0, -5, 80)),
    "grads": ("EPSG:4807", Affine(0.01, 0, 2, 0, -0.01, 52)),
    "over the north pole": ("EPSG:3413", Affine(1e3, 0, -1e4, 0, -1e3, 1e4)),
    "wide around the south pole": ("EPSG:3031", Affine(5e4, 0, -5e5, 0, -5e4, 5e5)),
    "Mercator at 89 degrees": ("EPSG:3857", Affine(1000, 0, 0, 0, -1000, 30e6)),
    "UTM": ("EPSG:32632", Affine(0.1, 0, 3e5, 0, -0.1, 5.3e6)),
    "UTM far out of its zone": ("EPSG:32632", Affine(10, 0, 3e6, 0, -10, 5e6)),
    "millimeters": ("EPSG:32632", Affine(0.001, 0, 5e5, 0, -0.001, 5e6)),
    "rotated": ("EPSG:32632", Affine(1.8, 0.9, 3e5, 0.9, -1.8, 5.3e6)),
    "sheared": ("EPSG:32632", Affine(3, 1, 5e5, 1.5, -2, 5e6)),
    "US feet": ("EPSG:2263", Affine(1, 0, 980000, 0, -1, 190000)),
    "oblique": ("EPSG:2056", Affine(100, 0, 2.6e6, 0, -100, 1.2e6)),
    "sinusoidal": ("ESRI:54008", Affine(5e4, 0, 5e6, 0, -5e4, 6e6)),
}
ALL = np.ones((18, 20), dtype=bool)


def geodesic_areas(crs, transform):
    """Areas of 18 x 20 pixels by pyproj, eight points on each of their edges."""
    pyproj = pytest.importorskip("pyproj")
    to_degrees = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    earth, way = pyproj.Geod(ellps="WGS84"), np.arange(8) / 8
    cols = np.concatenate([way, np.ones(8), 1 - way, np.zeros(8)])
    rows = np.concatenate([np.zeros(8), way, np.ones(8), 1 - way])
    corners = np.ndindex(18, 20)
    outlines = (
        to_degrees.transform(*(transform @ (col + cols, row + rows))) for row, col in corners
    )
    return np.reshape(
        [abs(earth.polygon_area_perimeter(*outline)[0]) for outline in outlines], (18, 20)
    )


@pytest.mark.parametrize("place", WORLD)
def test_areas_equal_geodesic_areas(place):
    crs, transform = WORLD[place]
    expected = geodesic_areas(crs, transform)
    areas = Grid(20, 18, CRS.from_user_input(crs), transform).pixel_areas(0, 0, ALL)
    # pyproj's own digits end there
    np.testing.assert_allclose(areas, expected, rtol=1e-3, atol=2e-5)
    assert areas.sum() == pytest.approx(expected.sum(), rel=1e-4)


def test_areas_of_a_window_are_those_of_its_place():
    whole = grid(3413, Affine(1000, 0, -2e5, 0, -1000, 2e5), 600, 560)
    counted = np.ones((560, 600), dtype=bool)
    areas = whole.pixel_areas(0, 0, counted)
    np.testing.assert_allclose(
        whole.pixel_areas(100, 50, counted[:40, :30]), areas[100:140, 50:80], rtol=1e-4
    )
    exact = whole._areas_at(np.array([0, 283, 559]), np.array([599, 300, 1]), 0.5)
    np.testing.assert_allclose(areas[[0, 283, 559], [599, 300, 1]], exact, rtol=1e-4)


def test_only_pixels_that_matter_need_a_place():
    beyond = grid(4326, Affine(1, 0, 0, 0, -1, 93), 20, 18)
    assert beyond.pixel_areas(0, 0, ALL) is None  # three rows north of the pole
    counted = ALL.copy()
    counted[:3] = False
    expected = geodesic_areas("EPSG:4326", beyond.transform)[3:]
    np.testing.assert_allclose(beyond.pixel_areas(0, 0, counted)[3:], expected, rtol=1e-3)
    limb = Grid(
        20, 18, CRS.from_string("+proj=ortho +lat_0=90"), Affine(1e6, 0, -1e7, 0, -1e6, 9e6)
    )
    assert limb.pixel_areas(0, 0, ALL) is None
    assert limb.pixel_areas(8, 9, ALL[:2, :2]) is not None


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("IAU_2015:30100", Affine(0.1, 0, 0, 0, -0.1, 9)),  # the Moon
        ("+proj=stere +lat_0=90 +R=3396190", Affine(1, 0, 0, 0, -1, 9)),  # Mars
        ("EPSG:32632", Affine(0, 0, 5e5, 0, -1, 5e6)),
        ("EPSG:32632", Affine(1, 2, 5e5, 1, 2, 5e6)),  # sheared flat
        ("EPSG:32632", Affine(float("nan"), 0, 5e5, 0, -1, 5e6)),
        ("EPSG:4326", Affine(1, 0, 0, 0, -1, 200)),
        ("EPSG:3857", Affine(1e5, 0, 3e7, 0, -1e5, 1e7)),  # once around the Earth
    ],
)
def test_no_area_where_the_crs_cannot_tell(crs, transform):
    nowhere = Grid(20, 18, CRS.from_user_input(crs), transform)
    assert nowhere.pixel_areas(0, 0, ALL) is None
    assert nowhere.pixel_size() is None


def test_pixels_at_the_pole_have_a_size():
    assert grid(3413, Affine(1000, 0, -5e4, 0, -1000, 4e4)).pixel_size() == pytest.approx(
        (1031.08, 1031.08), abs=0.01
    )


def test_pixel_size_of_a_degree_at_the_equator():
    across, down = grid(4326, Affine(0.01, 0, 10, 0, -0.01, 0.4)).pixel_size()
    assert across == pytest.approx(1113.195, abs=0.01)  # 2 pi 6378137 m / 36000
    assert down == pytest.approx(1105.743, abs=0.01)  # a (1 - e^2) pi / 18000


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')])
def test_no_area_without_a_place_on_earth(crs):
    unknown = Grid(10, 10, crs, Affine(2, 0, 5, 0, -2, 7))
    assert unknown.pixel_size() is None
    assert unknown.pixel_areas(0, 0, ALL) is None


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
    for meters in (0, -1, float("nan"), float("inf"), 0.01, 100):
        with pytest.raises(InputError, match="does not suit pixels of 1 x 1 m"):
            known.rescaled(meters)
    with pytest.raises(InputError, match="known CRS"):
        grid(None, Affine(1, 0, 5, 0, -1, 5)).rescaled(1)
    points = (GroundControlPoint(0, 0, 8.0, 50.0),)
    with pytest.raises(InputError, match="ground control points"):
        Grid(10, 10, None, Affine.identity(), points, CRS.from_epsg(4326)).rescaled(1)


def test_rescaling_names_what_works():
    coarse = grid(32632, Affine(300, 0, 5e5, 0, -300, 5e6))
    with pytest.raises(
        InputError, match=r"choose one from 4\.69 to 1\.92e\+04 m, or leave the pixels as they are"
    ):
        coarse.rescaled(1)
    assert coarse.rescaled(4.7).pixel_size() == pytest.approx((4.7, 4.7), rel=1e-3)
    narrow = grid(32632, Affine(1, 0, 5e5, 0, -10000, 5e6))
    with pytest.raises(InputError, match=r"pixels of 1 x 1e\+04 m; leave the pixels as they are"):
        narrow.rescaled(100)
    # 500 km beside the central meridian a meter of the map is 0.9973 m on the ground.
    with pytest.raises(InputError, match=r"at 0\.5 m has 1,994,657 x 1,994,657 pixels"):
        grid(32632, Affine(10, 0, 5e5, 0, -10, 5e6), 100_000, 100_000).rescaled(0.5)


@pytest.mark.parametrize(
    ("pixel", "trained_at", "advice"),
    [
        (
            1.0,
            0.25,
            "pixels of 1 m, but the model was trained at 0.25 m: --resolution 0.25 may give a better map",
        ),
        (0.1, 0.25, "--resolution 0.25 may"),
        (0.5, 0.25, None),
        (0.13, 0.25, None),
        (1.0, None, None),
        (
            300.0,
            1.0,
            "pixels of 300 m, but the model was trained at 1 m: such scenes are too different; use imag",
        ),
        (0.001, 1.0, "are too different; use imagery of about 1 m"),
    ],
)
def test_advice_on_resolution_names_what_works(pixel, trained_at, advice):
    # UTM's scale is 0.9996 on the central meridian: meters of the map times that are meters on the ground.
    side = max(100, round(3000 / pixel))
    scene = grid(32632, Affine(0.9996 * pixel, 0, 5e5, 0, -0.9996 * pixel, 5e6), side, side)
    said = resolution_advice(scene, trained_at)
    assert (said is None) if advice is None else (advice in said)
    if said and "--resolution" in said:
        scene.rescaled(trained_at)


def test_no_resolution_is_advised_that_leaves_a_few_pixels():
    small = grid(32632, Affine(0.1, 0, 5e5, 0, -0.1, 5e6), width=300, height=200)
    assert "at 1 m this scene is too small to be mapped well" in resolution_advice(small, 1.0)
    large = grid(32632, Affine(0.1, 0, 5e5, 0, -0.1, 5e6), width=3000, height=2000)
    assert "--resolution 1 may" in resolution_advice(large, 1.0)


def test_advice_for_pixels_that_are_not_square():
    degrees = grid(4326, Affine(1e-5, 0, 25, 0, -1e-5, 70))  # 0.38 x 1.1 m
    assert "pixels of 0.382 x 1.12 m" in resolution_advice(degrees, 1.0)
    stretched = grid(32632, Affine(1, 0, 5e5, 0, -200, 5e6))
    assert "are too different" in resolution_advice(stretched, 1.0)
    assert resolution_advice(grid(None, Affine.identity()), 1.0) is None


def test_how_far_grids_lie_apart():
    here = grid(32632, Affine(0.5, 0, 5e5, 0, -0.5, 5e6))
    assert here.distance_to(here) == 0
    assert here.distance_to(grid(32632, Affine(0.5, 0, 5e5 + 1, 0, -0.5, 5e6))) == pytest.approx(2)
    assert here.distance_to(grid(32633, here.transform)) > 1e5  # the same numbers, another zone
    assert here.distance_to(grid(None, here.transform)) is None
