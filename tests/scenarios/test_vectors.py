"""Shapes on a grid, judged by matplotlib and by distances to densely sampled lines."""

from itertools import pairwise

import numpy as np
import pytest
from affine import Affine
from matplotlib.path import Path
from miniature_others import geojson
from rasterio.crs import CRS
from rasterio.warp import transform_geom
from scipy.spatial import cKDTree

from crossearth_hf.errors import InputError
from crossearth_hf.raster.grid import Grid
from crossearth_hf.scenarios.build.archives import RawFile
from crossearth_hf.scenarios.build.vectors import burn_lines, burn_polygons, read_geometries

# on the central meridian: 1 m is 1 m
METERS = Grid(60, 50, CRS.from_epsg(32632), Affine(0.5, 0, 5e5, 0, -0.5, 5e6))
SCALE = 0.9996


def centers(grid):
    rows, cols = np.mgrid[: grid.height, : grid.width] + 0.5
    return np.stack([cols, rows], axis=-1)  # (H, W, 2)


def on_map(points):
    return [list(METERS.transform @ point) for point in points]


def test_polygons_hold_the_centers_of_their_pixels():
    rng = np.random.default_rng(0)
    drawn, expected = [], np.zeros((50, 60), bool)
    for _ in range(6):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(4, 15, 9)[:, None]
        corners = rng.uniform(10, 45, 2) + radii * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
        corners = np.concatenate([corners, corners[:1]])
        drawn.append({"type": "Polygon", "coordinates": [on_map(corners)]})
        expected |= Path(corners).contains_points(centers(METERS).reshape(-1, 2)).reshape(50, 60)
    np.testing.assert_array_equal(burn_polygons(drawn, METERS), expected)
    assert not burn_polygons([], METERS).any()


@pytest.mark.parametrize("distance", [0.4, 2.0, 7.0])
def test_lines_reach_as_far_as_told(distance):
    corners = np.array([(-20.0, 5.0), (30.3, 12.1), (30.3, 12.1), (41.0, 44.0), (12.0, 60.0)])
    shape = {"type": "MultiLineString", "coordinates": [on_map(corners[:3]), on_map(corners[2:])]}
    share = np.linspace(0, 1, 2000)[:, None]
    dense = np.concatenate([a + share * (b - a) for a, b in pairwise(corners)])
    gaps = cKDTree(dense).query(centers(METERS))[0] * 0.5 / SCALE
    drawn = burn_lines([shape], METERS, distance)
    sure = np.abs(gaps - distance) > 0.01
    np.testing.assert_array_equal(drawn[sure], (gaps <= distance)[sure])
    assert drawn.any()


def test_lines_need_meters():
    grid = Grid(60, 50, CRS.from_wkt('LOCAL_CS["engine",UNIT["metre",1]]'), METERS.transform)
    with pytest.raises(InputError, match="does not tell meters"):
        burn_lines([{"type": "LineString", "coordinates": [[0, 0], [1, 1]]}], grid, 2)


def test_shapes_move_to_the_crs_of_the_image(tmp_path):
    square = [(10, 10), (30, 10), (30, 20), (10, 20), (10, 10)]
    shape = {"type": "Polygon", "coordinates": [on_map(square)]}
    path = tmp_path / "a.geojson"
    file = RawFile("a.geojson", path, None, 0)
    expected = np.zeros((50, 60), bool)
    expected[10:20, 10:30] = True
    moved = transform_geom(METERS.crs, "EPSG:4326", shape)
    for content in (
        geojson(moved),
        geojson({"type": "GeometryCollection", "geometries": [moved]}),
        geojson(moved)
        .replace("urn:ogc:def:crs:OGC:1.3:CRS84", "unknown")
        .replace('"crs"', '"other"'),
        geojson(shape).replace("urn:ogc:def:crs:OGC:1.3:CRS84", "EPSG:32632"),
    ):
        path.write_text(content)
        np.testing.assert_array_equal(
            burn_polygons(read_geometries(file, "Polygon", METERS), METERS), expected
        )


@pytest.mark.parametrize("depth", [2_000, 100_000])  # newer versions of Python parse the first
def test_collections_nested_too_deep(tmp_path, depth):
    path = tmp_path / "a.geojson"
    collections = '{"type": "GeometryCollection", "geometries": [' * depth + "]}" * depth
    path.write_text(f'{{"features": [{{"geometry": {collections}}}]}}')
    with pytest.raises(
        InputError, match=r"a.geojson is no GeoJSON of Polygons .*; download it again"
    ):
        read_geometries(RawFile("a.geojson", path, None, 0), "Polygon", METERS)
