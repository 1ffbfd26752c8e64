"""Tables of areas and zones: worked by hand, against rasterio.mask, and over jobs of several scenes."""

import csv
import json

import numpy as np
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from rasters import write_raster
from small_jobs import predict as crossearth_predict
from small_jobs import refused
from vectors import write_layer

from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet
from crossearth_hf.prediction.area_tables import AreaRows, AreaTables, hectare_digits
from crossearth_hf.raster.finished_map import FinishedMap
from crossearth_hf.raster.grid import Grid
from crossearth_hf.raster.writing import write_geotiff

COVER = LabelSet("cover", ("water", "wood", "rock"), ((0, 0, 255), (0, 255, 0), (255, 0, 0)))
TEN_METERS = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def on_map(shape, size=10):
    return shapely.transform(shape, lambda points: points * (size, -size) + (500_000, 5_000_000))


def write_map(path, labels, transform=TEN_METERS):
    write_geotiff(path, labels[None].astype(np.uint8), crs="EPSG:32632", transform=transform, nodata=255,
                  label_set=COVER)  # fmt: skip


def tables_of(folder, *maps, zones=None, suffix="csv"):
    tables = AreaTables.checked(
        folder / f"areas.{suffix}",
        None if zones is None else (zones, folder / f"zones.{suffix}"),
        others=maps,
        overwrite=True,
    )
    rows = AreaRows(tables)
    for path in maps:
        rows.add(path.stem, path)
    rows.write()
    return [read_table(path) for path in tables.files]


def read_table(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_map_worked_by_hand(tmp_path):
    labels = np.full((4, 5), 255)
    labels[:2] = (
        0  # 10 pixels of 0.01 ha on the map; the true area is 1/0.9996² larger at the central meridian
    )
    labels[2, :4] = 1
    write_map(tmp_path / "map.tif", labels)
    (areas,) = tables_of(tmp_path, tmp_path / "map.tif")
    assert areas == [
        {"scene": "map", "class": "water", "pixels": "10", "share": "0.714286", "hectares": "0.1"},
        {"scene": "map", "class": "wood", "pixels": "4", "share": "0.285714", "hectares": "0.04"},
        {"scene": "map", "class": "rock", "pixels": "0", "share": "0.0", "hectares": "0.0"},
    ]
    zones = write_layer(
        tmp_path / "zones.gpkg",
        [
            on_map(shapely.box(0, 0, 2, 3)),
            on_map(shapely.box(-5, 1.4, 9, 9)),
            on_map(shapely.box(50, 50, 60, 60)),
        ],
        {"name": ["north, west", "süd", "far"], "scene": [7, 8, 9]},
    )
    expected = [
        {"scene": "map", "feature": 1, "name": "north, west", "scene_": 7, "pixels": 6,
         "hectares_water": 0.04, "hectares_wood": 0.02, "hectares_rock": 0.0},
        {"scene": "map", "feature": 2, "name": "süd", "scene_": 8, "pixels": 9,
         "hectares_water": 0.05, "hectares_wood": 0.04, "hectares_rock": 0.0},
    ]  # fmt: skip
    assert tables_of(tmp_path, tmp_path / "map.tif", zones=zones, suffix="json")[1] == expected
    in_csv = tables_of(tmp_path, tmp_path / "map.tif", zones=zones)[1]
    assert in_csv == [{name: str(value) for name, value in row.items()} for row in expected]


def test_zones_against_rasterio(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 255], (1100, 1300))  # over the borders of blocks
    write_map(tmp_path / "map.tif", labels)
    shapes = []
    for _ in range(40):  # some overlap, some leave the map
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(5, 300, 9)[:, None]
        star = rng.uniform((0, 0), (1300, 1100)) + radii * np.stack(
            [np.cos(angles), np.sin(angles)], 1
        )
        shapes.append(
            shapely.make_valid(shapely.Polygon(star), method="structure", keep_collapsed=False)
        )
    zones = write_layer(tmp_path / "zones.geojson", [on_map(shape) for shape in shapes])
    rows = tables_of(tmp_path, tmp_path / "map.tif", zones=zones, suffix="json")[1]
    assert len(rows) == 40
    with rasterio.open(tmp_path / "map.tif") as source:
        pixel = (
            FinishedMap(tmp_path / "map.tif").grid.pixel_areas(500, 600, np.ones((1, 1), bool))[
                0, 0
            ]
            / 10_000
        )
        for shape, row in zip(shapes, rows, strict=True):
            cut, _ = rasterio.mask.mask(source, [on_map(shape)], nodata=255, filled=True)
            counts = np.bincount(cut.ravel(), minlength=256)[:3]
            assert row["pixels"] == counts.sum()
            found = [row[f"hectares_{name}"] for name in COVER.classes]
            np.testing.assert_allclose(found, counts * pixel, rtol=1e-4, atol=0.006)


@pytest.mark.parametrize(
    ("meters", "digits"),
    [(0.25, 6), (0.5, 5), (1, 4), (2, 4), (10, 2), (30, 2), (100, 0), (500, 0)],
)
def test_hectares_are_rounded_as_pixels_allow(meters, digits):
    grid = Grid(
        10, 10, rasterio.crs.CRS.from_epsg(32632), Affine(meters, 0, 500_000, 0, -meters, 5_000_000)
    )
    assert hectare_digits(grid) == digits


def test_a_map_without_a_place_has_no_hectares(tmp_path):
    write_geotiff(tmp_path / "map.tif", np.zeros((1, 4, 5), np.uint8), crs=None, transform=Affine.identity(),
                  nodata=255, label_set=COVER)  # fmt: skip
    (areas,) = tables_of(tmp_path, tmp_path / "map.tif", suffix="json")
    assert [row["hectares"] for row in areas] == [None] * 3
    zones = write_layer(tmp_path / "zones.gpkg", [on_map(shapely.box(0, 0, 2, 3))])
    with pytest.raises(InputError, match="has no CRS"):
        tables_of(tmp_path, tmp_path / "map.tif", zones=zones)


def test_tables_of_one_scene_and_of_a_job(place, model_folder, capsys):
    zones = write_layer(
        place / "zones.gpkg", [shapely.box(500_000, 4_999_990, 500_010, 5_000_000)], {"name": ["a"]}
    )
    options = ("--areas", "areas.csv", "--zones", zones, "zones.json")
    assert crossearth_predict(model_folder, "in.tif", "map.tif", *options) == 0
    printed = capsys.readouterr().out
    assert "areas.csv" in printed
    assert "zones.json" in printed
    alone = read_table(place / "areas.csv")
    assert sum(int(row["pixels"]) for row in alone) == 64 * 80
    assert read_table(place / "zones.json")[0]["pixels"] == 20 * 20
    refused(
        capsys,
        crossearth_predict(model_folder, "in.tif", "other.tif", *options),
        "areas.csv exists already",
    )
    assert not (place / "other.tif").exists()

    (place / "scenes/sub").mkdir(parents=True)
    (place / "in.tif").rename(place / "scenes/sub/a.tif")
    write_raster(place / "scenes/b.tif", np.full((3, 32, 32), 200, np.uint8), transform=None)
    (place / "job.csv").write_text("something else")
    job = ("scenes", "maps", "--areas", "job.csv")
    refused(capsys, crossearth_predict(model_folder, *job), "job.csv exists already")
    (place / "job.csv").unlink()
    for _ in range(2):  # the second time, both maps exist and the table is written again
        assert crossearth_predict(model_folder, *job) == 0
        rows = read_table(place / "job.csv")
        assert [row["scene"] for row in rows] == ["b"] * (len(rows) // 2) + ["sub/a"] * (
            len(rows) // 2
        )
        assert rows[len(rows) // 2 :] == [row | {"scene": "sub/a"} for row in alone]
        assert {row["hectares"] for row in rows[: len(rows) // 2]} == {""}
    code = crossearth_predict(model_folder, "scenes", "maps", "--zones", zones, "job_zones.csv")
    assert code == 2
    assert "b.tif is missing in the tables" in capsys.readouterr().err
    assert [row["scene"] for row in read_table(place / "job_zones.csv")] == ["sub/a"]
