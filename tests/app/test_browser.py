"""The page in a real browser: what a visitor does, from the upload to the downloaded GeoTIFF.

Needs Playwright and chromium (Debian: `apt-get install chromium`); `make test-browser` runs it. With CROSSEARTH_PICTURE
set to a file it also saves the README's picture of a SynthEarth scene there; with CROSSEARTH_PICTURES set to a folder,
a picture of each state of the page.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image

pytest.importorskip("gradio")
pytest.importorskip("pyogrio")
pytest.importorskip("shapely")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

from app_parts import CRS, PLACE  # noqa: E402

from crossearth_hf.raster.writing import write_geotiff  # noqa: E402
from crossearth_hf.synthetic import generate_scene  # noqa: E402

CHROMIUM = shutil.which("chromium")
PORT = 7893
PATIENCE = 240_000  # milliseconds
DESKTOP = {"width": 1440, "height": 900}
TABLET = {"width": 768, "height": 1024}
PHONE = {"width": 390, "height": 844}

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
    command = [
        sys.executable,
        "-m",
        "crossearth_hf.cli",
        "app",
        "--port",
        str(PORT),
        "--work-dir",
        str(work),
    ]
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
        chromium = tools.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url):
    """A fresh page; at its end no request may have gone anywhere but to the server."""
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
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
    assert [
        address for address in requests if not address.startswith((url, "data:", "blob:"))
    ] == []
    assert errors == []


def give(page, path):
    """Puts a file into the box, from which a former one is taken first, as a person has to."""
    page.locator("input[type=file], [aria-label=Clear]").first.wait_for(state="attached")
    if page.locator("input[type=file]").count() == 0:
        page.get_by_role("button", name="Clear").click()
    page.locator("input[type=file]").first.set_input_files(path)
    page.locator("ce-viewer, .ce-error").first.wait_for()
    page.wait_for_timeout(500)  # the page learns a moment later that this look is over


def choose_example(page):
    page.locator(".gallery-item").first.click()
    page.locator("ce-viewer").wait_for()


def press(page, name):
    page.get_by_role("button", name=name).click()


def the_map(page):
    """Waits for the map."""
    page.locator(".ce-legend").wait_for()
    page.wait_for_function("document.querySelector('ce-viewer').dataset.confidenceShown === 'yes'")


def picture(page, name):
    """Saves what the page shows, for a person to look at, where CROSSEARTH_PICTURES names a folder."""
    folder = os.environ.get("CROSSEARTH_PICTURES")
    if folder:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def check_access(page, name):
    """Lets axe look for what keeps people from using the page, in light and dark."""
    page.add_style_tag(content="* { transition: none !important }")  # colors fade into each other
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(100)
        picture(page, f"{name}-{scheme}")
        found = [
            (violation["id"], [node["html"][:200] for node in violation["nodes"]])
            for violation in axe.Axe().run(page).response["violations"]
            if violation["impact"] in ("serious", "critical")
        ]
        assert found == [], scheme
    page.emulate_media(color_scheme="light")


def opacity_at(page, layer, across):
    """How opaque a layer is at a place, in shares of the viewer's width, in the middle of its height."""
    return page.evaluate(
        """([layer, across]) => {
            const canvas = document.querySelector(`.ce-layer-${layer} canvas`);
            return canvas.getContext("2d").getImageData(canvas.width * across, canvas.height / 2, 1, 1).data[3];
        }""",
        [layer, across],
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "my scene <b>.tif"
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.transpose(2, 0, 1)
    write_geotiff(path, pixels, crs=CRS, transform=PLACE)
    return path


def test_the_first_screen(page):
    introduction = page.locator(".ce-head").first.inner_text()
    assert "land, building, road, water and vegetation" in introduction
    assert "It learned from pictures of Dubai" in introduction
    check_access(page, "start")
    for name, size in (("tablet", TABLET), ("phone", PHONE)):
        page.set_viewport_size(size)
        check_access(page, f"start-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        box = page.get_by_role("button", name="Make the map").bounding_box()
        assert box["y"] + box["height"] < size["height"], "the button is on the first screen"
    assert page.get_by_role("button", name="Cancel").is_hidden()


def test_from_upload_to_download(page, scene, tmp_path):
    give(page, scene)
    facts = page.locator(".ce-facts").inner_text()
    for part in (
        "420 x 300 pixels",
        "2 m",
        "longitude 8.99",
        "EPSG:32632",
        "bands 1,2,3 of 3 as RGB",
    ):
        assert part in facts
    check_access(page, "look")
    press(page, "Make the map")
    the_map(page)
    assert page.get_by_role("button", name="Cancel").is_hidden()
    assert page.locator(".ce-progress").count() == 0
    check_viewer(page)
    check_access(page, "result")
    assert "vegetation" in page.locator(".ce-legend").inner_text()
    check_downloads(page, tmp_path)
    for name, size in (("tablet", TABLET), ("phone", PHONE)):
        page.set_viewport_size(size)
        check_access(page, f"result-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def check_viewer(page):
    view = "document.querySelector('ce-viewer')"
    assert page.locator(".ol-scale-line-inner").inner_text().endswith("m")
    assert (opacity_at(page, "labels", 0.45), opacity_at(page, "labels", 0.55)) == (0, 255)
    divider = page.get_by_role("slider", name="Divider")
    divider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") == "60"
    page.wait_for_timeout(500)
    assert (opacity_at(page, "labels", 0.55), opacity_at(page, "labels", 0.65)) == (0, 255)
    box = page.locator(".ce-canvas").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.up()
    assert divider.get_attribute("aria-valuenow") in ("19", "20", "21")
    page.mouse.move(box["x"] + 0.5 * box["width"], middle)
    assert re.fullmatch(
        r"\w+ · confidence \d+ % · 4994\d\d\.\d, 49997\d\d\.\d \(EPSG:32632\)",
        page.locator(".ce-readout").inner_text(),
    )
    for box in page.locator(".ce-class").all():
        box.uncheck()
    page.wait_for_timeout(500)
    assert opacity_at(page, "labels", 0.5) == 0, "classes can be left out"
    for box in page.locator(".ce-class").all():
        box.check()
    page.locator(".ce-opacity").fill("40")
    assert page.evaluate(f"{view}.layers.labels.getOpacity()") == 0.4
    page.get_by_label("confidence", exact=True).check()
    page.wait_for_timeout(500)
    assert opacity_at(page, "confidence", 0.5) > 0
    assert page.get_by_text("Orange: uncertain").is_visible()
    picture(page, "confidence")
    page.get_by_label("map", exact=True).check()
    whole = page.evaluate(f"{view}.map.getView().getResolution()")
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function(f"{view}.map.getView().getResolution() < {whole}")
    center = page.evaluate(f"{view}.map.getView().getCenter()[0]")
    page.locator(".ce-canvas").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{view}.map.getView().getCenter()[0] > {center}")
    page.get_by_role("button", name="Whole scene").click()
    page.wait_for_function(f"{view}.map.getView().getResolution() > {0.99 * whole}")


def check_downloads(page, folder):
    def saved(name):
        with page.expect_download() as waiting:
            page.get_by_role("link", name=name).click()
        waiting.value.save_as(folder / waiting.value.suggested_filename)
        return folder / waiting.value.suggested_filename

    map_file = saved("map.tif")
    assert map_file.name == "my-scene-b-map.tif"
    with rasterio.open(map_file) as source:
        assert (source.crs.to_string(), source.transform, source.shape) == (CRS, PLACE, (300, 420))
        assert source.tags(1)["CLASS_3"] == "water"
        assert set(np.unique(source.read(1))) <= set(range(5))
    archive = saved("All files")
    assert archive.name == "my-scene-b.zip"
    with ZipFile(archive) as files:
        kinds = ("map.tif", "confidence.tif", "picture.png", "polygons.gpkg")
        assert {f"my-scene-b-{kind}" for kind in kinds} <= set(files.namelist())


def test_bad_uploads_are_explained(page, tmp_path, scene):
    press(page, "Make the map")
    page.locator(".ce-error", has_text="There is no scene yet").wait_for()
    (tmp_path / "text.tif").write_text("no image")
    give(page, tmp_path / "text.tif")
    page.locator(".ce-error", has_text="not a GeoTIFF, JPEG or PNG").wait_for()
    assert page.locator(".ce-error").count() == 1
    check_access(page, "error")
    press(page, "Make the map")
    page.wait_for_timeout(1000)
    page.locator("button:enabled", has_text="Make the map").wait_for()
    assert page.locator(".ce-error", has_text="not a GeoTIFF, JPEG or PNG").is_visible()
    assert page.locator(".toast-body").count() == 0
    give(page, scene)
    page.locator("ce-viewer").wait_for()
    assert page.locator(".ce-error").count() == 0, "it goes with its cause"


def test_a_tiny_scene_is_mapped(page, tmp_path):
    Image.new("RGB", (3, 2), "green").save(tmp_path / "tiny.png")
    give(page, tmp_path / "tiny.png")
    press(page, "Make the map")
    the_map(page)
    assert "3 x 2 px" in page.locator(".ce-help", has_text="Mapped in").inner_text()
    assert page.locator(".ce-error").count() == 0
    picture(page, "tiny")


def test_a_collar_is_told(page, tmp_path):
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.copy()
    pixels[:, :100] = 0
    Image.fromarray(pixels).save(tmp_path / "collar.png")
    give(page, tmp_path / "collar.png")
    page.locator(".ce-note", has_text="A black region at the border").wait_for()
    picture(page, "notice")
    page.get_by_text("Scenes with many bands or fill values").click()
    page.get_by_label("No data").fill("0")
    page.keyboard.press("Tab")
    page.locator(".ce-facts", has_text="nodata 0 as given").wait_for()
    assert page.locator(".ce-note").count() == 0


def test_bands_that_are_none_are_explained(page, scene):
    give(page, scene)
    page.get_by_text("Scenes with many bands or fill values").click()
    page.get_by_role("textbox", name="Bands").fill("red & blue")
    page.keyboard.press("Tab")
    page.get_by_text("'red & blue' is not a list of bands; give numbers such as 4,3,2.").wait_for()
    page.get_by_role("textbox", name="Bands").fill("3,2,1")
    page.keyboard.press("Enter")
    page.locator(".ce-facts", has_text="bands 3,2,1 of 3").wait_for()


def test_values_without_data_are_typed(page, tmp_path):
    pixels = generate_scene("temperate-summer", 5, 300, 420).image.copy()
    pixels[:, :105] = 0
    Image.fromarray(pixels).save(tmp_path / "collar.png")
    give(page, tmp_path / "collar.png")
    page.get_by_text("Scenes with many bands or fill values").click()
    page.get_by_label("No data").fill("black")
    press(page, "Make the map")
    page.get_by_text(
        "'black' is not a no-data value; give numbers such as 0,-9999, or none."
    ).wait_for()
    page.get_by_label("No data").fill("0")
    press(page, "Make the map")
    page.locator(".ce-help", has_text="nodata 0 as given").wait_for()
    assert page.locator(".ce-note", has_text="region at the border").count() == 0
    picture(page, "nodata")


def test_large_scenes_are_refused_by_their_pixels(page, tmp_path):
    """110 million pixels, none of them written: the file has a few kilobytes."""
    profile = {
        "driver": "GTiff",
        "height": 11_000,
        "width": 10_000,
        "count": 1,
        "dtype": "uint8",
        "tiled": True,
    }
    rasterio.open(
        tmp_path / "s.tif", "w", crs=CRS, transform=PLACE, sparse_ok=True, **profile
    ).close()
    give(page, tmp_path / "s.tif")
    page.get_by_text("110.0 million pixels; this server takes 100 million").wait_for()


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scenes") / "s.tif"
    pixels = np.tile(generate_scene("desert-city", 1, 380, 380).image.transpose(2, 0, 1), (1, 5, 5))
    write_geotiff(path, pixels, crs=None, transform=PLACE)
    return path


def test_cancelling(page, scene, large_scene):
    give(page, large_scene)
    press(page, "Make the map")
    page.get_by_text("windows, about").wait_for()
    page.wait_for_function("document.querySelector('ce-viewer').dataset.labelsShown === 'yes'")
    picture(page, "running")
    assert page.get_by_role("button", name="Cancel").is_visible()
    press(page, "Cancel")
    note = page.get_by_text("The job was stopped")
    note.wait_for()
    page.wait_for_timeout(3000)
    assert note.is_visible(), "it stays until something else is started"
    assert page.get_by_role("button", name="Cancel").is_hidden()
    picture(page, "cancelled")
    give(page, scene)
    page.locator(".ce-facts", has_text="420 x 300").wait_for()
    assert note.count() == 0
    press(page, "Make the map")
    the_map(page)
    assert note.count() == 0


def test_cancelling_while_another_scene_is_mapped(page, browser, url, work, scene, large_scene):
    give(page, large_scene)
    press(page, "Make the map")
    page.get_by_text("windows, about").wait_for()
    waiting = browser.new_page()
    waiting.set_default_timeout(PATIENCE)
    waiting.goto(url)
    give(waiting, scene)
    results = work / "crossearth-app" / "served" / "results"
    # of the running job and of what both pages show of their scenes
    folders = set(results.iterdir())
    press(waiting, "Make the map")
    waiting.get_by_text("Waiting for the server").wait_for()
    waiting.get_by_text("queue: 1/1").wait_for()
    picture(waiting, "waiting")
    press(waiting, "Cancel")
    waiting.get_by_text("The job was stopped").wait_for()
    press(page, "Cancel")
    page.get_by_text("The job was stopped").wait_for()
    give_up = time.monotonic() + 60
    while folders & set(results.iterdir()) == folders and time.monotonic() < give_up:
        time.sleep(0.1)
    waiting.wait_for_timeout(3000)
    assert set(results.iterdir()) < folders, "the first job is gone, the second never came"
    assert waiting.locator(".ce-legend").count() == 0
    waiting.close()


@pytest.mark.parametrize("name", ["Use via API", "Settings"])
def test_what_the_footer_opens_asks_nothing_of_the_network(page, name):
    press(page, name)
    page.get_by_role("dialog").wait_for(timeout=60_000)
    page.wait_for_timeout(2000)


def test_another_sensor(page):
    choose_example(page)
    page.get_by_role("tab", name="Another sensor").click()
    page.get_by_text("Choose how it is drawn").click()
    page.get_by_label("IRRG").check()
    press(page, "Show me")
    page.locator(".ce-versions").first.wait_for()
    headings = page.locator(".ce-versions h3").all_inner_texts()
    assert headings[1] == "In near infrared, red and green"
    assert headings[3:] == [
        "As it was taken",
        "As another sensor might show it",
        "What changes in the map",
    ]
    page.wait_for_function(
        "[...document.querySelectorAll('.ce-versions img')].every(i => i.alt && i.naturalWidth > 0)"
    )
    assert page.locator(".ce-verdict").count() == 2
    check_access(page, "another-sensor")
    page.set_viewport_size(PHONE)
    picture(page, "another-sensor-phone")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_picture_of_the_readme(page, tmp_path):
    """One of the drawn scenes, its map and the legend, at most 300 kB."""
    target = os.environ.get("CROSSEARTH_PICTURE")
    if not target:
        pytest.skip("CROSSEARTH_PICTURE names no file")
    choose_example(page)
    press(page, "Make the map")
    the_map(page)
    page.get_by_role("heading", name="CrossEarth").click()  # takes the mouse off the button
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as whole:
        small = whole.convert("RGB").resize(
            (1000, round(1000 * whole.height / whole.width)), Image.Resampling.LANCZOS
        )
    small.quantize(256).save(target, optimize=True)
    assert Path(target).stat().st_size <= 300_000
