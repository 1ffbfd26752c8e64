"""The page in a real browser: what a visitor does, from the upload to the downloaded GeoTIFF.

Needs Playwright and chromium (Debian: `apt-get install chromium`); `make test-browser` runs it. With CROSSEARTH_PICTURE
set to a file it also saves the README's picture of a SynthEarth scene there; with CROSSEARTH_PICTURES set to a folder,
pictures of a tiny scene, of a notice and of an error.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("pyogrio")
pytest.importorskip("shapely")
playwright = pytest.importorskip("playwright.sync_api")

from app_parts import CRS, PLACE  # noqa: E402

from crossearth_hf.raster.writing import write_geotiff  # noqa: E402
from crossearth_hf.synthetic import generate_scene  # noqa: E402

CHROMIUM = shutil.which("chromium")
PORT = 7893
PATIENCE = 240_000  # milliseconds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def url(work):
    """Address of a server in a process of its own, as a person starts it; it ends with an empty work folder."""
    command = [sys.executable, "-m", "crossearth_hf.cli", "app", "--port", str(PORT), "--work-dir", str(work)]
    server = subprocess.Popen(command)
    address = f"http://127.0.0.1:{PORT}/"
    try:
        wait_for(address, server)
        yield address
    finally:
        server.terminate()
        assert server.wait(60) == 0
    assert [path.name for path in (work / "crossearth-app").iterdir()] == ["examples"]


def wait_for(address, server):
    for _ in range(300):
        assert server.poll() is None, "the server ended"
        try:
            httpx.get(address, timeout=60)
        except httpx.TransportError:
            time.sleep(1)
        else:
            return
    raise AssertionError("the server did not answer within five minutes")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """A fresh page; at its end no request may have gone anywhere but to the server."""
    context = browser.new_context(viewport={"width": 1360, "height": 900}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(url)
    page.get_by_role("button", name="Make the map").wait_for()
    page.locator(".gallery-item").first.wait_for()
    page.wait_for_timeout(1000)  # the page never falls silent: it keeps a stream open
    yield page
    context.close()
    assert [address for address in requests if not address.startswith((url, "data:", "blob:"))] == []
    assert errors == []


def give(page, path):
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator(".file-preview").wait_for()
    page.wait_for_timeout(1000)


def press(page, name):
    page.get_by_role("button", name=name).click()


def picture(page, name):
    """Saves what the page shows, for a person to look at, where CROSSEARTH_PICTURES names a folder."""
    folder = os.environ.get("CROSSEARTH_PICTURES")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "my scene <b>.tif"
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.transpose(2, 0, 1)
    write_geotiff(path, pixels, crs=CRS, transform=PLACE)
    return path


def test_from_upload_to_download(page, scene, tmp_path):
    give(page, scene)
    press(page, "Make the map")
    view = page.locator(".ce-view")
    view.wait_for()
    page.wait_for_function(
        "[...document.querySelectorAll('.ce-view img')].every(i => i.alt && (!i.offsetParent || i.naturalWidth > 0))"
    )
    divider = page.locator(".ce-cut")
    divider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    clip = "e => getComputedStyle(e).clipPath"
    assert "30%" in page.locator("img.ce-map").evaluate(clip)
    box = divider.bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 50)
    assert divider.input_value() in ("79", "80", "81")
    page.locator(".ce-opacity").fill("40")
    assert page.locator("img.ce-map").evaluate("e => getComputedStyle(e).opacity") == "0.4"
    assert page.locator("img.ce-confidence").is_hidden()
    page.locator(".ce-pick-confidence").check()
    assert page.locator("img.ce-confidence").is_visible()
    assert page.locator("img.ce-map").is_hidden()
    assert "vegetation" in page.locator(".ce-legend").inner_text()
    with page.expect_download() as waiting:
        page.get_by_text("Map (GeoTIFF)").click()
    assert waiting.value.suggested_filename == "map.tif"
    waiting.value.save_as(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as source:
        assert (source.crs.to_string(), source.transform, source.shape) == (CRS, PLACE, (300, 420))
        assert source.tags(1)["CLASS_3"] == "water"
        assert set(np.unique(source.read(1))) <= set(range(5))


def test_bad_uploads_are_explained(page, tmp_path, scene):
    press(page, "Make the map")
    page.get_by_text("There is no scene yet").wait_for()
    (tmp_path / "text.tif").write_text("no image")
    give(page, tmp_path / "text.tif")
    press(page, "Make the map")
    page.get_by_text("neither a GeoTIFF nor a JPEG nor a PNG").wait_for()


def test_a_tiny_scene_is_mapped(page, tmp_path):
    Image.new("RGB", (3, 2), "green").save(tmp_path / "tiny.png")
    give(page, tmp_path / "tiny.png")
    press(page, "Make the map")
    page.locator(".ce-view").wait_for()
    assert "3 x 2 px" in page.locator(".ce-help", has_text="Mapped in").inner_text()
    assert page.locator(".ce-note").count() == 0
    picture(page, "tiny")


def test_a_collar_is_told(page, tmp_path):
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.copy()
    pixels[:, :100] = 0
    Image.fromarray(pixels).save(tmp_path / "collar.png")
    give(page, tmp_path / "collar.png")
    press(page, "Make the map")
    page.locator(".ce-note", has_text="A black region at the border").wait_for()
    assert page.locator(".ce-note").is_visible()
    picture(page, "collar")


def test_bands_that_are_none_are_explained(page, scene):
    give(page, scene)
    page.get_by_text("For scenes of many bands, with fill, or of another resolution").click()
    page.get_by_label("Bands").fill("red & blue")
    press(page, "Make the map")
    page.get_by_text("'red & blue' is not a list of bands; give numbers such as 4,3,2.").wait_for()
    picture(page, "error")


def test_values_without_data_are_typed(page, tmp_path):
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.copy()
    pixels[:, :105] = 0
    Image.fromarray(pixels).save(tmp_path / "collar.png")
    give(page, tmp_path / "collar.png")
    page.get_by_text("For scenes of many bands, with fill").click()
    page.get_by_label("No data").fill("black")
    press(page, "Make the map")
    page.get_by_text("'black' is not a value without data; give numbers such as 0,-9999, or none.").wait_for()
    page.get_by_label("No data").fill("0")
    press(page, "Make the map")
    page.locator(".ce-help", has_text="nodata 0 as asked").wait_for()
    assert page.locator(".ce-note", has_text="region at the border").count() == 0
    picture(page, "nodata")


def test_large_scenes_are_refused_by_their_pixels(page, tmp_path):
    """110 million pixels, none of them written: the file has a few kilobytes."""
    profile = {"driver": "GTiff", "height": 11_000, "width": 10_000, "count": 1, "dtype": "uint8", "tiled": True}
    rasterio.open(tmp_path / "s.tif", "w", crs=CRS, transform=PLACE, sparse_ok=True, **profile).close()
    give(page, tmp_path / "s.tif")
    press(page, "Make the map")
    page.get_by_text("110.0 million pixels, this server takes 100 million").wait_for()


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "s.tif"
    pixels = np.tile(generate_scene("desert-city", 1, 380, 380).image.transpose(2, 0, 1), (1, 5, 5))
    write_geotiff(path, pixels, crs=None, transform=PLACE)
    return path


def test_cancelling(page, large_scene):
    give(page, large_scene)
    press(page, "Make the map")
    page.get_by_text("windows, about").wait_for()
    press(page, "Cancel")
    note = page.get_by_text("nothing is running any more")
    note.wait_for()
    page.wait_for_timeout(3000)
    assert note.is_visible(), "it stays until something else is started"
    page.locator(".gallery-item").first.click()
    page.get_by_text("temperate-summer").first.wait_for()
    page.wait_for_timeout(1000)
    press(page, "Make the map")
    page.locator(".ce-view").wait_for()
    assert note.count() == 0


def test_cancelling_while_another_scene_is_mapped(page, browser, url, work, scene, large_scene):
    give(page, large_scene)
    press(page, "Make the map")
    page.get_by_text("windows, about").wait_for()
    results = work / "crossearth-app" / "served" / "results"
    folders = set(results.iterdir())
    waiting = browser.new_page()
    waiting.set_default_timeout(PATIENCE)
    waiting.goto(url)
    give(waiting, scene)
    press(waiting, "Make the map")
    waiting.get_by_text("queue: 1/1").wait_for()
    press(waiting, "Cancel")
    waiting.get_by_text("nothing is running any more").wait_for()
    press(page, "Cancel")
    page.get_by_text("nothing is running any more").wait_for()
    give_up = time.monotonic() + 60
    while folders & set(results.iterdir()) == folders and time.monotonic() < give_up:
        time.sleep(0.1)
    waiting.wait_for_timeout(3000)
    assert set(results.iterdir()) < folders, "the first job is gone, the second never came"
    assert waiting.locator(".ce-view").count() == 0
    waiting.close()


@pytest.mark.parametrize("name", ["Use via API", "Settings"])
def test_what_the_footer_opens_asks_nothing_of_the_network(page, name):
    press(page, name)
    page.get_by_role("dialog").wait_for(timeout=60_000)
    page.wait_for_timeout(2000)


def test_domain_shift(page):
    page.locator(".gallery-item").first.click()
    page.locator(".file-preview").wait_for()
    page.wait_for_timeout(1000)
    page.get_by_role("tab", name="Domain shift").click()
    page.get_by_label("IRRG").check()
    press(page, "Compare versions")
    page.locator(".ce-versions").wait_for()
    assert page.locator(".ce-versions figure").count() == 5
    assert "Near infrared, red, green" in page.locator(".ce-versions").inner_text()
    page.wait_for_function("[...document.querySelectorAll('.ce-versions img')].every(i => i.alt && i.naturalWidth > 0)")


def test_a_narrow_dark_page_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_picture_of_the_readme(page, tmp_path):
    """One of the drawn scenes, its map and the legend, at most 300 kB."""
    target = os.environ.get("CROSSEARTH_PICTURE")
    if not target:
        pytest.skip("CROSSEARTH_PICTURE names no file")
    page.locator(".gallery-item").first.click()
    page.locator(".file-preview").wait_for()
    page.wait_for_timeout(1000)
    press(page, "Make the map")
    page.locator(".ce-legend").wait_for()
    page.get_by_role("heading", name="CrossEarth").click()  # takes the mouse off the button
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as whole:
        small = whole.convert("RGB").resize((1000, round(1000 * whole.height / whole.width)), Image.Resampling.LANCZOS)
    small.quantize(256).save(target, optimize=True)
    assert Path(target).stat().st_size <= 300_000
