"""The static page of app/browser in a real chromium: a picture goes in, the map is that of the model in PyTorch.

Needs Playwright, chromium, and npm for onnxruntime-web. `pytest -m slow tests/app/test_browser_page.py` runs it: the
export of the model alone takes a minute or two.
"""

import functools
import http.server
import io
import shutil
import subprocess
import threading

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from torch.nn import functional as F

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("onnxscript")

from crossearth_hf.export import export_model  # noqa: E402
from crossearth_hf.inference.loading import load_model  # noqa: E402
from crossearth_hf.inference.normalization import normalize_pixels  # noqa: E402
from crossearth_hf.labels import label_set_of  # noqa: E402
from crossearth_hf.synthetic import generate_scene  # noqa: E402

CHROMIUM, NPM = shutil.which("chromium"), shutil.which("npm")
PATIENCE = 600_000  # milliseconds
SOFTWARE_GPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan,WebGPU",
    "--use-vulkan=swiftshader",
    "--ignore-gpu-blocklist",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or NPM is None, reason="chromium or npm is not installed"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The page with the bundled model and the runtime, as `make browser-page` lays them."""
    folder = tmp_path_factory.mktemp("site") / "browser"
    shutil.copytree(
        ROOT / "app" / "browser",
        folder,
        ignore=shutil.ignore_patterns("node_modules", "model.onnx"),
    )
    command = [NPM, "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"npm install failed: {installed.stderr[-200:]}")
    export_model(None, folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def url(place):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module", params=["wasm", "webgpu"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def page(url, engine):
    """The page in a browser without a GPU, or with one in software."""
    graphics = SOFTWARE_GPU if engine == "webgpu" else ("--disable-gpu",)
    with playwright.sync_playwright() as tools:
        chromium = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *graphics])
        page = chromium.new_page()
        page.set_default_timeout(PATIENCE)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(url)
        page.wait_for_selector("body[data-engine]")
        yield page
        chromium.close()


def drop(page, name, content):
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def test_the_map_is_that_of_the_model(page, url, engine):
    side = 512 if engine == "wasm" else 256  # a GPU in software takes minutes
    pixels = generate_scene("temperate-summer", 3, side, side).image
    model, processor = load_model(device="cpu")
    channels = torch.from_numpy(pixels).permute(2, 0, 1)
    normalized = normalize_pixels(channels, mean=processor.image_mean, std=processor.image_std)
    with torch.inference_mode():
        scores = model(normalized[None]).logits
        expected = F.interpolate(scores, size=(side, side), mode="bilinear").argmax(1)[0].numpy()
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    drop(page, "field.png", picture.getvalue())
    page.wait_for_selector("body[data-seconds]")
    assert page.get_attribute("body", "data-engine") == engine
    print("seconds:", page.get_attribute("body", "data-seconds"), engine)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "field_map.png"
    drawn = np.asarray(Image.open(download.value.path()).convert("RGB"))
    labels = label_set_of(model.config)
    assert (drawn != labels.colorize(expected)).any(axis=-1).mean() < 1e-3
    assert page.locator("#legend td:first-child").all_inner_texts() == list(labels.classes)
    assert all(address.startswith((url, "blob:", "data:")) for address in page.asked)


def test_what_is_no_picture_is_told(page):
    drop(page, "notes.png", b"not a picture")
    page.get_by_text("notes.png is not a picture").wait_for()


def test_odd_sizes_and_windows(page):
    picture = io.BytesIO()
    Image.new("RGB", (530, 37), (90, 120, 60)).save(picture, "PNG")
    drop(page, "strip.png", picture.getvalue())
    page.wait_for_selector("body[data-seconds]")
    assert page.evaluate(
        "[document.getElementById('map').width, document.getElementById('map').height]"
    ) == [530, 37]
