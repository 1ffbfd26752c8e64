"""STAC items of maps, read by pystac and checked against the schemas that come with it."""

import numpy as np
import pytest
from affine import Affine
from rasters import write_raster
from small_jobs import predict as crossearth_predict
from small_jobs import refused
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.prediction import predict
from crossearth_hf.raster.footprint import footprint
from crossearth_hf.raster.scene import Scene

pystac = pytest.importorskip("pystac")
from pystac.extensions.classification import ClassificationExtension  # noqa: E402
from pystac.extensions.projection import ProjectionExtension  # noqa: E402


def core_is_valid(path):
    """Checks an item against STAC's own schemas; those of extensions are not on this machine."""
    item = pystac.Item.from_file(path)
    plain = item.clone()
    plain.stac_extensions = []
    plain.validate()
    return item


def test_an_item_of_a_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(1, 256, (3, 60, 100), dtype=np.uint8)
    write_raster(
        tmp_path / "scene.tif", pixels, transform=Affine(10, 0, 600_000, 0, -10, 5_300_000)
    )
    (tmp_path / "maps").mkdir()
    model = (ColorModel(), CrossEarthImageProcessor())
    options = {"confidence": "sure.tif", "stac": True, "progress": False, "tell": None}
    report = predict("scene.tif", "maps/map.tif", model=model, window=64, **options)
    assert report.files[-1] == tmp_path / "maps/map.json"
    item = core_is_valid(str(tmp_path / "maps/map.json"))
    projection = ProjectionExtension.ext(item)
    assert (projection.code, projection.shape) == ("EPSG:32632", [60, 100])
    assert projection.transform == [10, 0, 600_000, 0, -10, 5_300_000]
    with Scene("scene.tif") as scene:
        assert footprint(scene.grid)[1] == item.bbox
    west, south, east, north = item.bbox
    assert west == pytest.approx(10.338, abs=3e-3)
    assert north == pytest.approx(47.846, abs=1e-3)
    assert (east - west) * 111_320 * np.cos(np.radians(north)) == pytest.approx(1000, rel=0.03)
    assert (north - south) * 111_180 == pytest.approx(600, rel=0.05)
    (link,) = [link for link in item.links if link.rel == "derived_from"]
    assert (tmp_path / "maps" / link.href).resolve() == tmp_path / "scene.tif"
    assert item.properties["processing:software"].keys() == {"crossearth-hf"}
    band = item.assets["map"].extra_fields["bands"][0]
    assert [entry["title"] for entry in band["classification:classes"][:3]] == [
        "red",
        "green",
        "blue",
    ]
    no_data = {"value": 255, "name": "no_data", "description": "no data", "nodata": True}
    assert band["classification:classes"][-1] == no_data
    assert ClassificationExtension.get_schema_uri() in item.stac_extensions
    assert (tmp_path / "maps" / item.assets["sure"].href).resolve() == tmp_path / "sure.tif"


def test_a_map_without_a_place_and_files_in_the_way(place, model_folder, capsys):
    write_raster(place / "scene.tif", np.full((3, 32, 32), 9, np.uint8), transform=None)
    assert crossearth_predict(model_folder, "scene.tif", "map.tif", "--stac") == 0
    assert core_is_valid(str(place / "map.json")).geometry is None
    assert crossearth_predict(model_folder, "scene.tif", "map.tif", "--stac", "--overwrite") == 0
    (place / "other.json").write_text("{}")
    refused(
        capsys,
        crossearth_predict(model_folder, "in.tif", "other.tif", "--stac"),
        "other.json is not a STAC item",
    )
    assert not (place / "other.tif").exists()


def test_a_table_is_not_written_over_an_item(place, model_folder, capsys):
    same = "map.json is the same file"
    one = ("in.tif", "map.tif", "--stac", "--areas", "map.json")
    refused(capsys, crossearth_predict(model_folder, *one), same)
    many = (".", "maps", "--stac", "--areas", "maps/in.json")
    refused(capsys, crossearth_predict(model_folder, *many), "in.json is the same file")
    assert not (place / "map.tif").exists()
