"""Parts of a scene on two local workers: the same map as by one process, also where a worker is killed meanwhile."""

import os
import signal
import socket
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import rasterio
import torch
from distributed import KilledWorker, LocalCluster
from rasters import write_raster
from tiny_model import VIT, tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import load_model
from crossearth_hf.prediction import MapOutputs, predict_map
from crossearth_hf.prediction.workers import (
    ModelSource,
    SceneSource,
    Workers,
    WorkersLost,
    _result,
    _spread_device,
    cluster_workers,
    local_workers,
)
from crossearth_hf.raster.scene import Reading, Scene


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and a scene of six parts that has 16-bit bands, which are stretched, and a hole."""
    folder = tmp_path_factory.mktemp("workers")
    save_model(folder / "model", seed=0)
    pixels = np.random.default_rng(0).integers(1, 3000, (3, 1100, 900), dtype=np.uint16)
    pixels[:, 300:420, 400:600] = 0
    write_raster(folder / "scene.tif", pixels, nodata=0)
    return folder


def save_model(folder, seed, image_mean=0.5, **changes):
    torch.manual_seed(seed)
    sizes = {
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_feedforward_dim": 16,
        "dim_feedforward": 16,
    }
    CrossEarthForSemanticSegmentation(tiny_config(**sizes | changes)).save_pretrained(folder)
    CrossEarthImageProcessor(image_mean=[image_mean] * 3).save_pretrained(folder)


@pytest.fixture(scope="module")
def workers(place):
    """Two processes, started once; a worker that is killed is replaced."""
    with local_workers(2, ModelSource(str(place / "model"), "cpu", "auto")) as started:
        yield started


def make_map(place, name, **options):
    model, processor = load_model(place / "model", device="cpu", dtype="auto")
    outputs = MapOutputs.checked(
        place / "scene.tif",
        place / f"{name}.tif",
        confidence=place / f"{name}_c.tif",
        overwrite=True,
    )
    with Scene(place / "scene.tif") as scene:
        return predict_map(
            scene,
            outputs,
            model,
            processor,
            window=32,
            stride=32,
            batch_size=16,
            progress=False,
            **options,
        )


@pytest.fixture(scope="module")
def alone(place):
    """Labels and confidence as one process makes them with a worker's number of threads."""
    make_map(place, "alone")
    return read(place, "alone")


def read(place, name):
    bands = []
    for file in (f"{name}.tif", f"{name}_c.tif"):
        with rasterio.open(place / file) as source:
            bands.append(source.read(1))
    return bands


def assert_same(maps, others):
    for band, other in zip(maps, others, strict=True):
        np.testing.assert_array_equal(band, other)


def recorded(runner, record, on_first=lambda: None):
    """`runner`, keeping (asked, done) and calling `on_first` once the first part is done."""

    def run(jobs):
        asked, done = record
        asked.extend(jobs)
        for job in runner(jobs):
            done.append(job)
            if len(done) == 1:
                on_first()
            yield job

    return run


def test_two_workers_make_the_map_of_one_process(place, workers, alone):
    record = [], []
    windows = []
    make_map(
        place,
        "two",
        run_parts=recorded(workers.runner(SceneSource(str(place / "scene.tif"))), record),
        on_windows=lambda done, total: windows.append((done, total)),
    )
    assert len(record[0]) >= 6
    assert sorted(job.folder for job in record[1]) == sorted(job.folder for job in record[0])
    assert_same(read(place, "two"), alone)
    assert windows[-1][0] == windows[-1][1] == sum(job.windows for job in record[0])
    assert (workers.slots, workers.model.dtype) == (
        2,
        str(load_model(place / "model", dtype="auto")[0].dtype)[6:],
    )


def test_a_killed_worker_loses_nothing_and_doubles_nothing(place, workers, alone):
    client = workers._client
    pids = client.run(os.getpid)
    killed = []

    def kill_a_busy_one():
        deadline = time.monotonic() + 20
        while not killed and time.monotonic() < deadline:
            busy = [address for address, keys in client.processing().items() if keys]
            if busy:
                os.kill(pids[busy[0]], signal.SIGKILL)
                killed.append(busy[0])

    record = [], []
    runner = workers.runner(SceneSource(str(place / "scene.tif")))
    report = make_map(place, "killed", run_parts=recorded(runner, record, kill_a_busy_one))
    assert killed
    assert sorted(job.folder for job in record[1]) == sorted(job.folder for job in record[0])
    assert_same(read(place, "killed"), alone)
    assert report.pixels.sum() + report.without_data == alone[0].size
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


def test_what_fails_on_a_worker_is_told_here(place, workers):
    jobs = []
    with pytest.raises(InputError, match="does not exist"):
        make_map(
            place,
            "failed",
            run_parts=recorded(workers.runner(SceneSource(str(place / "none.tif"))), (jobs, [])),
        )
    assert jobs
    assert not (place / "failed.tif").exists()


def test_what_lasting_workers_know_under_a_name_may_change(workers, tmp_path):
    def scene(seed):
        write_raster(
            tmp_path / "new.tif",
            np.random.default_rng(seed).integers(0, 255, (3, 300, 280), dtype=np.uint8),
        )
        os.replace(tmp_path / "new.tif", tmp_path / "scene.tif")

    scene(0)
    save_model(tmp_path / "model", seed=0)
    lasting = Workers(workers._client, ModelSource(str(tmp_path / "model"), "cpu", "auto"))
    maps = []
    two_heads = VIT | {"num_attention_heads": 2}
    changes = (
        lambda: None,
        lambda: scene(1),
        lambda: save_model(tmp_path / "model", seed=1),
        lambda: save_model(tmp_path / "model", seed=1, backbone_config=two_heads),
        lambda: save_model(tmp_path / "model", seed=1, backbone_config=two_heads, image_mean=0.2),
    )
    for change in changes:
        change()
        with Scene(tmp_path / "scene.tif") as opened:
            source = SceneSource.of(opened)
        make_map(
            tmp_path, "lasting", run_parts=lasting.runner(source), device_type=lasting.device_type
        )
        make_map(tmp_path, "alone")
        maps.append(read(tmp_path, "alone"))
        assert_same(read(tmp_path, "lasting"), maps[-1])
    assert all((earlier[1] != later[1]).any() for earlier, later in pairwise(maps))


def test_workers_refuse_what_is_not_the_same_everywhere(place, workers, monkeypatch):
    other = SceneSource(str(place / "scene.tif"), version="another")
    with pytest.raises(InputError, match="a worker finds another file"):
        make_map(place, "refused", run_parts=workers.runner(other))
    monkeypatch.setattr(
        "crossearth_hf.prediction.one_scene.model_digest", lambda *_: "that of another release"
    )
    with pytest.raises(InputError, match="other weights or settings on a worker"):
        make_map(place, "refused", run_parts=workers.runner(SceneSource(str(place / "scene.tif"))))
    assert not (place / "refused.tif").exists()


def test_names_that_are_no_paths_reach_workers_as_they_are(place, monkeypatch):
    monkeypatch.chdir(place)
    with Scene("scene.tif") as scene:
        assert SceneSource.of(scene).path == str(place / "scene.tif")
    with Scene(f"GTIFF_DIR:1:{place / 'scene.tif'}") as scene:
        assert SceneSource.of(scene).path == scene.path
    with zipfile.ZipFile("scene.zip", "w") as archive:
        archive.write("scene.tif")
    with Scene("/vsizip/scene.zip/scene.tif") as scene:
        source = SceneSource.of(scene)
    assert replace(source, version=None) == SceneSource(scene.path, Reading((1, 2, 3)))
    with zipfile.ZipFile("scene.zip", "w") as archive:  # the same raster in another archive
        archive.write("scene.tif", compress_type=zipfile.ZIP_DEFLATED)
    with Scene("/vsizip/scene.zip/scene.tif") as scene:
        assert SceneSource.of(scene) != source
    with Scene("scene.tif", nodata=[7], palette_as_image=True) as scene:
        assert SceneSource.of(scene).reading == Reading(
            (1, 2, 3), nodata=(7,), palette_as_image=True
        )


def test_parts_of_another_device_are_not_used(place, workers):
    def stop():
        raise KeyboardInterrupt

    def asked(device_type):
        """Parts that were not there, of a job that ends after the first."""
        record = [], []
        runner = recorded(workers.runner(SceneSource(str(place / "scene.tif"))), record, stop)
        with pytest.raises(KeyboardInterrupt):
            make_map(place, "device", run_parts=runner, device_type=device_type)
        return len(record[0])

    parts = asked("cuda")
    assert asked("cuda") < parts
    assert asked(workers.device_type) == parts


class Future:
    """What Dask hands back of a part that nobody could compute."""

    def __init__(self, status, error=None):
        self.status, self.error = status, error

    def cancelled(self):
        return self.status == "cancelled"

    def exception(self):
        return self.error


def test_failures_of_the_cluster_itself():
    """Four deaths on one part, and a scheduler that goes, would cost a test too much."""
    with pytest.raises(InputError, match="choose fewer workers"):
        _result(Future("error", KilledWorker("part", None, 3)))
    for status in ("cancelled", "lost"):
        with pytest.raises(WorkersLost, match="run the command again"):
            _result(Future(status))


def test_workers_that_cannot_run_the_package(workers, monkeypatch):
    with pytest.raises(InputError, match="device 'quantum' is not available"):
        Workers(workers._client, ModelSource(None, "quantum", "auto"))

    def foreign(*_):
        raise ModuleNotFoundError("No module named 'crossearth_hf'")

    monkeypatch.setattr("crossearth_hf.prediction.workers._result", foreign)
    with pytest.raises(InputError, match="install it on all machines"):
        Workers(workers._client, ModelSource(None, "cpu", "float32"))


def test_stopped_workers_compute_no_more(place, workers):
    scene = SceneSource(str(place / "scene.tif"))
    stopping = Workers(workers._client, workers.model)
    with pytest.raises(WorkersLost):
        make_map(
            place, "stopped", run_parts=recorded(stopping.runner(scene), ([], []), stopping.stop)
        )
    with pytest.raises(WorkersLost, match="were stopped"):
        make_map(place, "stopped", run_parts=stopping.runner(scene))
    assert not (place / "stopped.tif").exists()
    # goes on with the parts that are there
    make_map(place, "stopped", run_parts=workers.runner(scene))


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers(count):
    with (
        pytest.raises(InputError, match="must be 1 or more"),
        local_workers(count, ModelSource(None, "cpu", "float32")),
    ):
        pass


def test_workers_that_do_not_start(monkeypatch):
    def fail(**options):
        raise RuntimeError("Nanny failed to start.") from TimeoutError("no answer")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    refusal = pytest.raises(
        InputError, match=r"the 2 workers do not start \(no answer\); choose fewer"
    )
    with refusal, local_workers(2, ModelSource(None, "cpu", "float32")):
        pass


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "nonsense", "ftp://x:1", "", "tls://127.0.0.1:1"]
)
def test_no_scheduler(monkeypatch, address):
    monkeypatch.setattr("crossearth_hf.prediction.workers._ANSWER_SECONDS", 0.5)
    started = time.monotonic()
    with (
        pytest.raises(InputError, match="no Dask scheduler answers"),
        cluster_workers(address, ModelSource(None, "cpu", "float32")),
    ):
        pass
    assert time.monotonic() - started < 10


def test_something_else_than_a_scheduler_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer_like_a_web_server, args=[server], daemon=True).start()
        with (
            pytest.raises(InputError, match="no Dask scheduler answers"),
            cluster_workers(
                f"tcp://127.0.0.1:{server.getsockname()[1]}", ModelSource(None, "cpu", "float32")
            ),
        ):
            pass


def _answer_like_a_web_server(server):
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            connection.close()


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr("crossearth_hf.prediction.workers._WORKERS_SECONDS", 0.5)
    source = ModelSource(None, "cpu", "float32")
    with (
        LocalCluster(
            n_workers=0, processes=False, dashboard_address=":0", protocol="tcp"
        ) as cluster,
        pytest.raises(InputError, match="has no worker"),
        cluster_workers(cluster.scheduler_address, source),
    ):
        pass


def test_workers_take_the_gpus_of_a_machine_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [_spread_device("auto", worker) for worker in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [_spread_device(device, 1) for device in ("cpu", "cuda", "cuda:0")] == [
        "cpu",
        "cuda:1",
        "cuda:0",
    ]
    assert _spread_device("auto", "tcp://host:1") == "auto"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert _spread_device("auto", 1) == "auto"


def test_without_dask(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with (
        pytest.raises(InputError, match=r"pip install crossearth-hf\[cluster\]"),
        local_workers(1, ModelSource(None, "cpu", "float32")),
    ):
        pass
