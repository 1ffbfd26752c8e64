"""Windows, blending and loading, against hand-worked cases and a plain re-computation in float64."""

import json
import shutil

import numpy as np
import pytest
import torch
from affine import Affine
from stub_model import ColourModel

from crossearth_hf import CrossEarthImageProcessor, inference
from crossearth_hf.errors import InputError
from crossearth_hf.geotiff import Scene, write_geotiff
from crossearth_hf.inference import (
    load_model,
    predict_scene,
    resolve_device,
    resolve_window,
    sliding_window_scores,
    window_starts,
)

PROCESSOR = CrossEarthImageProcessor()


@pytest.mark.parametrize(
    ("size", "window", "stride", "starts"),
    [
        (115, 64, 43, [0, 43, 51]),
        (90, 64, 43, [0, 26]),
        (64, 64, 43, [0]),
        (40, 64, 43, [0]),
        (150, 64, 43, [0, 43, 86]),
        (10, 2, 2, [0, 2, 4, 6, 8]),
    ],
)
def test_window_starts(size, window, stride, starts):
    assert window_starts(size, window, stride) == starts


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def place_dependent_scores(pixels, window):
    """What `ColourModel(sharpness=8, patch_sensitive=1)` answers for one (3, h, w) window of bytes, in float64."""
    return sigmoid(8 * (pixels / 255.0 - 0.5) + np.linspace(-1, 1, window))


def normalized(pixels):
    return PROCESSOR(images=[pixels.transpose(1, 2, 0)], return_tensors="pt", do_pad=False)["pixel_values"]


def test_sliding_window_averages_uniformly():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 120), dtype=np.uint8)
    total, coverage = np.zeros((3, 70, 120)), np.zeros((70, 120))
    for row in (0, 6):
        for col in (0, 43, 56):
            here = np.s_[row : row + 64, col : col + 64]
            total[(slice(None), *here)] += place_dependent_scores(pixels[(slice(None), *here)], 64)
            coverage[here] += 1
    for batch_size in (1, 4, 100):
        scores = sliding_window_scores(ColourModel(patch_sensitive=1.0), normalized(pixels), 64, 43, batch_size)
        np.testing.assert_allclose(scores[0].numpy(), total / coverage, rtol=1e-5)


def test_sliding_window_over_a_batch_equals_one_by_one():
    images = torch.randn(3, 3, 80, 100)
    model = ColourModel(patch_sensitive=1.0)
    alone = torch.cat([sliding_window_scores(model, image[None], 64, 43) for image in images])
    torch.testing.assert_close(sliding_window_scores(model, images, 64, 43), alone)


def test_small_images_are_padded_to_16_and_cropped():
    model = ColourModel()
    scores = sliding_window_scores(model, torch.zeros(2, 3, 20, 200), 64, 43)
    assert scores.shape == (2, 3, 20, 200)
    assert {shape[2:] for shape in model.batches} == {(32, 64)}
    grey = sigmoid(8 * (np.array(PROCESSOR.image_mean) - 0.5))
    np.testing.assert_allclose(scores[1, :, 7, 9].numpy(), grey, rtol=1e-5)


def test_the_real_network_runs_through_windows(model):
    scores = sliding_window_scores(model, torch.randn(1, 3, 70, 90), 64, 43, batch_size=3)
    assert scores.shape == (1, 6, 70, 90)
    assert scores.min() >= 0
    whole = sliding_window_scores(model, torch.ones(1, 3, 64, 64), 64, 43)
    outputs = model(pixel_values=torch.ones(1, 3, 64, 64))
    expected = inference.semantic_scores(outputs.class_queries_logits, outputs.masks_queries_logits, (64, 64))
    torch.testing.assert_close(whole, expected)


def save_scene(path, pixels, nodata=None):
    write_geotiff(
        path, pixels, crs="EPSG:32632", transform=Affine(1, 0, 5e5, 0, -1, 5e6), nodata=nodata, overwrite=True
    )
    return path


def run_scene(path, model, window=64, stride=43, batch_size=4):
    with Scene(path) as scene:
        shape = (scene.grid.height, scene.grid.width)
        labels, confidence = np.full(shape, 200, np.uint8), np.full(shape, -1, np.float32)
        writes = np.zeros(shape, int)

        def write(row, col, block, shares):
            here = np.s_[row : row + block.shape[0], col : col + block.shape[1]]
            labels[here], confidence[here] = block, shares
            writes[here] += 1
            assert row % 256 == 0
            assert col % 256 == 0

        predict_scene(
            scene, model, PROCESSOR, write, window=window, stride=stride, batch_size=batch_size, progress=False
        )
    assert (writes == 1).all()
    return labels, confidence


def tapered_reference(pixels, window, stride):
    """(3, H, W) shares of the blended scores, window by window over the whole scene in float64."""
    height, width = pixels.shape[1:]
    ramp = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)
    weights = np.outer(0.01 + 0.99 * ramp, 0.01 + 0.99 * ramp)
    total = np.zeros((3, height, width))
    for row in window_starts(height, window, stride):
        for col in window_starts(width, window, stride):
            here = np.s_[row : row + window, col : col + window]
            total[(slice(None), *here)] += weights * place_dependent_scores(pixels[(slice(None), *here)], window)
    return total / total.sum(axis=0)


@pytest.mark.parametrize(("height", "width"), [(600, 700), (257, 1100), (64, 64), (900, 70)])
def test_scene_equals_the_blend_computed_at_once(tmp_path, height, width):
    pixels = np.random.default_rng(1).integers(0, 256, (3, height, width), dtype=np.uint8)
    labels, confidence = run_scene(save_scene(tmp_path / "a.tif", pixels), ColourModel(patch_sensitive=1.0))
    shares = tapered_reference(pixels, 64, 43)
    np.testing.assert_allclose(confidence, shares.max(axis=0), rtol=1e-5)
    chosen = np.take_along_axis(shares, labels[None].astype(int), axis=0)[0]
    np.testing.assert_allclose(chosen, confidence, rtol=1e-5)  # the best class, or one that is as good


def test_columns_do_not_show(tmp_path, monkeypatch):
    pixels = np.random.default_rng(2).integers(0, 256, (3, 300, 1300), dtype=np.uint8)
    path = save_scene(tmp_path / "a.tif", pixels)
    results = []
    for columns in (4, 12, 100):  # 256, 768 and all pixels wide
        monkeypatch.setattr(inference, "_COLUMN_WINDOWS", columns)
        results.append(run_scene(path, ColourModel(patch_sensitive=1.0)))
    for labels, confidence in results[1:]:
        np.testing.assert_array_equal(labels, results[0][0])
        np.testing.assert_allclose(confidence, results[0][1], rtol=1e-6)


def test_few_windows_are_computed_twice(tmp_path):
    model = ColourModel()
    run_scene(save_scene(tmp_path / "a.tif", np.full((3, 64, 5000), 9, np.uint8)), model)
    computed = sum(shape[0] for shape in model.batches)
    assert computed <= 1.1 * len(window_starts(5000, 64, 43))


def test_no_data_is_neither_seen_nor_mapped(tmp_path):
    pixels = np.full((3, 300, 300), 10, np.uint8)
    pixels[1] = 250
    pixels[:, :, :200] = 0
    model = ColourModel()
    labels, confidence = run_scene(save_scene(tmp_path / "a.tif", pixels, nodata=0), model)
    assert (labels[:, :200] == 255).all()
    assert np.isnan(confidence[:, :200]).all()
    assert (labels[:, 200:] == 1).all()
    green, other = sigmoid(8 * (250 / 255 - 0.5)), sigmoid(8 * (10 / 255 - 0.5))
    np.testing.assert_allclose(confidence[:, 200:], green / (green + 2 * other), rtol=1e-5)
    assert sum(shape[0] for shape in model.batches) == 7 * 3  # of 7 x 7 windows, those that reach column 200


def test_no_data_enters_the_model_as_the_mean(tmp_path):
    pixels = np.full((3, 64, 64), 200, np.uint8)
    pixels[:, 10:20] = 0
    with Scene(save_scene(tmp_path / "a.tif", pixels, nodata=0)) as scene:
        values = inference.normalize(scene.read(0, 0, 64, 64), PROCESSOR)
    assert (values[:, 10:20] == 0).all()
    torch.testing.assert_close(values[:, 30:], normalized(pixels)[0, :, 30:])


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [(None, None, (64, 43)), (50, None, (64, 43)), (128, None, (128, 86)), (None, 64, (64, 64)), (16, 1, (16, 1))],
)
def test_resolve_window(config, window, stride, expected):
    assert resolve_window(config, window, stride) == expected


@pytest.mark.parametrize(("window", "stride"), [(None, 0), (None, -3), (None, 65), (0, None), (-16, None)])
def test_impossible_windows(config, window, stride):
    with pytest.raises(InputError, match="must"):
        resolve_window(config, window, stride)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:99", ""):
        with pytest.raises(InputError, match=r"choose one of auto, .*cpu"):
            resolve_device(name)


@pytest.fixture
def folder(tmp_path, model):
    model.save_pretrained(tmp_path / "model")
    PROCESSOR.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_load_model(folder, model):
    loaded, processor = load_model(folder, device="cpu")
    assert not loaded.training
    assert processor.image_mean == PROCESSOR.image_mean
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(images).logits, model(images).logits)
    assert load_model(folder, device="cpu", dtype="bfloat16")[0].dtype == torch.bfloat16


def damage(folder, kind):
    config = folder / "config.json"
    if kind == "no config":
        config.unlink()
    elif kind == "broken config":
        config.write_text("{")
    elif kind == "another model":
        config.write_text(json.dumps({"model_type": "bert"}))
    elif kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "broken weights":
        (folder / "model.safetensors").write_bytes(b"0" * 100)
    elif kind == "pickled weights":
        torch.save({}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif kind == "no processor":
        (folder / "preprocessor_config.json").unlink()
    elif kind == "fewer tensors":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"decoder_layers": 7}))
    elif kind == "other shapes":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"mask_feature_size": 48}))
    elif kind == "no folder":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "kind",
    ["no config", "broken config", "another model", "no weights", "broken weights", "pickled weights", "no processor",
     "fewer tensors", "other shapes", "no folder"],
)  # fmt: skip
def test_damaged_model_folders(folder, kind):
    damage(folder, kind)
    with pytest.raises(InputError, match=str(folder)):
        load_model(folder, device="cpu")


def test_a_checkpoint_file_is_no_model(tmp_path):
    (tmp_path / "model.pth").touch()
    with pytest.raises(InputError, match="crossearth convert"):
        load_model(tmp_path / "model.pth")


def test_without_a_bundled_model(monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "BUNDLED_MODEL", tmp_path)
    with pytest.raises(InputError, match="--model"):
        load_model()
