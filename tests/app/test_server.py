"""The app behind a server: its API, what it refuses to hand out, two users at once, cancelling and the queue."""

import json
import os
import re
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

import app_parts
import httpx
from app_parts import patches, stub_model, write_patches
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import Status
from rasters import write_raster
from stub_model import ColorModel

from crossearth_hf.app import predict, settings
from crossearth_hf.app.jobs import Jobs
from crossearth_hf.app.page import Handlers, start
from crossearth_hf.app.uploads import Limits, remove_old


class Patient(ColorModel):
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
    with (
        pytest.MonkeyPatch.context() as patch,
        settings.work_folder(tmp_path_factory.mktemp("work")) as folders,
    ):
        patch.setattr("crossearth_hf.app.page.make_examples", lambda folder: [])
        model = Patient()
        jobs = Jobs(folders.served / "results", keep=3600)
        handlers = Handlers(
            predict, {"stub": stub_model(model=model)}, jobs, Limits(megapixels=1, megabytes=0.5)
        )
        page = start(handlers, folders, arguments)
        yield page.local_url, handlers, model
        page.close()


def connect(server, downloads):
    return Client(
        server[0], download_files=str(downloads), verbose=False, httpx_kwargs={"timeout": 60}
    )


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
    assert "<ce-viewer" in viewer
    assert "hectares" in legend.lower()
    assert "8.99" in place
    names = [Path(path).name for path in (map_file, confidence, picture, polygons)]
    assert names == ["s-map.tif", "s-confidence.tif", "s-picture.png", "s-polygons.gpkg"]


def test_versions_through_the_api(client, tmp_path):
    write_patches(tmp_path / "s.tif")
    html = client.predict(handle_file(tmp_path / "s.tif"), mask_ratio=0.0, api_name="/compare")
    assert html.count("<b>100.0 % of the pixels keep their class</b>") == 1


def test_values_without_data_through_the_api(client, tmp_path):
    pixels, ids = patches()
    pixels[:, :40] = 7
    write_raster(tmp_path / "s.tif", pixels)
    for nodata in ("7", 7, "7, 9"):
        map_file = client.predict(
            handle_file(tmp_path / "s.tif"), nodata=nodata, api_name="/predict"
        )[3]
        with rasterio.open(map_file) as source:
            labels = source.read(1)
        assert (labels[:40] == 255).all()
        np.testing.assert_array_equal(labels[40:], ids[40:])
    with pytest.raises(
        AppError,
        match="No-data value -9999 does not fit the file, whose bands are uint8; give a value",
    ):
        client.predict(handle_file(tmp_path / "s.tif"), nodata="-9999", api_name="/predict")


def test_mistakes_arrive_as_sentences(client, tmp_path):
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(AppError, match="not a GeoTIFF, JPEG or PNG"):
        client.predict(handle_file(tmp_path / "text.tif"), api_name="/predict")
    write_patches(tmp_path / "s.tif")
    with pytest.raises(AppError, match="is not a list of bands; give numbers such as 4,3,2"):
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
    content = (folder / "mine.tif").read_bytes()
    (folder / "mine.tif").unlink()
    return httpx.post(f"{url}gradio_api/upload", files={"files": ("mine.tif", content)}).json()[0]


def call(url, path):
    """The server's answer to a caller who names a file of the server as the scene."""
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "stub", "", "", False]}
    event = httpx.post(f"{url}gradio_api/call/predict", json=body).json()["event_id"]
    return httpx.get(f"{url}gradio_api/call/predict/{event}", timeout=60).text


def test_no_other_file_of_the_server_is_read(server, tmp_path):
    url, handlers, _ = server
    write_patches(tmp_path / "secret.tif")
    secret = str(tmp_path / "secret.tif")
    served = handlers.jobs._folder.parent
    for path in (
        secret,
        "/etc/passwd",
        f"{served}/../../../../../etc/passwd",
        "app/app.py",
        "README.md",
    ):
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
    body = {"data": [file, "stub", "", "", False], "session_hash": "x", "fn_index": 0}
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
        httpx.post(
            f"{url}gradio_api/call/predict",
            content=nested,
            headers={"content-type": "application/json"},
        ),
    ):
        assert answer.status_code == 403
        assert answer.request.method == "HEAD" or answer.text == "addresses are not fetched here"


def test_the_type_is_said_once(server, tmp_path):
    """Gradio reads the first of two, so that the second must not tell the gate to look away."""
    url, *_ = server
    body = json.dumps(
        {"data": [{"path": "http://127.0.0.1:9/x.tif", "meta": {"_type": "gradio.FileData"}}]}
    )
    headers = [("content-type", "application/json"), ("content-type", "multipart/form-data")]
    for order in (headers, headers[::-1]):
        answer = httpx.post(f"{url}gradio_api/call/predict", content=body, headers=order)
        assert (answer.status_code, answer.text) == (400, "send the header content-type once")


def test_a_foreign_page_uploads_nothing(server, tmp_path):
    url, handlers, _ = server
    before = set(handlers.uploads.iterdir())
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": b"mine"}, headers=headers)
        assert answer.status_code == 403
    assert set(handlers.uploads.iterdir()) == before
    own = {"origin": url.rstrip("/")}
    assert (
        httpx.post(f"{url}gradio_api/upload", files={"files": b"mine"}, headers=own).status_code
        == 200
    )


VALUES = [None, True, -1, 1.5, 10**400, float("nan"), "ü\ud800\n" + "a" * 3000, [], {"a": [1]}]
FIELDS = {
    "predict": {"scene": 0, "model": 1, "bands": 2, "nodata": 3, "at_model_resolution": 4},
    "compare": {"scene": 0, "model": 1, "alpha": 2, "mask_ratio": 3, "seed": 4, "band_order": 5},
}
FITTING = {"predict": ["stub", "", "", False], "compare": ["stub", 0.5, 0.0, 0, "RGB"]}
DEFAULTS = {
    ("predict", "bands"): [None],
    ("predict", "nodata"): [None],
    ("predict", "at_model_resolution"): [None, True],
    ("compare", "alpha"): [],
}


def answer_to(url, api_name, data):
    """What an API call with any JSON gets: the kind of its last event, and its data."""
    body = json.dumps({"data": data})
    event = httpx.post(
        f"{url}gradio_api/call/{api_name}",
        content=body,
        headers={"content-type": "application/json"},
    )
    text = httpx.get(f"{url}gradio_api/call/{api_name}/{event.json()['event_id']}", timeout=60).text
    kind, found = re.findall(r"event: (\w+)\ndata: (.*)", text)[-1]
    return kind, json.loads(found)


@pytest.mark.parametrize(
    ("api_name", "field"), [(name, field) for name, fields in FIELDS.items() for field in fields]
)
def test_values_of_every_kind_get_a_sentence(server, tmp_path, capfd, api_name, field):
    url, *_ = server
    mine = {"path": write_upload(url, tmp_path), "meta": {"_type": "gradio.FileData"}}
    for value in VALUES:
        if value in DEFAULTS.get((api_name, field), []):
            continue
        data = [mine, *FITTING[api_name]]
        data[FIELDS[api_name][field]] = value
        kind, found = answer_to(url, api_name, data)
        assert kind == "error", value
        assert found["title"] == "This did not work", value
        assert 20 < len(found["error"]) < 200
        assert found["error"].endswith(".")
        assert found["error"].isprintable()
    log = capfd.readouterr()
    assert "Traceback" not in log.err + log.out


def test_what_is_wrong_is_named(server, tmp_path):
    url, *_ = server
    mine = {"path": write_upload(url, tmp_path), "meta": {"_type": "gradio.FileData"}}
    for data, sentence in (
        ([mine, None, "", "", False], "Unknown model (empty); choose stub."),
        ([mine, "<b>", "", "", False], "Unknown model '&lt;b&gt;'; choose stub."),
        (
            [mine, "stub", {"a": 1}, "", False],
            "an object is not a list of bands; give numbers such as 4,3,2.",
        ),
        (
            [mine, "stub", "", [7], False],
            "a list is not a no-data value; give numbers such as 0,-9999, or none.",
        ),
        (
            [mine, "stub", "", "", "yes"],
            "Model's resolution: 'yes' is neither true nor false; give true or false.",
        ),
    ):
        assert answer_to(url, "predict", data)[1]["error"] == sentence
    for data, sentence in (
        (
            [mine, "stub", 0.5, 0.5, float("nan"), "RGB"],
            "Number: nan is not between 0 and 999; give a number that is.",
        ),
        (
            [mine, "stub", 0.5, 0.5, 1.5, "RGB"],
            "Number: 1.5 is not a whole number; give one from 0 to 999.",
        ),
        (
            [mine, "stub", 10**400, 0.5, 0, "RGB"],
            "Strength: a huge number is not between 0 and 1; give a number that is.",
        ),
        ([mine, "stub", 0.5, 0.5, 0, "BGR"], "Unknown bands 'BGR'; choose RGB or IRRG."),
    ):
        assert answer_to(url, "compare", data)[1]["error"] == sentence


def test_requests_that_make_no_sense_leave_no_traceback(server, tmp_path, capfd):
    url, *_ = server
    mine = {"path": write_upload(url, tmp_path), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [mine, *FITTING["predict"]], "session_hash": "x"}
    for path, sent in (
        ("call/nothing", body),
        ("call/v2/nothing", body),
        ("call/v2/predict", {"nothing": mine}),
        ("queue/join", body | {"fn_index": 99}),
        ("queue/join", body | {"fn_index": -1}),
        ("queue/join", body | {"fn_index": 1, "session_hash": ""}),
        ("queue/join", body | {"fn_index": None}),
        ("run/nothing", body),
        ("run/predict", {"data": [None] * 5}),
        ("run/predict", {"data": "x"}),
    ):
        assert (
            400 <= httpx.post(f"{url}gradio_api/{path}", json=sent, timeout=60).status_code <= 500
        ), path
    # buttons that the browser alone handles, and others that take something else
    for index in range(12):
        httpx.post(f"{url}gradio_api/queue/join", json=body | {"fn_index": index})
    for path in ("queue/data?session_hash=nobody", "call/predict/nothing"):
        httpx.get(f"{url}gradio_api/{path}")
    for files in (
        {"data": {"files": "x"}, "files": {"other": b"x"}},
        {"files": {"files": ("x" * 300, b"")}},
    ):
        httpx.post(f"{url}gradio_api/upload", **files)
    httpx.get(f"{url}gradio_api/file={mine['path']}", headers={"range": "bytes=--"})
    assert answer_to(url, "predict", body["data"])[0] == "complete"
    assert answer_to(url, "predict", [])[0] == "error"
    log = capfd.readouterr()
    assert "Traceback" not in log.err + log.out
    assert "FnIndexInferError" in log.err


def test_uploads_are_deleted_whatever_was_asked_for(server, tmp_path, capfd):
    url, handlers, _ = server
    mine = Path(write_upload(url, tmp_path))
    results = handlers.jobs._folder
    finished = next(iter(results.iterdir()), results)
    for path in (
        mine.parent,
        f"{mine.parent}/",
        handlers.uploads,
        results,
        finished,
        f"{mine}/../..",
        "/",
        ".",
    ):
        named = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        kind, found = answer_to(url, "predict", [named, *FITTING["predict"]])
        assert kind == "error", path
        assert found["error"]
    later = Path(write_upload(url, tmp_path))
    (handlers.uploads / "broken").write_bytes(b"half an upload")
    os.mkfifo(handlers.uploads / "pipe")
    (later.parent / "folder.tif").mkdir()
    remove_old(handlers.uploads, 3600, spared=results)
    assert later.exists()
    time.sleep(0.05)
    remove_old(handlers.uploads, 0.01, spared=results)
    remove_old(handlers.uploads, -1, spared=results)  # folders that were emptied just now
    assert list(handlers.uploads.iterdir()) == [results]
    assert results.exists()
    assert "Traceback" not in capfd.readouterr().err
    gone = {"path": str(later), "meta": {"_type": "gradio.FileData"}}
    assert (
        "The file was deleted" in answer_to(url, "predict", [gone, *FITTING["predict"]])[1]["error"]
    )


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
        waiting = [
            other.submit(handle_file(tmp_path / "s.tif"), api_name="/predict") for other in others
        ]
        wait_until(lambda: any(job.done() for job in waiting))
        full = next(job for job in waiting if job.done())
        with pytest.raises(Exception, match=r"(?i)queue"):
            full.result()
        handlers.jobs.cancel(client.session_hash)
    finally:
        model.go.set()
    with pytest.raises(AppError, match="No files were kept"):
        running.result()
    done = [job.result(timeout=60) for job in waiting if job is not full]
    assert len(done) == 2
    assert len(set(handlers.jobs._folder.iterdir()) - folders) == 2, (
        "the cancelled job left nothing"
    )


def test_a_waiting_job_that_is_cancelled_never_runs(server, tmp_path, monkeypatch):
    _, handlers, model = server
    mapped, threads = [], set()

    def recorded(upload, *arguments, **options):
        mapped.append(Path(upload).stem)
        threads.add(threading.get_ident())
        return predict(upload, *arguments, **options)

    def submit(name):
        write_patches(tmp_path / f"{name}.tif")
        return connect(server, tmp_path).submit(
            handle_file(tmp_path / f"{name}.tif"), api_name="/predict"
        )

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
    assert len(set(handlers.jobs._folder.iterdir()) - folders) == 2, (
        "the cancelled job left nothing"
    )
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
