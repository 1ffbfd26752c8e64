"""The app behind a server: its API, what it refuses to hand out, two users at once, cancelling and the queue."""

import json
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import rasterio

pytest.importorskip("gradio")
pytest.importorskip("pyogrio")
pytest.importorskip("shapely")

import app_parts  # puts the app on the path
import httpx
import settings
from app_parts import stub_model, write_patches
from gates import NoFetching
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from jobs import Jobs
from page import Handlers, start
from rasters import write_raster
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from stub_model import ColourModel
from uploads import Limits

from app import predict


class Patient(ColourModel):
    """Waits at every window while it is told to."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.go.set()

    def forward(self, pixel_values):
        self.go.wait(30)
        return super().forward(pixel_values)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address, handlers and the stub network of a running app."""
    arguments = settings.parse(["--max-queue", "2", "--max-megabytes", "0.5"])
    with pytest.MonkeyPatch.context() as patch, settings.work_folder(tmp_path_factory.mktemp("work")) as folders:
        patch.setattr("page.make_examples", lambda folder: [])
        model = Patient()
        jobs = Jobs(folders.served / "results", keep=3600)
        handlers = Handlers(predict, {"stub": stub_model(model=model)}, jobs, Limits(megapixels=1, megabytes=0.5))
        page = start(handlers, folders, arguments)
        yield page.local_url, handlers, model
        page.close()


def connect(server, downloads):
    return Client(server[0], download_files=str(downloads), verbose=False, httpx_kwargs={"timeout": 60})


@pytest.fixture
def client(server, tmp_path):
    return connect(server, tmp_path / "downloads")


def test_the_api_gives_a_georeferenced_map(client, tmp_path):
    ids = write_patches(tmp_path / "s.tif")
    viewer, legend, place, map_file, confidence, picture, polygons = client.predict(
        handle_file(tmp_path / "s.tif"), api_name="/predict"
    )
    with rasterio.open(map_file) as source:
        np.testing.assert_array_equal(source.read(1), ids)
        assert (source.crs.to_epsg(), source.transform) == (32632, app_parts.PLACE)
        assert source.tags(1)["CLASS_0"] == "red"
    assert "ce-stack" in viewer
    assert "hectares" in legend.lower()
    assert "8.99" in place
    assert [str(path)[-4:] for path in (confidence, picture, polygons)] == [".tif", ".png", "gpkg"]


def test_versions_through_the_api(client, tmp_path):
    write_patches(tmp_path / "s.tif")
    html = client.predict(handle_file(tmp_path / "s.tif"), mask_ratio=0.0, api_name="/compare")
    assert html.count("<br>100.0 % of the pixels keep their class<meter") == 3


def test_mistakes_arrive_as_sentences(client, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(AppError, match="neither a GeoTIFF nor a JPEG nor a PNG"):
        client.predict(handle_file(tmp_path / "text.tif"), api_name="/predict")
    write_patches(tmp_path / "s.tif")
    with pytest.raises(AppError, match="is no list of bands; give numbers such as 4,3,2"):
        client.predict(handle_file(tmp_path / "s.tif"), bands="red", api_name="/predict")
    with pytest.raises(AppError, match="needs a fourth band"):
        client.predict(handle_file(tmp_path / "s.tif"), band_order="IRRG", api_name="/compare")


def test_an_upload_that_is_too_large(client, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (1, 800, 1000), dtype=np.uint8)
    write_raster(tmp_path / "s.tif", noise)
    with pytest.raises(Exception, match=r"(?i)413|size|large"):
        client.predict(handle_file(tmp_path / "s.tif"), api_name="/predict")


def write_upload(url, folder):
    """Uploads a scene as a browser does; its path on the server."""
    write_patches(folder / "mine.tif")
    with (folder / "mine.tif").open("rb") as file:
        return httpx.post(f"{url}gradio_api/upload", files={"files": file}).json()[0]


def call(url, path):
    """The server's answer to a caller who names a file of the server as the scene."""
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "stub", "", False]}
    event = httpx.post(f"{url}gradio_api/call/predict", json=body).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/predict/{event}", timeout=60).text


def test_no_other_file_of_the_server_is_read(server, tmp_path):
    url, handlers, _ = server
    write_patches(tmp_path / "secret.tif")
    secret = str(tmp_path / "secret.tif")
    served = handlers.jobs._folder.parent
    for path in (secret, "/etc/passwd", f"{served}/../../../../../etc/passwd", "app/app.py", "README.md"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404), path
    mine = write_upload(url, tmp_path)
    assert "event: complete" in call(url, mine)
    for path in (secret, f"{served}/../../secret.tif", f"{mine}/../../../../secret.tif"):
        answer = call(url, path)
        assert "event: error" in answer, path
        assert str(tmp_path) not in answer


def test_no_address_is_fetched(server):
    url, *_ = server
    address = "http://example.org/scene.tif"
    file = {"path": address, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file, "stub", "", False], "session_hash": "x", "fn_index": 0}
    nested = f'{{"data": {"[" * 700}{json.dumps(file)}{"]" * 700}}}'
    once = quote(address, safe="")
    for answer in (
        httpx.get(f"{url}gradio_api/file={address}"),
        httpx.get(f"{url}gradio_api/file/{address}"),
        httpx.head(f"{url}gradio_api/file%3D{address}"),
        httpx.get(f"{url}gradio_api/file/{once}"),
        httpx.get(f"{url}gradio_api/file%2F{quote(once)}"),
        httpx.get(f"{url}gradio_api/file={quote(quote(once))}"),
        httpx.get(f"{url}gradio_api/proxy={address}"),
        httpx.post(f"{url}gradio_api/queue/join", json=body),
        httpx.post(f"{url}gradio_api/call/predict", json=body),
        httpx.post(f"{url}gradio_api/call/predict", content=nested, headers={"content-type": "application/json"}),
    ):
        assert answer.status_code == 403
        assert answer.request.method == "HEAD" or answer.text == "addresses are not fetched here"


def test_the_gate_lets_everything_else_through():
    async def echo(request):
        return PlainTextResponse(await request.body())

    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])], middleware=[Middleware(NoFetching)])
    client = TestClient(app)
    for path in ("/file=/tmp/a.tif", "/file/tmp/100%25.tif", "/assets/a:b.js"):
        assert client.get(path).status_code == 200
    assert client.post("/x", json={"data": [{"path": "/tmp/a.tif", "url": "http://here/"}]}).status_code == 200
    assert client.post("/x", content=b"{no json").text == "{no json"
    assert client.post("/x", json={"a": [{"b": {"path": "https:\u002f/x"}}]}).status_code == 403
    assert client.post("/x", content=b" " * (2**20 + 1)).status_code == 403
    upload = client.post("/x", files={"file": b"http://" * 200_000})
    assert upload.status_code == 200


def test_two_users_get_their_own_maps(server, tmp_path):
    found = {}

    def use(seed):
        ids = write_patches(tmp_path / f"{seed}.tif", seed)
        client = connect(server, tmp_path / f"downloads-{seed}")
        map_file = client.predict(handle_file(tmp_path / f"{seed}.tif"), api_name="/predict")[3]
        with rasterio.open(map_file) as source:
            found[seed] = (source.read(1) == ids).all()

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: True, 2: True}


def wait_until(condition):
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 30 s")


def test_cancelling_and_the_end_of_the_queue(server, client, tmp_path):
    _, handlers, model = server
    write_patches(tmp_path / "s.tif")
    folders = set(handlers.jobs._folder.iterdir())
    model.batches.clear()
    model.go.clear()
    try:
        running = client.submit(handle_file(tmp_path / "s.tif"), api_name="/predict")
        wait_until(lambda: set(handlers.jobs._folder.iterdir()) - folders)
        others = [connect(server, tmp_path) for _ in range(3)]
        waiting = [other.submit(handle_file(tmp_path / "s.tif"), api_name="/predict") for other in others]
        wait_until(lambda: any(job.done() for job in waiting))
        full = next(job for job in waiting if job.done())
        with pytest.raises(Exception, match=r"(?i)queue"):
            full.result()
        handlers.jobs.cancel(client.session_hash)
    finally:
        model.go.set()
    with pytest.raises(AppError, match="nothing was kept"):
        running.result()
    done = [job.result(timeout=60) for job in waiting if job is not full]
    assert len(done) == 2
    assert len(set(handlers.jobs._folder.iterdir()) - folders) == 2, "the cancelled job left nothing"


def test_a_waiting_job_that_is_cancelled_never_runs(server, tmp_path, monkeypatch):
    _, handlers, model = server
    mapped, threads = [], set()

    def recorded(upload, *arguments, **options):
        mapped.append(Path(upload).stem)
        threads.add(threading.get_ident())
        return predict(upload, *arguments, **options)

    def submit(name):
        write_patches(tmp_path / f"{name}.tif")
        return connect(server, tmp_path).submit(handle_file(tmp_path / f"{name}.tif"), api_name="/predict")

    monkeypatch.setattr(handlers, "predict", recorded)
    folders = set(handlers.jobs._folder.iterdir())
    model.go.clear()
    try:
        first = submit("first")
        wait_until(lambda: mapped)
        second, third = submit("second"), submit("third")
        wait_until(lambda: all(job.status().code is Status.IN_QUEUE for job in (second, third)))
        second.cancel()
    finally:
        model.go.set()
    for job in (first, third):
        job.result(timeout=60)
    assert mapped == ["first", "third"]
    assert len(set(handlers.jobs._folder.iterdir()) - folders) == 2, "the cancelled job left nothing"
    assert len(threads) == 1, "the C library keeps the memory of every thread apart"


def test_a_client_cancels_its_running_job(server, client, tmp_path):
    _, handlers, model = server
    write_patches(tmp_path / "s.tif")
    folders = set(handlers.jobs._folder.iterdir())
    model.batches.clear()
    model.go.clear()
    try:
        running = client.submit(handle_file(tmp_path / "s.tif"), api_name="/predict")
        wait_until(lambda: set(handlers.jobs._folder.iterdir()) - folders)
        cancelling = threading.Thread(target=running.cancel)
        cancelling.start()
        wait_until(handlers.jobs._jobs[-1].stop.is_set)
    finally:
        model.go.set()
    cancelling.join(60)
    assert not cancelling.is_alive()
    assert len(model.batches) <= 1
    assert set(handlers.jobs._folder.iterdir()) == folders
