"""Maps that onnxruntime and OpenVINO compute, beside those of PyTorch."""

import functools
from multiprocessing import forkserver

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
import rasterio
import torch
from small_jobs import refused

from crossearth_hf import InputError
from crossearth_hf.cli import main
from crossearth_hf.export import engines
from crossearth_hf.export import graph as graph_module
from crossearth_hf.export.engines import ENGINES, engine_network
from crossearth_hf.inference.loading import load_model
from crossearth_hf.inference.windows import WindowScorer
from crossearth_hf.prediction import predict
from crossearth_hf.synthetic import generate_scene, write_scene

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("torch", minversion="2.9")

BOTH = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """The cache of all tests here."""
    return tmp_path_factory.mktemp("assets")


@pytest.fixture(autouse=True)
def own_cache(assets, folder, monkeypatch):
    place = functools.partial(huggingface_hub.cached_assets_path, assets_dir=assets)
    monkeypatch.setattr(engines, "cached_assets_path", place)
    monkeypatch.setenv("HF_ASSETS_CACHE", str(assets))  # for other processes
    monkeypatch.setattr(engines, "logits_graph", lambda _: onnx.load(folder / "logits.onnx"))


@pytest.fixture(scope="module")
def folder(traced_folder):
    return traced_folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Its sides are no multiples of 16."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    write_scene(generate_scene("temperate-summer", 3, 150, 211), path)
    return path


@pytest.fixture
def graph(folder, assets):
    """The tiny model's graph in the cache."""
    network, processor = load_model(folder, device="cpu")
    engine_network(network, processor, "onnxruntime")
    return engines._kept_graph(network, processor)


def mapped(scene, target, **options):
    """Labels and shares of the classes."""
    predict(
        scene,
        target,
        probabilities=target.with_suffix(".shares.tif"),
        float_shares=True,
        progress=False,
        tell=None,
        **options,
    )
    bands = []
    for path in (target, target.with_suffix(".shares.tif")):
        with rasterio.open(path) as source:
            bands.append(source.read())
    return bands


def assert_same_map(found, expected):
    assert (found[0] != expected[0]).mean() <= 1e-4
    # Shares are written to the nearest 1/4096.
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1.01 / 4096)


@BOTH
@pytest.mark.parametrize("options", [{}, {"tta": True, "fast": True, "batch_size": 3}], ids=str)
def test_the_map_is_pytorchs(engine, options, folder, scene, tmp_path):
    pytest.importorskip(engine)
    pytorch = mapped(scene, tmp_path / "pytorch.tif", model=folder, device="cpu", **options)
    found = mapped(scene, tmp_path / "map.tif", model=folder, engine=engine, **options)
    assert len(np.unique(pytorch[0])) > 1
    assert_same_map(found, pytorch)


@BOTH
def test_scores_are_pytorchs(engine, folder):
    pytest.importorskip(engine)
    network, processor = load_model(folder, device="cpu")
    assert_same_scores(network, engine_network(network, processor, engine), [64, 160, 32])


def assert_same_scores(network, other, sides):
    pytorch, found = WindowScorer(network), WindowScorer(other)
    for side in sides:
        crops = torch.randn(2, 3, side, 64, generator=torch.Generator().manual_seed(side))
        with torch.inference_mode():
            expected, scores = pytorch(crops), found(crops)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4 * float(expected.max()))


@pytest.mark.slow
@BOTH
def test_the_bundled_model_maps_alike(engine, tmp_path, monkeypatch):
    pytest.importorskip(engine)
    monkeypatch.setattr(engines, "logits_graph", graph_module.logits_graph)
    network, processor = load_model(device="cpu")
    assert_same_scores(network, engine_network(network, processor, engine), [64, 256])
    path = tmp_path / "scene.tif"
    write_scene(generate_scene("temperate-summer", 100, 500, 600), path)
    pytorch = mapped(path, tmp_path / "pytorch.tif", model=(network, processor))
    found = mapped(path, tmp_path / "map.tif", model=(network, processor), engine=engine)
    assert_same_map(found, pytorch)


def test_workers_share_the_work(folder, scene, tmp_path, graph):
    forkserver._forkserver._stop()  # one that runs already does not know the cache of these tests
    options = {"model": folder, "engine": "onnxruntime"}
    alone = mapped(scene, tmp_path / "alone.tif", **options)
    found = mapped(scene, tmp_path / "map.tif", workers=2, **options)
    assert_same_map(found, alone)


def test_a_model_is_traced_once(folder, scene, tmp_path, graph, monkeypatch, capsys):
    monkeypatch.setattr(engines, "logits_graph", None)
    command = ["predict", str(scene), str(tmp_path / "map.tif"), "--model", str(folder)]
    assert main([*command, "--engine", "onnxruntime"]) == 0
    assert "is traced" not in capsys.readouterr().err


@pytest.mark.parametrize("stale", [b"no graph", None])
def test_a_graph_that_is_not_the_models_is_traced_again(stale, folder, graph, monkeypatch):
    right = graph.read_bytes()
    if stale is None:
        stale = graph_of_others(right)
    graph.write_bytes(stale)
    compiled = graph.with_suffix(".openvino")
    compiled.mkdir(exist_ok=True)
    told = []
    monkeypatch.setattr(engines, "_write_graph", lambda _, path: path.write_bytes(right))
    engine_network(*load_model(folder, device="cpu"), "onnxruntime", tell=told.append)
    assert graph.read_bytes() == right
    assert not compiled.exists()
    assert len(told) == 1
    assert str(graph) in told[0]


def graph_of_others(graph):
    """A graph with other weights, which runs as well."""
    proto = onnx.load_from_string(graph)
    weights = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = np.frombuffer(weights.raw_data, np.float32)
    weights.raw_data = values[::-1].tobytes()
    return proto.SerializeToString()


@BOTH
def test_what_an_engine_computes_wrongly_is_refused(engine, folder, graph, monkeypatch):
    pytest.importorskip(engine)
    kept = graph.read_bytes()
    monkeypatch.setattr(engines, "_MOST_OFF", 0.0)
    monkeypatch.setattr(engines, "_write_graph", lambda _, path: path.write_bytes(kept))
    with pytest.raises(InputError, match=f"{engine} computes this model wrongly"):
        engine_network(*load_model(folder, device="cpu"), engine)
    assert graph.read_bytes() == kept


def test_threads_are_pytorchs(folder, graph, monkeypatch):
    asked = []

    def session(path, options, **others):
        asked.append(options.intra_op_num_threads)
        return real(path, options, **others)

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        engine_network(*load_model(folder, device="cpu"), "onnxruntime")
    finally:
        torch.set_num_threads(before)
    assert asked == [3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dtype", "bfloat16"], ["openvino computes in float32", "--dtype"]),
        (["--scheduler", "tcp://nowhere:1"], ["openvino cannot be combined with --scheduler"]),
    ],
)
def test_what_engines_cannot_do_is_refused(arguments, words, folder, scene, tmp_path, capsys):
    pytest.importorskip("openvino")
    command = ["predict", str(scene), str(tmp_path / "map.tif"), "--model", str(folder)]
    refused(capsys, main([*command, "--engine", "openvino", *arguments]), *words)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_is_not_installed_is_named_with_its_remedy(monkeypatch, scene, tmp_path):
    monkeypatch.setattr(
        graph_module, "find_spec", lambda name: None if name == "openvino" else True
    )
    with pytest.raises(InputError, match=r"needs openvino; run: pip install 'crossearth-hf\[openv"):
        predict(scene, tmp_path / "map.tif", engine="openvino", tell=None)
    with pytest.raises(InputError, match="unknown engine 'tflite'; choose one of onnxruntime"):
        predict(scene, tmp_path / "map.tif", engine="tflite", tell=None)


def test_a_cache_that_cannot_be_written_is_named(folder, monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(engines, "cached_assets_path", refuse)
    with pytest.raises(InputError, match=r"Permission denied.*HF_ASSETS_CACHE"):
        engine_network(*load_model(folder, device="cpu"), "onnxruntime")
