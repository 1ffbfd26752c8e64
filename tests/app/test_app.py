"""The app without a server: predictions, and what gets onto the page."""

import json
import re
from html import unescape
from urllib.request import urlopen
from zipfile import ZipFile

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

import app_parts
import pyogrio
from affine import Affine
from app_parts import patches, read_map, stub_model, write_patches
from paths import ROOT
from rasters import read_shares, write_raster

from crossearth_hf.app import pages, predict
from crossearth_hf.app.about import LEARNED_FROM, about
from crossearth_hf.app.downloads import name_of
from crossearth_hf.app.examples import make_examples
from crossearth_hf.app.growth import Growth
from crossearth_hf.app.looks import look
from crossearth_hf.app.pictures import gray_levels
from crossearth_hf.app.shift import infrared_scene
from crossearth_hf.app.uploads import Limits
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet, get_label_set
from crossearth_hf.prediction import MapReport
from crossearth_hf.raster.grid import Grid
from crossearth_hf.raster.scene import Reading, Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_a_scene_becomes_a_map(tmp_path, folder):
    ids = write_patches(tmp_path / "upload <script>.tif")
    counted = []
    result = predict(
        tmp_path / "upload <script>.tif",
        stub_model(),
        folder,
        on_windows=lambda *numbers: counted.append(numbers),
    )
    map_file, confidence, picture = result.report.files
    np.testing.assert_array_equal(read_map(map_file), ids)
    with rasterio.open(map_file) as source:
        assert (source.crs.to_epsg(), source.transform) == (32632, app_parts.PLACE)
    assert counted[-1][0] == counted[-1][1] == 4 * 5
    assert Image.open(picture).format == "PNG"
    assert np.isfinite(read_shares(confidence)).all()
    meta, _, _, (class_ids, names, *_) = pyogrio.raw.read(result.polygons, layer="map")
    assert meta["crs"] == "EPSG:32632"
    assert set(zip(class_ids.tolist(), names.tolist(), strict=True)) == {
        (0, "red"),
        (1, "green"),
        (2, "blue"),
    }
    assert (result.place.longitude, result.place.latitude) == pytest.approx((8.99, 45.15), abs=0.01)
    assert result.advice is None
    assert result.layers.size == (200, 160)
    np.testing.assert_array_equal(np.asarray(Image.open(result.layers.labels)), ids)


def test_downloads_are_named_after_the_scene(tmp_path, folder):
    write_patches(tmp_path / "s.tif")
    result = predict(tmp_path / "s.tif", stub_model(), folder, name="my-scene")
    files = [*result.report.files, result.polygons]
    names = [
        f"my-scene-{kind}" for kind in ("map.tif", "confidence.tif", "picture.png", "polygons.gpkg")
    ]
    assert [path.name for path in files] == names
    with ZipFile(result.archive) as archive:
        assert set(names) <= set(archive.namelist())
        assert archive.read("my-scene-map.tif") == files[0].read_bytes()
    assert result.archive.name == "my-scene.zip"
    html = pages.downloads([result.archive, *files])
    assert all(f"{name}' download" in html for name in [*names, "my-scene.zip"])


@pytest.mark.parametrize(
    ("upload", "name"),
    [
        ("my scene <b>.tif", "my-scene-b"),
        ("Zürich 2024.tif", "Zürich-2024"),
        ("../../etc/passwd", "passwd"),
        ("{{x}}.png", "x"),
        ("...", "scene"),
        ("a" * 300 + ".tif", "a" * 40),
    ],
)
def test_names_of_uploads_are_made_plain(upload, name):
    assert name_of(upload) == name


def test_the_map_grows(tmp_path, folder):
    """What is shown at the end is the map, but for the blending where windows overlap."""
    ids = write_patches(tmp_path / "s.tif")
    grown, shares = [], []

    def count(done, total):
        shares.append((grown[0].labels != 255).mean())

    predict(tmp_path / "s.tif", stub_model(), folder, on_windows=count, on_growth=grown.append)
    assert 0 < shares[0] < 0.5
    assert shares == sorted(shares)
    np.testing.assert_array_equal(grown[0].labels, ids)
    with urlopen(grown[0].address()) as picture:
        np.testing.assert_array_equal(np.asarray(Image.open(picture)), ids)


def test_the_growing_map_of_a_large_scene_is_small():
    network, _ = stub_model()
    growth = Growth(Grid(4096, 2048, None, Affine.identity()), network.config)
    growth._found = [np.ones((16, 16), np.uint8)] * 4
    growth.place()
    assert growth.labels.shape == (256, 512)
    assert (growth.labels[:8, :20] == 1).all()
    assert (growth.labels[9:] == 255).all()


def test_a_first_look(tmp_path, folder):
    pixels, _ = patches()
    write_raster(
        tmp_path / "s.tif",
        np.concatenate([pixels, pixels[:1]]),
        crs=app_parts.CRS,
        transform=app_parts.PLACE,
    )
    found = look(tmp_path / "s.tif", folder, Limits(), Reading(bands=(3, 2, 1)), None)
    assert Image.open(found.picture).size == (200, 160)
    assert "bands 3,2,1 of 4" in found.reading
    html = pages.look(found, "<s>", get_label_set("land-cover"))
    for part in (
        "200 x 160 pixels",
        "2 m",
        "longitude 8.98",
        "EPSG:32632",
        "bands 3,2,1 of 4",
        "&lt;s&gt;",
    ):
        assert part in html
    view = json.loads(unescape(re.search('data-view="(.*?)"', html)[1]))
    assert (view["width"], view["height"], view["crs"]) == (200, 160, "EPSG:32632")
    assert view["transform"] == list(app_parts.PLACE[:6])
    assert view["meters"] == pytest.approx(2, rel=1e-3)


def test_the_checkbox_is_offered_where_it_works(tmp_path):
    write_patches(tmp_path / "s.tif")

    def offered(name, trained_at, megapixels=1):
        (tmp_path / name).mkdir()
        found = look(
            tmp_path / "s.tif",
            tmp_path / name,
            Limits(megapixels=megapixels),
            Reading(),
            trained_at,
        )
        return found.can_be_rescaled

    assert not offered("unknown", None)
    assert offered("fits", 0.5)
    assert not offered("too many pixels", 0.1)
    assert not offered("too different", 500.0)


def test_what_the_page_says_of_the_bundled_model():
    network, processor = stub_model()
    html = about("crossearth-small", (network, processor))
    assert "finds red, green and blue in" in html
    card = (ROOT / "hub_cards" / "crossearth-small" / "README.md").read_text()
    for place in LEARNED_FROM:
        assert place in html
        assert place in card
    network.config.ground_sampling_distance = 0.3
    other = about("<b>", (network, processor))
    assert "&lt;b&gt;" in other
    assert "pixels of 0.3 m" in other


def test_pixels_without_data_are_left_out(tmp_path, folder):
    pixels, _ = patches()
    pixels[:, :30] = 0
    app_parts.write_geotiff(
        tmp_path / "s.tif", pixels, crs=app_parts.CRS, transform=app_parts.PLACE, nodata=0
    )
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    for layer in (result.layers.labels, result.layers.confidence):
        np.testing.assert_array_equal(np.asarray(Image.open(layer)) == 255, ~pixels.any(axis=0))
    assert result.report.without_data == 30 * 200
    assert "6,000 pixels hold no data" in pages.legend(result.report)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_pictures(tmp_path, folder, ending):
    pixels, ids = patches()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"s.{ending}", quality=95)
    result = predict(tmp_path / f"s.{ending}", stub_model(), folder)
    assert (read_map(result.report.files[0]) == ids).mean() > 0.98
    assert result.place is None
    assert result.report.hectares is None
    assert "no known location" in pages.place(result.place, result.summary, result.advice, 1.0)
    assert "Hectares need a georeferenced scene" in pages.legend(result.report)


def test_16_bits_are_kept(tmp_path, folder):
    """Pillow would cut them to 8 bits, and with them all that this scene shows."""
    pixels, ids = patches()
    write_raster(tmp_path / "s.png", pixels.astype(np.uint16) + 1000, driver="PNG", transform=None)
    result = predict(tmp_path / "s.png", stub_model(), folder)
    np.testing.assert_array_equal(read_map(result.report.files[0]), ids)
    assert "uint16, stretched" in result.summary


def test_large_scenes_are_shown_decimated(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("crossearth_hf.app.pictures.LONGEST", 100)
    write_patches(tmp_path / "s.tif")
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    assert (
        Image.open(result.layers.scene).size
        == Image.open(result.layers.labels).size
        == result.layers.size
        == (100, 80)
    )


def test_the_models_resolution(tmp_path, folder):
    ids = write_patches(tmp_path / "s.tif")
    advised = predict(tmp_path / "s.tif", stub_model(trained_at=0.5), folder)
    assert "trained at 0.5 m" in advised.advice
    (folder / "again").mkdir()
    result = predict(
        tmp_path / "s.tif", stub_model(trained_at=1.0), folder / "again", at_model_resolution=True
    )
    found = read_map(result.report.files[0])
    assert found.shape == ids.shape
    assert (found == ids).mean() > 0.95
    assert result.advice is None
    with pytest.raises(InputError, match="does not state its resolution"):
        predict(tmp_path / "s.tif", stub_model(), folder, at_model_resolution=True)


def report(name="<b>x</b>", hectares=None):
    label_set = LabelSet("custom", (name, "low_vegetation"), ((1, 2, 3), (4, 5, 6)))
    return MapReport(label_set, np.array([75, 25]), hectares, 0, 1.0, ())


def test_the_legend():
    html = pages.legend(report(hectares=np.array([1234.5, 0.5])))
    assert "<b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html
    assert "low vegetation" in html
    for part in ("75.0 %", "25.0 %", "1,234.50", "0.50", "#010203"):
        assert part in html
    assert "Okabe and Ito" not in html
    land_cover = get_label_set("land-cover")
    ours = MapReport(land_cover, np.ones(5, int), None, 0, 1.0, ())
    assert "Okabe and Ito (2008)" in pages.legend(ours)


def test_levels_of_confidence():
    levels = gray_levels(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32))[0]
    assert levels.tolist() == [0, 127, 254, 255]


def test_examples_are_drawn_once(tmp_path):
    first = make_examples(tmp_path, side=64)
    times = [example.scene.stat().st_mtime_ns for example in first]
    assert make_examples(tmp_path, side=64) == first
    assert [example.scene.stat().st_mtime_ns for example in first] == times
    with Scene(first[2].scene) as photograph:
        assert photograph.read(0, 0, 8, 8).pixels.shape == (3, 8, 8)
    with Scene(first[0].scene) as scene, infrared_scene(scene) as infrared:
        colors, other = scene.read(0, 0, 64, 64), infrared.read(0, 0, 64, 64)
        assert colors.valid.all()
        np.testing.assert_array_equal(other.pixels[1:], colors.pixels[:2])
        assert (other.pixels[0] != colors.pixels[2]).any()
