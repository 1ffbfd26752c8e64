"""Polygons as labels: drawn by hand, against rasterio over the whole, and against shapely in another CRS."""

import tracemalloc

import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.features import rasterize
from rasters import PLACE, write_raster
from vectors import write_layer

from crossearth_hf.data import polygons as module
from crossearth_hf.data.polygon_sources import PolygonSource, load_polygons
from crossearth_hf.data.polygons import PolygonImage, PolygonLabels
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster import vector_layers

LAND_COVER = get_label_set("land-cover")


def on_map(shape, transform=PLACE):
    """A shape in (column, row) as one on the map."""
    a, b, c, d, e, f = transform[:6]
    return shapely.transform(shape, lambda points: points @ np.array([[a, d], [b, e]]) + (c, f))


def blobs(count, size, seed=0, corners=9):
    """Star-shaped polygons in (column, row), some over the edges of the raster."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = rng.uniform(0.02, 0.15, corners)[:, None] * size[0]
        middle = rng.uniform((0, 0), (size[1], size[0]))
        shapes.append(
            shapely.Polygon(middle + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        )
    return np.array(shapely.make_valid(np.array(shapes, dtype=object)), dtype=object)


def test_a_raster_worked_by_hand(tmp_path):
    image = write_raster(tmp_path / "a.tif", np.zeros((3, 10, 10), np.uint8))
    ring = shapely.Polygon(shapely.box(0, 0, 5, 5).exterior, [shapely.box(1, 1, 3, 3).exterior])
    neighbor = shapely.box(5, 0, 8, 4)
    # centers at .5: 9 x 9.6 -> 8..9
    parts = shapely.MultiPolygon([shapely.box(0, 8, 2, 10), shapely.box(8, 8, 9.4, 9.6)])
    on_top = shapely.box(7, 3, 9, 6)
    shapes = [on_map(shape) for shape in (ring, neighbor, parts, on_top)]
    labels = write_layer(
        tmp_path / "l.gpkg", shapes, {"kind": ["road", "building", "water", "vegetation"]}
    )
    expected = np.array(
        [
            [2, 2, 2, 2, 2, 1, 1, 1, 9, 9],
            [2, 9, 9, 2, 2, 1, 1, 1, 9, 9],
            [2, 9, 9, 2, 2, 1, 1, 1, 9, 9],
            [2, 2, 2, 2, 2, 1, 1, 4, 4, 9],
            [2, 2, 2, 2, 2, 9, 9, 4, 4, 9],
            [9, 9, 9, 9, 9, 9, 9, 4, 4, 9],
            [9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
            [9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
            [3, 3, 9, 9, 9, 9, 9, 9, 3, 9],
            [3, 3, 9, 9, 9, 9, 9, 9, 3, 9],
        ]
    )
    lines = []
    source = PolygonSource([image], labels, class_column="kind")
    (pair,) = load_polygons(source, LAND_COVER, tell=lines.append)
    np.testing.assert_array_equal(pair.read()[1], np.where(expected == 9, 255, expected))
    assert pair.label_counts() == {1: 11, 2: 21, 3: 6, 4: 6, 255: 56}
    assert [line.split(": ")[1] for line in lines] == [
        "polygons of different classes overlap in about 1 pixels of a.tif; the later feature lies on top"
    ]


@pytest.mark.parametrize("corners", [9, 300])
def test_windows_repeat_what_rasterio_burns_over_the_whole(corners):
    size, shapes = (300, 400), blobs(60, (300, 400), corners=corners)
    ids = np.random.default_rng(1).choice([0, 1, 2, 3, 4, 255], len(shapes)).astype(np.uint8)
    whole = rasterize(zip(shapes, ids.tolist(), strict=True), size, fill=255, dtype="uint8")
    labels = PolygonLabels(size, shapes, ids)
    np.testing.assert_array_equal(labels.read(0, 0, *size), whole)
    for row, col, height, width in [
        (0, 0, 50, 400),
        (17, 33, 128, 64),
        (299, 399, 1, 1),
        (150, 0, 150, 400),
    ]:
        window = labels.read(row, col, height, width)
        np.testing.assert_array_equal(window, whole[row : row + height, col : col + width])


def test_counts_come_from_tiles(monkeypatch):
    size, shapes = (300, 400), blobs(10, (300, 400))
    labels = PolygonLabels(size, shapes, np.arange(10, dtype=np.uint8) % 5)
    whole = labels.read(0, 0, *size)
    monkeypatch.setattr(module, "TILE", 64)
    assert labels.counts() == {
        index: int((whole == index).sum()) for index in np.unique(whole).tolist()
    }


def test_a_huge_scene_is_counted_without_its_label_map():
    side = 40_000
    shapes = shapely.box(*np.array([(x, x, x + 100, x + 50) for x in range(1000, 39_000, 2000)]).T)
    labels = PolygonLabels((side, side), shapes, np.ones(len(shapes), np.uint8), unlabeled=0)
    tracemalloc.start()
    counts = labels.counts()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == {0: side * side - 5000 * len(shapes), 1: 5000 * len(shapes)}
    assert peak < 100e6  # the map would take 1.6 GB


@pytest.mark.parametrize(
    ("raster_crs", "transform", "layer_crs"),
    [
        ("EPSG:32632", Affine(30, 0, 4e5, 0, -30, 5.2e6), "EPSG:4326"),
        ("EPSG:32632", Affine(20, 12, 4e5, 9, -25, 5.2e6), "EPSG:3035"),
        ("EPSG:4326", Affine(0.003, 0, 8.1, 0, -0.002, 47.3), "EPSG:32632"),
        (
            "EPSG:4326",
            Affine(0.004, 0, 179.5, 0, -0.004, -16.0),
            "EPSG:32701",
        ),  # over the antimeridian
        ("EPSG:3413", Affine(900, 0, -9e4, 0, -900, 9e4), "EPSG:4326"),  # over the pole
    ],
)
def test_polygons_of_another_crs_hold_the_centers_that_they_hold_in_their_own(
    tmp_path, raster_crs, transform, layer_crs
):
    """The judge brings every center to the layer's CRS, where edges are straight."""
    height, width = 200, 240
    image = write_raster(
        tmp_path / "a.tif",
        np.zeros((3, height, width), np.uint8),
        transform=transform,
        crs=raster_crs,
    )
    there = pyproj.Transformer.from_crs(raster_crs, layer_crs, always_xy=True)
    rows, cols = np.mgrid[:height, :width] + 0.5
    x, y = there.transform(*(transform @ (cols.ravel(), rows.ravel())))
    low, high = np.quantile(x, [0.2, 0.8]), np.quantile(y, [0.2, 0.8])
    star = blobs(3, (100, 100), corners=7)
    spread = np.array([np.ptp(low), np.ptp(high)]) / 100
    shapes = [shapely.transform(shape, lambda p: p * spread + (low[0], high[0])) for shape in star]
    shapes.append(shapely.box(low[0], high[0], np.mean(low), np.mean(high)))  # long straight edges
    labels = write_layer(tmp_path / "l.gpkg", shapes, {"id": [0, 1, 2, 3]}, crs=layer_crs)
    expected = np.full(height * width, 255)
    for index, shape in enumerate(shapes):
        expected[shapely.contains_xy(shape, x, y)] = index
    (pair,) = load_polygons(PolygonSource([image], labels, class_column="id"), LAND_COVER)
    found = pair.read_labels(0, 0, height, width).ravel()
    differing = np.flatnonzero(found != expected)
    assert len(np.unique(expected)) >= 4
    # Beyond the tolerance of 0.05 pixels no center may differ.
    assert len(differing) <= 0.002 * height * width
    edges = shapely.union_all([shape.boundary for shape in shapes])
    step = np.hypot(
        *(np.diff(there.transform(*(transform @ (np.array([0, 1]) + 120, np.array([100, 100]))))))
    )
    assert (shapely.distance(shapely.points(x[differing], y[differing]), edges) < 0.2 * step).all()


@pytest.mark.parametrize("ending", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize(
    "values", [["road", " building ", "ignored"], [2, 1, 255], ["2", "1", "255"]]
)
def test_files_and_columns_of_each_kind(tmp_path, monkeypatch, ending, values):
    monkeypatch.setattr(vector_layers, "BATCH", 2)
    image = write_raster(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8))
    shapes = [on_map(shapely.box(*box)) for box in [(0, 0, 10, 10), (10, 0, 20, 10), (0, 0, 5, 5)]]
    labels = write_layer(tmp_path / f"l{ending}", shapes, {"kind": values}, kind="Polygon")
    (pair,) = load_polygons(PolygonSource([image], labels, class_column="kind"), LAND_COVER)
    expected = np.full((20, 30), 255)
    expected[:10, :10], expected[:10, 10:20], expected[:5, :5] = 2, 1, 255
    np.testing.assert_array_equal(pair.read()[1], expected)


@pytest.mark.parametrize(
    ("options", "elsewhere", "around"),
    [
        ({}, 255, 255),
        ({"unlabeled": "land"}, 0, 0),
        ({"unlabeled": "water", "labeled_area": True}, 255, 3),
    ],
)
def test_what_lies_under_no_polygon(tmp_path, options, elsewhere, around):
    image = write_raster(tmp_path / "a.tif", np.zeros((3, 20, 30), np.uint8))
    labels = write_layer(tmp_path / "l.gpkg", [on_map(shapely.box(2, 2, 6, 6))], layer="houses")
    write_layer(labels, [on_map(shapely.box(0, 0, 10, 10))], layer="area", append=True)
    if options.pop("labeled_area", False):
        options |= {"labeled_area": labels, "labeled_area_layer": "area"}
    source = PolygonSource([image], labels, layer="houses", class_name="building", **options)
    (pair,) = load_polygons(source, LAND_COVER)
    expected = np.full((20, 30), elsewhere)
    expected[:10, :10] = around
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(pair.read()[1], expected)
    assert pair.label_counts() == {
        index: int((expected == index).sum()) for index in np.unique(expected).tolist()
    }


def test_each_raster_takes_the_polygons_that_lie_on_it(tmp_path):
    """The second feature lies on both rasters, the third on none; the fourth has no geometry, the last is a bow tie."""
    far = Affine(0.5, 0, 5e5 + 5e4, 0, -0.5, 5e6)
    places = {"a": PLACE, "b": PLACE @ Affine.translation(20, 0), "c": far}
    pixels = np.zeros((3, 20, 20), np.uint8)
    images = [
        write_raster(tmp_path / f"{name}.tif", pixels, transform=place)
        for name, place in places.items()
    ]
    bow_tie = shapely.Polygon([(22, 12), (30, 18), (30, 12), (22, 18)])
    shapes = [
        *(
            on_map(shapely.box(*box))
            for box in [(0, 0, 4, 4), (15, 5, 25, 10), (500, 500, 510, 510)]
        ),
        None,
        on_map(bow_tie),
    ]
    labels = write_layer(tmp_path / "l.gpkg", shapes, {"id": [0, 1, 2, 3, 4]})
    lines = []
    pairs = load_polygons(
        PolygonSource(images, labels, class_column="id"), LAND_COVER, tell=lines.append
    )
    assert [pair.name for pair in pairs] == ["a", "b"]
    assert pairs[0].label_counts() == {0: 16, 1: 25, 255: 359}
    assert pairs[1].label_counts() == {1: 25, 4: 24, 255: 351}
    assert [
        line.removeprefix(f"layer 'l' of {labels}: ").removeprefix(f"{labels}: ") for line in lines
    ] == [
        "2 of 5 features lie on no raster, or have no geometry, and are left out",
        "1 invalid polygon repaired (feature 5)",
        "no polygon lies on c.tif, left out (2 of 3 rasters are used)",
    ]


def test_places_are_balanced_by_class_and_lie_on_labels():
    size = (1000, 1000)
    shapes = np.array(
        [shapely.box(0, 0, 400, 400), *(shapely.box(x, 900, x + 3, 903) for x in (500, 600, 700))]
    )
    labels = PolygonLabels(size, shapes, np.array([0, 1, 1, 1], np.uint8))
    rng, whole = np.random.default_rng(0), labels.read(0, 0, *size)
    found = [labels.place(rng) for _ in range(600)]
    ids = np.array([whole[int(row), int(col)] for row, col in found])
    assert (ids != 255).all()
    assert np.mean(ids == 1) == pytest.approx(0.5, abs=0.07)
    thirds = [int(col) // 100 for (_, col), index in zip(found, ids, strict=True) if index == 1]
    assert np.bincount(thirds, minlength=8)[5:] == pytest.approx([100] * 3, abs=35)
    assert PolygonLabels(size, shapes, np.full(4, 255, np.uint8)).place(rng) is None


def test_an_image_is_read_alike_in_parts_and_whole(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 60, 80)).astype(np.float32)
    values[:, :, :40] = np.nan
    image = PolygonImage(
        "a",
        write_raster(tmp_path / "a.tif", values),
        PolygonLabels((60, 80), blobs(9, (60, 80)), np.arange(9) % 5),
    )
    pixels, labels = image.read()
    assert image.open() is image
    assert (labels[:, :40] == 255).all()
    assert (labels[:, 40:] == image.read_labels(0, 40, 60, 40)).all()
    np.testing.assert_array_equal(image.read_pixels(10, 20, 30, 45)[0], pixels[10:40, 20:65])


def test_a_large_raster_is_scored_in_the_parts_that_hold_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TILE", 32)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 100, 70), np.uint8)
    shapes = np.array([shapely.box(3, 4, 40, 20), shapely.box(60, 70, 69, 99)])
    labels = PolygonLabels((100, 70), shapes, np.array([1, 2], np.uint8))
    whole = PolygonImage("a", write_raster(tmp_path / "a.tif", pixels), labels)
    for image in (whole, whole.decode()):
        parts = image.parts()
        assert [part.name for part in parts] == [
            "a [0, 0]",
            "a [0, 32]",
            "a [64, 32]",
            "a [64, 64]",
            "a [96, 32]",
            "a [96, 64]",
        ]
        assert (
            sum((part.read()[1] != 255).sum() for part in parts) == (whole.read()[1] != 255).sum()
        )
        for part, (row, col) in zip(parts, [(0, 0), (0, 32), (64, 32)], strict=False):
            for mine, all_of_it in zip(part.read(), whole.read(), strict=True):
                np.testing.assert_array_equal(mine, all_of_it[row : row + 32, col : col + 32])
    monkeypatch.setattr(module, "TILE", 128)
    assert [part.name for part in whole.parts()] == ["a"]
