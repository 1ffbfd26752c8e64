"""The app without a server: predictions, and what gets onto the page."""

import re
import signal
import socket

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

import app_parts
import pyogrio
from app_parts import patches, read_map, stub_model, write_patches
from packaging.requirements import Requirement
from paths import ROOT
from rasters import write_raster

import crossearth_hf
from crossearth_hf.app import main, pages, predict, settings
from crossearth_hf.app.examples import make_examples
from crossearth_hf.app.pictures import ORANGE, paint_confidence, save_version
from crossearth_hf.app.shift import STYLES, compare_versions, infrared_scene
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet, get_label_set
from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.prediction import MapReport
from crossearth_hf.raster.scene import Scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_a_scene_becomes_a_map(tmp_path, folder):
    ids = write_patches(tmp_path / "upload <script>.tif")
    counted = []
    result = predict(
        tmp_path / "upload <script>.tif", stub_model(), folder, on_windows=lambda *numbers: counted.append(numbers)
    )
    map_file, confidence, picture = result.report.files
    np.testing.assert_array_equal(read_map(map_file), ids)
    with rasterio.open(map_file) as source:
        assert (source.crs.to_epsg(), source.transform) == (32632, app_parts.PLACE)
    assert counted[-1][0] == counted[-1][1] == 4 * 5
    assert Image.open(picture).format == "PNG"
    assert np.isfinite(read_map(confidence)).all()
    meta, _, _, (class_ids, names, *_) = pyogrio.raw.read(result.polygons)
    assert meta["crs"] == "EPSG:32632"
    assert set(zip(class_ids.tolist(), names.tolist(), strict=True)) == {(0, "red"), (1, "green"), (2, "blue")}
    assert (result.place.longitude, result.place.latitude) == pytest.approx((8.99, 45.15), abs=0.01)
    assert result.advice is None
    assert result.layers.size == (200, 160)
    shown = np.asarray(Image.open(result.layers.map))
    np.testing.assert_array_equal(shown[..., :3], result.report.label_set.colorize(ids))
    assert (shown[..., 3] == 255).all()


def test_pixels_without_data_are_transparent(tmp_path, folder):
    pixels, _ = patches()
    pixels[:, :30] = 0
    app_parts.write_geotiff(tmp_path / "s.tif", pixels, crs=app_parts.CRS, transform=app_parts.PLACE, nodata=0)
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    for layer in (result.layers.map, result.layers.confidence):
        np.testing.assert_array_equal(np.asarray(Image.open(layer))[..., 3] == 0, ~pixels.any(axis=0))
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
    assert "no known place" in pages.place(result.place, result.summary, result.advice, 1.0)
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
    assert Image.open(result.layers.scene).size == Image.open(result.layers.map).size == result.layers.size == (100, 80)


def test_the_models_resolution(tmp_path, folder):
    ids = write_patches(tmp_path / "s.tif")
    advised = predict(tmp_path / "s.tif", stub_model(trained_at=0.5), folder)
    assert "learned at 0.5 m" in advised.advice
    (folder / "again").mkdir()
    result = predict(tmp_path / "s.tif", stub_model(trained_at=1.0), folder / "again", at_model_resolution=True)
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


def test_confidence_is_gray_and_uncertain_places_are_orange():
    painted = paint_confidence(np.array([[0.3, 0.5, 0.75, 1.0, np.nan]], np.float32))[0]
    assert painted[0].tolist() == list(ORANGE)
    assert painted[1].tolist() == [40, 40, 40]
    assert painted[3].tolist() == [245, 245, 245]
    assert 40 < painted[2][0] < 245
    assert painted[4].tolist() != list(ORANGE)


@pytest.fixture(scope="module")
def style():
    return EarthStyle.from_file()


def versions(path, style, infrared=False, **options):
    with Scene(path) as scene:
        settings = {"alpha": 1.0, "mask_ratio": 1.0, "seed": 3} | options
        extra = infrared_scene(scene) if infrared else None
        found = compare_versions(scene, *stub_model(), style, infrared=extra, **settings)
        if extra is not None:
            extra.close()
    return found


def test_versions_of_a_scene(tmp_path, style):
    pixels, ids = patches()
    write_raster(tmp_path / "s.tif", np.concatenate([pixels, pixels[2:]]), photometric="RGB", alpha="unspecified")
    original, *styled = versions(tmp_path / "s.tif", style)
    np.testing.assert_array_equal(original.labels, ids)
    assert original.agreement is None
    assert len(styled) == STYLES
    for version in styled:
        assert version.agreement == (version.labels == ids).mean() < 1
        assert np.abs(version.raster.pixels.astype(int) - pixels).mean() > 5
    again = versions(tmp_path / "s.tif", style)
    np.testing.assert_array_equal(again[1].raster.pixels, styled[0].raster.pixels)
    assert (styled[0].raster.pixels != styled[1].raster.pixels).any()
    untouched = versions(tmp_path / "s.tif", style, mask_ratio=0.0)
    assert [version.agreement for version in untouched[1:]] == [1.0] * STYLES
    infrared = versions(tmp_path / "s.tif", style, infrared=True, mask_ratio=0.0)
    assert infrared[1].title == "Near infrared, red, green"
    np.testing.assert_array_equal(infrared[1].raster.pixels, pixels[[2, 0, 1]])  # its band 4 equals its band 3
    np.testing.assert_array_equal(infrared[2].raster.pixels, pixels[[2, 0, 1]])


def test_version_cards(tmp_path, folder, style):
    pixels, ids = patches()
    write_raster(tmp_path / "s.tif", pixels)
    found = versions(tmp_path / "s.tif", style)
    label_set = LabelSet("custom", ("red", "green", "blue"), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))
    files = [save_version(v.raster, v.labels, ids, label_set, folder, i) for i, v in enumerate(found)]
    html = pages.version_cards(found, files, label_set)
    assert html.count("<figure>") == 1 + STYLES
    assert html.count("<img") == 2 + 3 * STYLES
    assert all(alt for alt in re.findall(r"alt='(.*?)'", html))
    changed = np.asarray(Image.open(files[1][2]))[..., :3].max(axis=2) == 200
    np.testing.assert_array_equal(changed, found[1].labels != ids)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"alpha": 2.0}, "alpha 2.0"), ({"seed": -1}, "non-negative"), ({"infrared": True}, "needs a fourth band")],
)
def test_versions_that_cannot_be(tmp_path, style, options, sentence):
    write_patches(tmp_path / "s.tif")
    with pytest.raises(InputError, match=sentence):
        versions(tmp_path / "s.tif", style, **options)


def test_a_model_of_four_bands_has_no_styles(tmp_path, style):
    write_patches(tmp_path / "s.tif")
    network, processor = stub_model()
    network.config.num_channels = 4
    with Scene(tmp_path / "s.tif") as scene, pytest.raises(InputError, match="this model sees 4 bands"):
        compare_versions(scene, network, processor, style, alpha=1.0, mask_ratio=1.0, seed=3)


def test_scenes_too_small_or_empty_for_a_style(tmp_path, style):
    write_raster(tmp_path / "small.tif", np.ones((3, 20, 90), np.uint8))
    write_raster(tmp_path / "empty.tif", np.zeros((3, 90, 90), np.uint8), nodata=0)
    with pytest.raises(InputError, match="90 x 20 pixels"):
        versions(tmp_path / "small.tif", style)
    with pytest.raises(InputError, match="no pixel with data"):
        versions(tmp_path / "empty.tif", style)


def test_examples_are_drawn_once(tmp_path):
    first = make_examples(tmp_path, side=64)
    times = [example.scene.stat().st_mtime_ns for example in first]
    assert make_examples(tmp_path, side=64) == first
    assert [example.scene.stat().st_mtime_ns for example in first] == times
    with Scene(first[0].scene) as scene, infrared_scene(scene) as infrared:
        colors, other = scene.read(0, 0, 64, 64), infrared.read(0, 0, 64, 64)
        assert colors.valid.all()
        np.testing.assert_array_equal(other.pixels[1:], colors.pixels[:2])
        assert (other.pixels[0] != colors.pixels[2]).any()


def test_models_of_one_name_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "load_model", lambda name, device: name)
    for folder in ("a/best", "b/best", "b/other"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert settings.load_models(["a/best", "b/best", "b/other", "org/model"], "cpu") == {
        "a/best": "a/best",
        "b/best": "b/best",
        "other": "b/other",
        "org/model": "org/model",
    }
    monkeypatch.chdir("b/other")
    assert settings.load_models(["."], "cpu") == {"other": "."}


def test_the_work_folder_is_emptied_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    (tmp_path / "mine.txt").write_text("mine")
    stale = tmp_path / "crossearth-app" / "served" / "old"
    stale.mkdir(parents=True)
    with settings.work_folder(tmp_path) as folders:
        assert not stale.exists()
        folders.examples.mkdir()
        (folders.served / "upload.tif").write_text("x")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["crossearth-app", "examples", "mine.txt"]
    with settings.work_folder(None) as folders:
        assert folders.served.is_dir()
    assert not folders.served.parent.exists()


def test_two_servers_do_not_share_a_work_folder(tmp_path, monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    with settings.work_folder(tmp_path) as folders:
        (folders.served / "upload.tif").write_text("x")
        with pytest.raises(InputError, match="another server uses"), settings.work_folder(tmp_path):
            pass
        assert (folders.served / "upload.tif").exists()
    with settings.work_folder(tmp_path):
        pass


def test_work_folders_that_cannot_be(tmp_path, monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
        monkeypatch.setenv(name, "")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    (tmp_path / "linked" / "crossearth-app").mkdir(parents=True)
    (tmp_path / "linked" / "crossearth-app" / "served").symlink_to(tmp_path / "mine")
    for parent in ("file", "linked"):
        with (
            pytest.raises(InputError, match="choose another folder by --work-dir"),
            settings.work_folder(tmp_path / parent),
        ):
            pass
    assert (tmp_path / "mine" / "precious.txt").exists()


@pytest.mark.parametrize(
    "flags",
    [
        "--max-megapixels 0",
        "--max-megapixels nan",
        "--max-megabytes inf",
        "--keep-minutes inf",
        "--keep-minutes -1",
        "--max-queue -1",
        "--port 0",
        "--port 99999999",
        "--port x",
        "--prot",
        "scene.tif",
    ],
)
def test_wrong_flags(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        settings.parse(flags.split())
    assert stop.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: crossearth app [options]"
    assert error.startswith("crossearth app: error: ")
    assert flags.split()[-1] in error


def test_addresses_that_cannot_be_opened(capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        for flags in (["--port", taken], ["--host", "8.8.8.8"], ["--host", "::zz"], ["--host", "a" * 70]):
            assert main(flags) == 2
            (error,) = capsys.readouterr().err.splitlines()
            assert flags[1] in error
            assert "cannot be opened here; choose another port with --port" in error
    settings.check_address(settings.parse(["--port", taken]))


def test_the_readme_names_every_flag():
    readme = (ROOT / "app" / "README.md").read_text()
    flags = vars(settings.parse([]))
    assert [flag for flag in flags if f"`--{flag.replace('_', '-')}" not in readme] == []


def test_a_space_installs_this_version_with_the_app():
    requirement = Requirement((ROOT / "app" / "requirements.txt").read_text().strip())
    wheel = f"crossearth_hf-{crossearth_hf.__version__}-py3-none-any.whl"
    assert (requirement.name, requirement.extras) == ("crossearth-hf", {"app"})
    assert requirement.url.rpartition("/")[2] == wheel
    readme = (ROOT / "app" / "README.md").read_text()
    assert f"dist/{wheel} {wheel}" in readme
    front = readme.split("---")[1]
    assert "app_file: app.py" in front
