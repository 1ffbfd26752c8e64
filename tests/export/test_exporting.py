"""Exported files, run by onnxruntime and OpenVINO, beside the model in PyTorch."""

import json

import numpy as np
import pytest
import torch
from tiny_model import FAMILIES, tiny_config

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
    InputError,
)
from crossearth_hf.cli import main
from crossearth_hf.export import export_model
from crossearth_hf.files.hub_cards import HUB_CARDS
from crossearth_hf.inference.loading import load_model
from crossearth_hf.model.semantic_scores import semantic_scores

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch", minversion="2.9")

SIZES = [
    (1, 64, 64),
    (2, 64, 96),
    (3, 48, 80),
    (1, 32, 128),
]  # the first is the tiny model's own crop


def saved(folder, config):
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(config)
    # queries of a fresh head are nearly alike, and rounding would decide between classes
    with torch.no_grad():
        model.class_predictor.weight.mul_(20)
    model.save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(traced_folder):
    return traced_folder


@pytest.fixture(scope="module")
def traced_before(traced_folder):
    """Tracing takes long: the model's graph is already there."""
    graph = onnx.load(traced_folder / "logits.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crossearth_hf.export.exporting.logits_graph", lambda _: graph)
        yield


@pytest.fixture(scope="module")
def exported(folder, traced_before, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", str(folder), str(path)]) == 0
    return path


def pytorch_scores(folder, pixels, full=False):
    model, _ = load_model(folder, device="cpu")
    with torch.no_grad():
        outputs = model(torch.from_numpy(pixels))
        masks = outputs.masks_queries_logits
        size = pixels.shape[-2:] if full else masks.shape[-2:]
        return semantic_scores(outputs.class_queries_logits, masks, size).numpy()


def drawn(batch, height, width):
    return np.random.default_rng(height + width).standard_normal(
        (batch, 3, height, width), dtype=np.float32
    )


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_agrees(run, folder, sizes=SIZES, full=False):
    for size in sizes:
        pixels = drawn(*size)
        expected = pytorch_scores(folder, pixels, full)
        found = run(pixels)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), size


def run_onnx(path):
    runner = session(path)
    return lambda pixels: runner.run(["scores"], {"pixel_values": pixels})[0]


def run_openvino(path):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: compiled({"pixel_values": pixels})["scores"]


def test_onnxruntime_agrees_at_every_size(folder, exported):
    assert_agrees(run_onnx(exported), folder)


def test_full_resolution(folder, traced_before, tmp_path):
    path = tmp_path / "model.onnx"
    export_model(folder, path, full_resolution=True)
    assert_agrees(run_onnx(path), folder, full=True)
    assert [(o.name, o.shape) for o in session(path).get_outputs()] == [
        ("scores", ["batch", 6, "height", "width"])
    ]


def test_no_size_is_fixed_and_nothing_loops(exported):
    proto = onnx.load(exported)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    assert not {"Loop", "If", "Scan"} & {node.op_type for node in proto.graph.node}
    runner = session(exported)
    assert [(i.name, i.shape) for i in runner.get_inputs()] == [
        ("pixel_values", ["batch", 3, "height", "width"])
    ]
    assert [(o.name, o.shape) for o in runner.get_outputs()] == [
        ("scores", ["batch", 6, "height/4", "width/4"])
    ]


def test_the_file_says_what_it_takes(folder, exported):
    described = {
        key: json.loads(value)
        for key, value in session(exported).get_modelmeta().custom_metadata_map.items()
    }
    _, processor = load_model(folder, device="cpu")
    assert described["class_names"] == {str(i): f"LABEL_{i}" for i in range(6)}
    assert len(described["class_colors"]) == 6
    assert described["image_mean"] == pytest.approx(processor.image_mean)
    assert described["image_std"] == pytest.approx(processor.image_std)
    assert described["ground_sampling_distance"] == 0.5
    assert described["license"] == "cc-by-4.0"
    assert "multiples of 16" in described["input"]


def test_openvino_agrees_at_every_size(folder, tmp_path, traced_before):
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "model.xml"
    report = export_model(folder, path, format="openvino")
    assert [file.name for file in report.files] == ["model.xml", "model.bin"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert_agrees(run_openvino(path), folder)
    model = openvino.Core().read_model(path)
    assert json.loads(model.get_rt_info(["crossearth", "class_names"]).value)["5"] == "LABEL_5"


def test_what_openvino_computes_wrongly_is_refused(folder, tmp_path, traced_before, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("crossearth_hf.export.writing._MOST_OFF", 0.0)
    with pytest.raises(InputError, match="computes this model wrongly"):
        export_model(folder, tmp_path / "model.xml", format="openvino")
    assert not list(tmp_path.iterdir())


def assert_runs(run, folder):
    """Random weights tell nothing about the loss of 8 bits; docs/export.md has that of the bundled model."""
    pixels = drawn(1, 64, 96)
    expected, found = pytorch_scores(folder, pixels), run(pixels)
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    assert not np.array_equal(found, expected)


def test_int8_is_smaller(folder, exported, tmp_path, traced_before):
    path = tmp_path / "small.onnx"
    assert main(["export", str(folder), str(path), "--int8"]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]
    assert path.stat().st_size < exported.stat().st_size
    assert session(path).get_modelmeta().custom_metadata_map["license"] == '"cc-by-4.0"'
    assert_runs(run_onnx(path), folder)


@pytest.mark.slow
def test_int8_of_openvino_runs(folder, tmp_path, traced_before, monkeypatch):
    pytest.importorskip("nncf")
    monkeypatch.setattr("crossearth_hf.export.eight_bits._IMAGES", 4)
    export_model(folder, tmp_path / "small.xml", format="openvino", int8=True)
    assert "FakeQuantize" in (tmp_path / "small.xml").read_text()
    assert_runs(run_openvino(tmp_path / "small.xml"), folder)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["m.onnx", "--format", "tflite"], "choose one of onnx, openvino"),
        (["m.pt"], "must end in .onnx"),
        (["m.onnx", "--format", "openvino"], "must end in .xml"),
        (["m.xml", "--format", "openvino", "--deepness"], "Deepness reads ONNX"),
        (["nowhere/m.onnx"], "does not exist"),
    ],
)
def test_mistakes_are_one_sentence(folder, arguments, reason, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_exists_is_replaced_only_on_request(folder, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="--overwrite"):
        export_model(folder, path)
    assert path.read_bytes() == b"mine"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_agrees(family, tmp_path):
    folder = saved(tmp_path / "model", tiny_config(**family))
    export_model(folder, tmp_path / "model.onnx", full_resolution=True)
    assert_agrees(run_onnx(tmp_path / "model.onnx"), folder, full=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crossearth-small", "crossearth-tiny"])
def test_shipped_models_agree(name, tmp_path):
    sizes = [(1, 256, 256), (2, 512, 336), (1, 48, 80)]
    for format, file, run in (("onnx", "m.onnx", run_onnx), ("openvino", "m.xml", run_openvino)):
        export_model(HUB_CARDS / name, tmp_path / file, format=format)
        assert_agrees(run(tmp_path / file), HUB_CARDS / name, sizes)


@pytest.mark.slow
def test_a_plain_vit_with_the_published_head_agrees(tmp_path):
    vit = {"model_type": "dinov2", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
           "image_size": 512, "patch_size": 16, "use_mask_token": False}  # fmt: skip
    config = CrossEarthConfig(backbone_config=vit, out_indices=(0, 1, 2, 3), num_labels=7)
    folder = saved(tmp_path / "model", config)
    for format, file, run in (("onnx", "m.onnx", run_onnx), ("openvino", "m.xml", run_openvino)):
        export_model(folder, tmp_path / file, format=format)
        assert_agrees(run(tmp_path / file), folder, [(1, 512, 512), (2, 96, 160), (1, 48, 80)])
