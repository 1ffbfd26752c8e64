"""Files for QGIS's plugin Deepness, read by the rules of its classes `ModelBase` and `Segmentor`, written down here.

The rules: one input of four dimensions, whose last two are the tile; one output with as many dimensions, square; every
value of the metadata is JSON; class ids are consecutive from 0; tiles are uint8 pixels over 255, minus a mean, over a
deviation (both optional); values below the threshold become 0, and the largest channel is the class.
"""

import json

import numpy as np
import pytest
import torch

from crossearth_hf.cli import main
from crossearth_hf.inference.loading import load_model
from crossearth_hf.inference.normalization import normalize_pixels
from crossearth_hf.inference.windows import WindowScorer

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch", minversion="2.9")


class Plugin:
    """What the plugin does with a file."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (self.input,), (self.output,) = self.session.get_inputs(), self.session.get_outputs()
        assert self.input.type == self.output.type == "tensor(float)"
        assert len(self.input.shape) == len(self.output.shape) == 4
        assert self.input.shape[2] == self.input.shape[3]
        assert self.output.shape[2:] == self.input.shape[2:]
        self.about = self.session.get_modelmeta().custom_metadata_map

    def read(self, key, kind):
        return kind(json.loads(self.about[key])) if key in self.about else None

    def class_names(self):
        pairs = sorted(json.loads(self.about["class_names"]).items(), key=lambda pair: int(pair[0]))
        assert [int(key) for key, _ in pairs] == list(range(len(pairs)))
        return [name for _, name in pairs]

    def shares(self, tiles):
        """(N, K, S, S) of (N, S, S, C) uint8 tiles."""
        values = np.float32(tiles[..., : self.input.shape[1]] / 255.0)
        mean, deviation = (
            json.loads(self.about[f"standardization_{name}"]) for name in ("mean", "std")
        )
        values = np.float32((values - mean) / deviation)
        return self.session.run(None, {self.input.name: values.transpose(0, 3, 1, 2)})[0]

    def labels(self, tiles):
        shares = self.shares(tiles)
        shares[shares < self.read("seg_thresh", float)] = 0
        return shares.argmax(axis=1)


@pytest.fixture(scope="module")
def folder(traced_folder):
    return traced_folder


@pytest.fixture(scope="module")
def plugin(folder, tmp_path_factory):
    graph = onnx.load(folder / "logits.onnx")
    path = tmp_path_factory.mktemp("exported") / "tiles.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crossearth_hf.export.exporting.logits_graph", lambda _: graph)
        assert main(["export", str(folder), str(path), "--deepness"]) == 0
    return Plugin(path)


def test_the_plugin_finds_its_settings(plugin):
    assert str(plugin.read("model_type", str)).capitalize() == "Segmentor"
    assert plugin.class_names() == [f"LABEL_{index}" for index in range(6)]
    assert plugin.read("resolution", float) == 50.0  # centimeters
    assert (
        plugin.read("tiles_size", int)
        == plugin.read("tile_size", int)
        == plugin.input.shape[2]
        == 64
    )
    assert plugin.read("tiles_overlap", int) == 33  # percent: windows of 64 px, 43 px apart
    assert plugin.read("seg_small_segment", int) == 0
    assert plugin.input.shape[:2] == [1, 3]


def test_tiles_have_the_labels_of_the_package(plugin, folder):
    # QGIS has an alpha band too
    tile = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 4), dtype=np.uint8)
    model, processor = load_model(folder, device="cpu")
    pixels = torch.from_numpy(tile[..., :3]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        scores = WindowScorer(model)(
            normalize_pixels(pixels, mean=processor.image_mean, std=processor.image_std)
        ).numpy()
    expected = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plugin.shares(tile), expected, atol=1e-5)
    assert (plugin.labels(tile) == scores.argmax(axis=1)).mean() > 0.999
