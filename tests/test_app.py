"""The app without a server: predictions, messages for bad uploads, limits, jobs, and what gets onto the page."""

import asyncio
import re
import threading
import time

import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

import app_parts
import pages
import pyogrio
import settings
from app_parts import patches, stub_model, write_patches
from examples import make_examples
from jobs import Cancelled, Jobs
from pictures import ORANGE, paint_confidence, save_version
from rasters import write_raster
from shift import STYLES, compare_versions, infrared_scene
from uploads import Limits, admitted

from app import predict
from crossearth_hf.earth_style import EarthStyle
from crossearth_hf.errors import InputError
from crossearth_hf.geotiff import Scene
from crossearth_hf.labels import LabelSet, get_label_set
from crossearth_hf.mapping import MapReport

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "job").mkdir()
    return tmp_path / "job"


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_a_scene_becomes_a_map(tmp_path, folder):
    ids = write_patches(tmp_path / "upload <script>.tif")
    counted = []
    result = predict(
        tmp_path / "upload <script>.tif", stub_model(), folder, on_windows=lambda *numbers: counted.append(numbers)
    )
    map_file, confidence, picture = result.report.files
    np.testing.assert_array_equal(read(map_file), ids)
    with rasterio.open(map_file) as source:
        assert (source.crs.to_epsg(), source.transform) == (32632, app_parts.PLACE)
    assert counted[-1][0] == counted[-1][1] == 4 * 5
    assert Image.open(picture).format == "PNG"
    assert np.isfinite(read(confidence)).all()
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
    assert (read(result.report.files[0]) == ids).mean() > 0.98
    assert result.place is None
    assert result.report.hectares is None
    assert "no known place" in pages.place(result.place, result.summary, result.advice, 1.0)
    assert "Hectares need a georeferenced scene" in pages.legend(result.report)


def test_16_bits_are_kept(tmp_path, folder):
    """Pillow would cut them to 8 bits, and with them all that this scene shows."""
    pixels, ids = patches()
    write_raster(tmp_path / "s.png", pixels.astype(np.uint16) + 1000, driver="PNG", transform=None)
    result = predict(tmp_path / "s.png", stub_model(), folder)
    np.testing.assert_array_equal(read(result.report.files[0]), ids)
    assert "uint16, stretched" in result.summary


def test_large_scenes_are_shown_decimated(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("pictures.LONGEST", 100)
    write_patches(tmp_path / "s.tif")
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    assert Image.open(result.layers.scene).size == Image.open(result.layers.map).size == result.layers.size == (100, 80)


def test_the_models_resolution(tmp_path, folder):
    ids = write_patches(tmp_path / "s.tif")
    advised = predict(tmp_path / "s.tif", stub_model(trained_at=0.5), folder)
    assert "learned at 0.5 m" in advised.advice
    (folder / "again").mkdir()
    result = predict(tmp_path / "s.tif", stub_model(trained_at=1.0), folder / "again", at_model_resolution=True)
    found = read(result.report.files[0])
    assert found.shape == ids.shape
    assert (found == ids).mean() > 0.95
    assert result.advice is None
    with pytest.raises(InputError, match="does not state its resolution"):
        predict(tmp_path / "s.tif", stub_model(), folder, at_model_resolution=True)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no image at all")


def cut(path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 400, 400), dtype=np.uint8)
    write_raster(path, noise, tiled=True, blockxsize=128, blockysize=128)
    path.write_bytes(path.read_bytes()[:200_000])


def cut_png(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:5000])


def cut_jpeg(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:4000])


def header_only(path):
    path.write_bytes(b"II*\x00" + bytes(40))


def without_data(path):
    write_raster(path, np.zeros((3, 90, 90), np.uint8), nodata=0)


def complex_numbers(path):
    write_raster(path, np.ones((3, 90, 90), np.complex64))


def many_pixels(path):
    write_raster(path, np.zeros((1, 1100, 1000), np.uint8), compress="deflate")


def many_bytes(path):
    noise = np.random.default_rng(0).integers(0, 256, (1, 700, 1000), dtype=np.uint8)
    write_raster(path, noise)


def one_tile(path):
    tile = {"tiled": True, "blockxsize": 1008, "blockysize": 992, "sparse_ok": True, "interleave": "pixel"}
    profile = {"driver": "GTiff", "width": 1000, "height": 990, "count": 70, "dtype": "uint8"}
    rasterio.open(path, "w", **profile, **tile).close()


def two_bands(path):
    write_raster(path, np.ones((2, 90, 90), np.uint8))


BAD = {
    "nothing": (None, {}, "There is no scene yet"),
    "empty": (empty, {}, r"empty \(0 bytes\)"),
    "text": (text, {}, "neither a GeoTIFF nor a JPEG nor a PNG"),
    "header only": (header_only, {}, "no image that can be read"),
    "cut off": (cut, {}, "damaged or cut off"),
    "cut off PNG": (cut_png, {}, "no image that can be read, or it is damaged"),
    "cut off JPEG": (cut_jpeg, {}, "no image that can be read, or it is damaged"),
    "no data": (without_data, {}, "no pixel with data"),
    "complex": (complex_numbers, {}, "complex numbers"),
    "too many pixels": (many_pixels, {}, "1,000 x 1,100 = 1.1 million pixels, this server takes 1 million"),
    "too many bytes": (many_bytes, {}, "1 MB, this server takes 0.5 MB"),
    "one tile": (one_tile, {}, "tiles of 1,008 x 992 pixels and 70 bands, too large to unpack"),
    "bands": (
        two_bands,
        {"bands": [1, 2, 3]},
        "Bands 1,2,3 do not fit the file; give one or three numbers from 1 to 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_uploads_get_a_sentence(tmp_path, folder, name):
    make, options, sentence = BAD[name]
    upload = None
    if make is not None:
        upload = tmp_path / "secret name.tif"
        make(upload)
    with pytest.raises(InputError, match=sentence) as caught:
        predict(upload, stub_model(), folder, limits=Limits(megapixels=1, megabytes=0.5), **options)
    message = str(caught.value)
    assert str(tmp_path) not in message
    assert message[0].isupper()
    assert message.endswith(".")
    assert not {path.name for path in folder.iterdir()} - {"scene.tif", "scene.tif.aux.xml"}


def test_overviews_may_not_be_one_tile_either(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("uploads._LARGEST_BLOCK", 3 * 128 * 128)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 600, 600), dtype=np.uint8)
    write_raster(tmp_path / "s.tif", pixels, tiled=True, blockxsize=128, blockysize=128)
    with admitted(tmp_path / "s.tif", folder, Limits()) as scene:
        assert scene.grid.width == 600
    with rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=256), rasterio.open(tmp_path / "s.tif", "r+") as target:
        target.build_overviews([2])
    (folder / "scene.tif").unlink()
    with (
        pytest.raises(InputError, match="tiles of 256 x 256 pixels and 3 bands"),
        admitted(tmp_path / "s.tif", folder, Limits()),
    ):
        pass


def test_resampling_may_not_exceed_the_limit(tmp_path, folder):
    write_patches(tmp_path / "s.tif")
    with pytest.raises(InputError, match=r"12\.8 million pixels, this server takes 1 million"):
        predict(
            tmp_path / "s.tif",
            stub_model(trained_at=0.1),
            folder,
            limits=Limits(megapixels=1),
            at_model_resolution=True,
        )


SECRET = """<VRTDataset rasterXSize="90" rasterYSize="90"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>
</VRTDataset>"""


@pytest.mark.parametrize("start", [b"", b"\xff\xd8\xff\xfe12", b"\x89PNG\r\n\x1a\n"])
def test_no_upload_reads_another_file(tmp_path, folder, start):
    """A VRT takes its pixels from any file of the server, and GDAL finds one behind the first bytes of a picture."""
    write_raster(tmp_path / "secret.tif", np.full((1, 90, 90), 77, np.uint8))
    upload = tmp_path / "upload.tif"
    upload.write_bytes(start + SECRET.format(tmp_path / "secret.tif").encode())
    with rasterio.open(upload) as source:  # the danger is real
        assert source.driver == "VRT"
        assert source.read(1)[0, 0] == 77
    with pytest.raises(InputError, match=r"neither a GeoTIFF|no image that can be read"):
        predict(upload, stub_model(), folder)


def test_no_upload_names_another_file_as_its_overview(tmp_path, folder):
    pixels, _ = patches()
    write_raster(tmp_path / "upload.tif", pixels)
    with rasterio.open(tmp_path / "upload.tif", "r+") as target:
        target.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "secret.tif"))
    with pytest.raises(InputError, match="refers to other files"):
        predict(tmp_path / "upload.tif", stub_model(), folder)


def test_files_beside_an_upload_are_not_read(tmp_path, folder):
    """A sidecar would change what GDAL sees; only the file itself comes in."""
    ids = write_patches(tmp_path / "s.tif")
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:3857</SRS></PAMDataset>")
    result = predict(tmp_path / "s.tif", stub_model(), folder)
    np.testing.assert_array_equal(read(result.report.files[0]), ids)
    assert rasterio.open(result.report.files[0]).crs.to_epsg() == 32632


def test_cancelling_leaves_nothing(tmp_path):
    write_patches(tmp_path / "s.tif")
    jobs = Jobs(tmp_path / "results", keep=60)
    texts = []

    def run():
        with jobs.running("one") as job:
            count = job.counting(lambda share, sentence: texts.append(sentence))

            def count_and_cancel(done, total):
                count(done, total)
                jobs.cancel("one" if done >= 8 else "another")

            predict(tmp_path / "s.tif", stub_model(), job.folder, on_windows=count_and_cancel)

    with pytest.raises(Cancelled):
        run()
    assert list((tmp_path / "results").iterdir()) == []
    assert re.fullmatch(r"4 of 20 windows, about \d+ s left", texts[0])
    assert len(texts) == 3  # windows come in batches of four, five to a row


def test_jobs_are_kept_apart_and_swept(tmp_path):
    jobs = Jobs(tmp_path, keep=0.05)
    with jobs.running("one") as first, jobs.running("two") as second:
        jobs.cancel("one")
        assert first.stop.is_set()
        assert not second.stop.is_set()
    (second.folder / "map.tif").write_text("map")
    assert first.folder != second.folder
    time.sleep(0.1)
    with jobs.running("three") as third:
        time.sleep(0.1)
        jobs.sweep()
        assert list(tmp_path.iterdir()) == [third.folder]
        assert third.folder.exists(), "a running job is not swept"


def test_a_failed_job_takes_its_files_with_it(tmp_path):
    jobs = Jobs(tmp_path, keep=60)

    def fail(job):
        (job.folder / "half.tif").write_text("half")
        raise InputError("no")

    with pytest.raises(InputError), jobs.running(None) as job:
        fail(job)
    assert list(tmp_path.iterdir()) == []


def test_all_jobs_run_in_one_thread(tmp_path):
    jobs = Jobs(tmp_path, keep=60)

    async def several():
        works = [jobs.run("one", lambda job: (threading.get_ident(), job.folder)) for _ in range(20)]
        return await asyncio.gather(*works)

    found = asyncio.run(several()) + asyncio.run(several())
    jobs.close()
    threads, folders = zip(*found, strict=True)
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    assert set(folders) == set(tmp_path.iterdir())
    assert len(set(folders)) == 40


def endless(started):
    """A job that ends when it is told to, at its next window."""

    def work(job):
        count = job.counting(lambda share, sentence: None)
        started.set()
        while True:
            count(1, 2)
            time.sleep(0.01)

    return work


def test_a_cancelled_caller_stops_its_job(tmp_path):
    jobs, started = Jobs(tmp_path, keep=60), threading.Event()

    async def cancelled():
        task = asyncio.create_task(jobs.run("one", endless(started)))
        await asyncio.to_thread(started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await jobs.run("one", lambda job: "the thread is free again")

    assert asyncio.run(cancelled()) == "the thread is free again"
    jobs.close()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_end_of_the_server_stops_its_jobs(tmp_path):
    jobs, started = Jobs(tmp_path, keep=60), threading.Event()

    async def closed():
        task = asyncio.create_task(jobs.run("one", endless(started)))
        await asyncio.to_thread(started.wait, 30)
        await asyncio.to_thread(jobs.close)
        with pytest.raises(Cancelled):
            await task

    asyncio.run(closed())
    assert list(tmp_path.iterdir()) == []


def test_two_predictions_at_once(tmp_path):
    found = {}

    def work(seed):
        ids = write_patches(tmp_path / f"{seed}.tif", seed)
        with jobs.running(str(seed)) as job:
            result = predict(tmp_path / f"{seed}.tif", model, job.folder)
        found[seed] = (read(result.report.files[0]) == ids).all()

    model, jobs = stub_model(), Jobs(tmp_path / "results", keep=60)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: True, 2: True}


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


def test_confidence_is_grey_and_uncertain_places_are_orange():
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
        colours, other = scene.read(0, 0, 64, 64), infrared.read(0, 0, 64, 64)
        assert colours.valid.all()
        np.testing.assert_array_equal(other.pixels[1:], colours.pixels[:2])
        assert (other.pixels[0] != colours.pixels[2]).any()


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


@pytest.mark.parametrize("flags", [["--max-megapixels", "0"], ["--max-queue", "-1"], ["--prot", "1"]])
def test_wrong_flags(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        settings.parse(flags)
    assert stop.value.code == 2
    assert "crossearth app: error" in capsys.readouterr().err


def test_admitted_scene_has_a_name_of_ours(tmp_path, folder):
    write_patches(tmp_path / "..evil;name.tif")
    with admitted(tmp_path / "..evil;name.tif", folder, Limits()) as scene:
        assert scene.path == str(folder / "scene.tif")


def test_the_readme_names_every_flag():
    readme = (app_parts.APP / "README.md").read_text()
    flags = vars(settings.parse([]))
    assert [flag for flag in flags if f"`--{flag.replace('_', '-')}" not in readme] == []


def test_a_space_installs_what_the_package_needs():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((app_parts.APP.parent / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"].get("app", [])
    assert set(needed) <= set((app_parts.APP / "requirements.txt").read_text().split())
    front = (app_parts.APP / "README.md").read_text().split("---")[1]
    assert "app_file: app.py" in front
