"""Maps of an area: the same as the whole map inside, nothing outside, and only the windows that it needs."""

import json

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.features import geometry_mask
from rasters import with_legend, write_raster
from small_jobs import predict as crossearth_predict
from small_jobs import refused
from stub_model import ColorModel
from vectors import write_layer

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference.windows import window_starts
from crossearth_hf.prediction import predict
from crossearth_hf.raster.area import box_area, read_area
from crossearth_hf.raster.scene import Scene
from crossearth_hf.raster.vector_layers import open_layer
from crossearth_hf.raster.zones import read_zones

SIZE = (320, 360)
UTM = Affine(2, 0, 500_000, 0, -2, 5_000_000)


def on_map(shape):
    return shapely.transform(shape, lambda points: points * (2, -2) + (500_000, 5_000_000))


AREA = [  # in (column, row)
    shapely.Polygon([(60.3, 45.2), (150, 30.7), (130.5, 165.9)]),
    shapely.Polygon(
        shapely.box(190, 180, 320, 300).exterior, [shapely.box(210.2, 200, 280, 260).exterior]
    ),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 256, (3, *SIZE), dtype=np.uint8)
    pixels[:, 90:110, 75:130] = 0  # without data, in the area
    write_raster(
        tmp_path / "scene.tif",
        pixels,
        transform=UTM,
        nodata=0,
        tiled=True,
        blockxsize=256,
        blockysize=256,
    )
    write_layer(tmp_path / "area.gpkg", [on_map(shape) for shape in AREA])
    return tmp_path


def run(target, *, model=None, **options):
    model = model or ColorModel(patch_sensitive=4)
    settings = {"window": 64, "stride": 43, "progress": False, "tell": None} | options
    report = predict("scene.tif", target, model=(model, CrossEarthImageProcessor()), **settings)
    with rasterio.open(target) as source:
        return source.read(), report, model


def inside(shapes=AREA):
    """Pixels whose centers lie in shapes of (column, row), by rasterio itself."""
    return geometry_mask(shapes, SIZE, Affine.identity(), invert=True)


def windows_that_touch(shapes):
    """By shapely, window by window."""
    rows, cols = (window_starts(size, 64, 43) for size in SIZE)
    near = shapely.union_all(shapes)
    return sum(
        near.distance(shapely.box(col, row, col + 64, row + 64)) <= 1
        for row in rows
        for col in cols
    )


def test_the_map_of_an_area_is_that_of_the_whole_inside_and_empty_outside(place):
    whole, _, everything = run("whole.tif", confidence="whole_sure.tif")
    part, report, only = run("part.tif", confidence="part_sure.tif", aoi="area.gpkg")
    expected = np.where(inside(), whole, 255)
    np.testing.assert_array_equal(part, expected)
    with rasterio.open("whole_sure.tif") as one, rasterio.open("part_sure.tif") as other:
        np.testing.assert_array_equal(
            other.read(), np.where(expected == 255, other.nodata, one.read())
        )
    # Some windows are computed in two parts of the scene; here there is one part.
    assert (
        sum(batch[0] for batch in only.batches)
        <= windows_that_touch(AREA)
        < sum(b[0] for b in everything.batches)
    )
    assert report.without_data == (inside() & (whole[0] == 255)).sum() > 0
    np.testing.assert_array_equal(report.pixels, np.bincount(expected[expected < 255], minlength=3))


def test_only_windows_that_touch_are_read(place, monkeypatch):
    read = []
    original = Scene.read

    def noted(self, row, col, height, width):
        read.append((row, col, height, width))
        return original(self, row, col, height, width)

    monkeypatch.setattr(Scene, "read", noted)
    counted = []
    run(
        "part.tif",
        aoi="area.gpkg",
        batch_size=1,
        on_windows=lambda done, total: counted.append((done, total)),
    )
    near = shapely.union_all(AREA)
    assert all(
        near.distance(shapely.box(col, row, col + w, row + h)) <= 1 for row, col, h, w in read
    )
    assert len(read) == windows_that_touch(AREA) == counted[-1][0] == counted[-1][1]


@pytest.mark.parametrize("meters", [5.0, 1.1])
def test_an_area_of_a_resampled_scene(place, meters):
    whole, *_ = run("whole.tif", resolution=meters, probabilities="whole_shares.tif")
    part, report, _ = run(
        "part.tif", resolution=meters, probabilities="part_shares.tif", aoi="area.gpkg"
    )
    expected = np.where(inside(), whole, 255)
    np.testing.assert_array_equal(part, expected)
    with rasterio.open("whole_shares.tif") as one, rasterio.open("part_shares.tif") as other:
        np.testing.assert_array_equal(
            other.read(), np.where(expected == 255, other.nodata, one.read())
        )
    assert report.without_data == (inside() & (whole[0] == 255)).sum() > 0


@pytest.mark.parametrize("kind", ["geojson", "fgb", "shp", "layer"])
def test_areas_of_other_formats_and_crs(place, kind):
    to_degrees = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
    shapes = [
        shapely.transform(on_map(shape), lambda p: np.stack(to_degrees.transform(*p.T), 1))
        for shape in AREA
    ]
    name = {"layer": "two.gpkg"}.get(kind, f"area.{kind}")
    write_layer(place / name, shapes, crs="EPSG:4326")
    if kind == "layer":
        write_layer(place / name, shapes[:1], crs="EPSG:4326", layer="other", append=True)
        with pytest.raises(InputError, match="has 2 layers"):
            read_area("two.gpkg")
        name = "two.gpkg|layername=two"
    part, *_ = run("part.tif", aoi=name)
    whole, *_ = run("whole.tif")
    expected = np.where(inside(), whole, 255)
    assert (part != expected).mean() < 1e-4  # a center may change sides where an edge is rounded
    assert (part != 255).sum() > 5_000


def test_a_box_in_degrees(place):
    whole, *_ = run("whole.tif")
    to_degrees = pyproj.Transformer.from_crs(32632, 4326, always_xy=True)
    west, north = to_degrees.transform(500_000 + 2 * 50, 5_000_000 - 2 * 25)
    east, south = to_degrees.transform(500_000 + 2 * 150, 5_000_000 - 2 * 200)
    part, *_ = run("part.tif", bbox=(west, south, east, north))
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    xs, ys = to_degrees.transform(500_000 + 2 * cols, 5_000_000 - 2 * rows)
    expected = np.where((west < xs) & (xs < east) & (south < ys) & (ys < north), whole, 255)
    assert (part != expected).mean() < 1e-4


def test_a_box_over_the_antimeridian(tmp_path):
    area = box_area((179, -1, -179, 1))
    write_raster(tmp_path / "fiji.tif", np.full((3, 20, 40), 9, np.uint8), crs="EPSG:4326",
                 transform=Affine(0.1, 0, 178, 0, -0.1, 1))  # fmt: skip
    with Scene(tmp_path / "fiji.tif", area=area) as scene:
        mask = scene.placed_area.mask(0, 0, 20, 40)
    assert mask[:, 10:30].all()
    assert not mask[:, :10].any()
    assert not mask[:, 30:].any()


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269"])
@pytest.mark.parametrize(
    ("start", "west", "east"),
    [
        (178, -180, -179),  # a scene over the antimeridian
        (178, 180, 181),
        (-182, -180, -179),
        (260, -98, -97),  # a scene from 0 to 360
        (-100, 262, 263),
    ],
)
def test_longitudes_that_are_counted_in_another_way(tmp_path, crs, start, west, east):
    place = Affine(0.1, 0, start, 0, -0.1, 1)
    write_raster(tmp_path / "scene.tif", np.full((3, 20, 40), 9, np.uint8), crs="EPSG:4326",
                 transform=place)  # fmt: skip
    layer = write_layer(tmp_path / "area.gpkg", [shapely.box(west, -1, east, 1)], crs=crs)
    with Scene(tmp_path / "scene.tif", area=read_area(layer)) as scene:
        mask = scene.placed_area.mask(0, 0, 20, 40)
        zones = read_zones(open_layer(layer), scene.grid, "scene.tif")
    assert mask[:, 20:30].all()
    assert mask.sum() == 20 * 10
    assert shapely.area(zones.polygons) == pytest.approx(20 * 10)


def test_a_polygon_around_the_globe_covers_a_scene_over_the_antimeridian(tmp_path):
    write_raster(tmp_path / "fiji.tif", np.full((3, 20, 40), 9, np.uint8), crs="EPSG:4326",
                 transform=Affine(0.1, 0, 178, 0, -0.1, 1))  # fmt: skip
    layer = write_layer(tmp_path / "globe.gpkg", [shapely.box(-180, -90, 180, 90)], crs="EPSG:4326")
    with Scene(tmp_path / "fiji.tif") as scene:
        zones = read_zones(open_layer(layer), scene.grid, "fiji.tif")
    (found,) = zones.polygons
    assert found.covers(shapely.box(0, 0, 40, 20))


@pytest.mark.slow
def test_workers_map_areas_too(place, model_folder):
    options = ("--window", 64, "--aoi", "area.gpkg")
    assert crossearth_predict(model_folder, "scene.tif", "one.tif", *options) == 0
    assert crossearth_predict(model_folder, "scene.tif", "two.tif", *options, "--workers", 1) == 0
    assert crossearth_predict(model_folder, "scene.tif", "whole.tif", "--window", 64) == 0
    with (
        rasterio.open("one.tif") as one,
        rasterio.open("two.tif") as two,
        rasterio.open("whole.tif") as whole,
    ):
        np.testing.assert_array_equal(one.read(), two.read())
        # sums of other batches
        assert (one.read() != np.where(inside(), whole.read(), 255)).mean() < 1e-4


def test_scenes_of_a_folder_outside_the_area_are_skipped(place, model_folder, capsys):
    (place / "scenes").mkdir()
    (place / "scene.tif").rename(place / "scenes/scene.tif")
    far = np.full((3, 64, 64), 9, np.uint8)
    write_raster(place / "scenes/far.tif", far, transform=Affine(2, 0, 600_000, 0, -2, 5_000_000))
    assert (
        crossearth_predict(model_folder, "scenes", "maps", "--aoi", "area.gpkg", "--window", 64)
        == 0
    )
    assert sorted(path.name for path in (place / "maps").iterdir()) == with_legend("scene.tif")
    assert "far.tif: skipped, does not touch the area.gpkg" in capsys.readouterr().err


def test_areas_that_cannot_be_meant(place, model_folder, capsys):
    (place / "empty.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    write_layer(place / "points.gpkg", [shapely.Point(500_100, 4_999_900)])
    write_raster(place / "nowhere.tif", np.full((3, 64, 64), 9, np.uint8), transform=None)
    mistakes = {
        ("scene.tif", "--aoi", "none.gpkg"): "does not exist",
        ("scene.tif", "--aoi", "scene.tif"): "scene.tif",
        ("scene.tif", "--aoi", "empty.geojson"): "no polygon",
        ("scene.tif", "--aoi", "points.gpkg"): "is a Point, and polygons are needed",
        ("nowhere.tif", "--aoi", "area.gpkg"): "has no CRS",
        ("scene.tif", "--bbox", "500000,4999000,500100,4999100"): "in degrees",
        ("scene.tif", "--bbox", "9,48,9.1,47"): "in degrees",
        ("scene.tif", "--bbox", "-9,-48,-8.9,-47"): "does not touch the box -9,-48,-8.9,-47",
    }
    before = sorted(place.iterdir())
    for (scene, *options), words in mistakes.items():
        refused(capsys, crossearth_predict(model_folder, scene, "map.tif", *options), words)
    assert sorted(place.iterdir()) == before


def test_an_interrupted_map_of_another_area_is_not_continued(place):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("part.tif", aoi="area.gpkg", on_windows=stop)
    part, *_ = run("part.tif", bbox=(8, 45, 9.1, 45.2))
    whole, *_ = run("whole.tif")
    assert ((part == whole) | (part == 255)).all()
