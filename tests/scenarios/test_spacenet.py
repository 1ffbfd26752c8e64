"""SpaceNet: chips and labels find each other, roads of 4 m, houses with courts, 16 bits, pixels without image."""

import numpy as np
import pytest
import rasterio
from miniature_others import CITIES, geojson, spacenet_buildings, spacenet_roads

from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.readers.spacenet import read
from crossearth_hf.scenarios.domains import DOMAINS

ROADS, BUILDINGS = DOMAINS["spacenet_road"], DOMAINS["spacenet_building"]


def test_roads_are_four_meters_wide(tmp_path):
    spacenet_roads(tmp_path)
    source = read(RawFolder.open(tmp_path), ROADS, {})
    assert [pair.name for pair in source.pairs] == [f"{city}_img1" for city in CITIES]
    assert {pair.split for pair in source.pairs} == {"test"}
    assert source.unpaired == ()
    assert "4 chips without a label file are left out" in source.notes
    expected = np.zeros((40, 40), np.uint8)
    expected[13:27] = 1  # pixels of 0.2996 m down: centers within 2 m of row 20 are 13.5 to 26.5
    expected[:3] = 255
    for pair in source.pairs:
        np.testing.assert_array_equal(source.labels(pair), expected)


def test_buildings_have_courts(tmp_path):
    spacenet_buildings(tmp_path)
    source = read(RawFolder.open(tmp_path), BUILDINGS, {})
    assert len(source.pairs) == 8
    for pair in source.pairs:
        expected = np.zeros((40, 40), np.uint8)
        if pair.name.endswith("img1"):
            expected[10:18, 5:15] = 1
            expected[12:14, 8:10] = 0
        expected[:3] = 255
        np.testing.assert_array_equal(source.labels(pair), expected)


def test_speed_labels_stand_in_for_roads(tmp_path):
    spacenet_roads(tmp_path)
    for folder in tmp_path.glob("*/geojson_roads"):
        folder.rename(folder.parent / "geojson_roads_speed")
    source = read(RawFolder.open(tmp_path), ROADS, {})
    assert len(source.pairs) == 4
    assert source.labels(source.pairs[0])[20, 5] == 1


def test_missing_cities_are_told(tmp_path):
    spacenet_roads(tmp_path, CITIES[1:3])
    source = read(RawFolder.open(tmp_path), ROADS, {})
    assert source.unpaired == (
        "no labeled chip of AOI_2_Vegas",
        "no labeled chip of AOI_5_Khartoum",
    )
    assert source.layout == "assumed"


def test_paths_name_other_places(tmp_path):
    spacenet_buildings(tmp_path / "old")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for path in (tmp_path / "old").rglob("*.tif"):
        path.rename(tmp_path / "images" / path.name)
    for path in (tmp_path / "old").rglob("*.geojson"):
        path.rename(tmp_path / "labels" / path.name)
    paths = {key: RawFolder.open(tmp_path / key) for key in ("images", "labels")}
    assert len(read(RawFolder.open(tmp_path), BUILDINGS, paths).pairs) == 8
    assert read(RawFolder.open(tmp_path), BUILDINGS, {}).pairs == ()


def first_label(folder, content):
    """Builds with another content of the first label file."""
    next(folder.rglob("*AOI_2_Vegas*img1.geojson")).write_text(content)
    source = read(RawFolder.open(folder), ROADS, {})
    return source.labels(source.pairs[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", r"img1\.geojson is no GeoJSON of LineStrings"),
        ('{"type": "FeatureCollection"}', r"is no GeoJSON of LineStrings \('features'\)"),
        (
            geojson({"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}),
            "a Polygon among them",
        ),
        (
            geojson({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}),
            "all lie outside its image",
        ),
        (
            geojson({"type": "LineString", "coordinates": [["east", 2], [3, 4]]}),
            "is no GeoJSON of LineStrings",
        ),
        (
            geojson({"type": "LineString", "coordinates": [[500000.0, 9e9], [500001.0, 9e9]]}),
            "outside its image",
        ),
    ],
)
def test_broken_labels_are_refused(tmp_path, content, message):
    spacenet_roads(tmp_path)
    with pytest.raises(InputError, match=message):
        first_label(tmp_path, content)


def test_an_empty_label_file_means_no_road(tmp_path):
    spacenet_roads(tmp_path)
    assert set(np.unique(first_label(tmp_path, ""))) == {0, 255}
    assert set(
        np.unique(first_label(tmp_path, geojson(None, {"type": "LineString", "coordinates": []})))
    ) == {0, 255}


def test_an_image_without_georeference_is_refused(tmp_path):
    spacenet_roads(tmp_path)
    path = next(tmp_path.rglob("*AOI_2_Vegas*img1.tif"))
    with rasterio.open(path) as image:
        pixels = image.read()
    profile = {"driver": "GTiff", "count": 3, "height": 40, "width": 40, "dtype": "uint16"}
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(path, "w", **profile) as target,
    ):
        target.write(pixels)
    source = read(RawFolder.open(tmp_path), ROADS, {})
    with pytest.raises(InputError, match="has no georeference, which its labels need"):
        source.labels(source.pairs[0])
