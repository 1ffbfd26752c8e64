"""Windows, blending and loading, against hand-worked cases and a plain re-computation in float64."""

import json
import shutil

import numpy as np
import pytest
import torch
from stub_model import ColorModel

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference import loading, windows
from crossearth_hf.inference.loading import (
    BUNDLED_MODEL,
    load_model,
    model_folder,
    resolve_device,
)
from crossearth_hf.inference.windows import (
    WindowScorer,
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
    """What `ColorModel(sharpness=8, patch_sensitive=1)` answers for one (3, h, w) window of bytes, in float64."""
    return sigmoid(8 * (pixels / 255.0 - 0.5) + np.linspace(-1, 1, window))


def normalized(pixels):
    return PROCESSOR(images=[pixels.transpose(1, 2, 0)], return_tensors="pt", do_pad=False)[
        "pixel_values"
    ]


def test_sliding_window_averages_uniformly():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 120), dtype=np.uint8)
    total, coverage = np.zeros((3, 70, 120)), np.zeros((70, 120))
    for row in (0, 6):
        for col in (0, 43, 56):
            here = np.s_[row : row + 64, col : col + 64]
            total[(slice(None), *here)] += place_dependent_scores(pixels[(slice(None), *here)], 64)
            coverage[here] += 1
    for batch_size in (1, 4, 100):
        scores = sliding_window_scores(
            ColorModel(patch_sensitive=1.0), normalized(pixels), 64, 43, batch_size
        )
        np.testing.assert_allclose(scores[0].numpy(), total / coverage, rtol=1e-5)


def test_sliding_window_over_a_batch_equals_one_by_one():
    images = torch.randn(3, 3, 80, 100)
    model = ColorModel(patch_sensitive=1.0)
    alone = torch.cat([sliding_window_scores(model, image[None], 64, 43) for image in images])
    torch.testing.assert_close(sliding_window_scores(model, images, 64, 43), alone)


def test_small_images_are_padded_to_16_and_cropped():
    model = ColorModel()
    scores = sliding_window_scores(model, torch.zeros(2, 3, 20, 200), 64, 43)
    assert scores.shape == (2, 3, 20, 200)
    assert {shape[2:] for shape in model.batches} == {(32, 64)}
    gray = sigmoid(8 * (np.array(PROCESSOR.image_mean) - 0.5))
    np.testing.assert_allclose(scores[1, :, 7, 9].numpy(), gray, rtol=1e-5)


def test_the_real_network_runs_through_windows(model):
    scores = sliding_window_scores(model, torch.randn(1, 3, 70, 90), 64, 43, batch_size=3)
    assert scores.shape == (1, 6, 70, 90)
    assert scores.min() >= 0
    whole = sliding_window_scores(model, torch.ones(1, 3, 64, 64), 64, 43)
    outputs = model(pixel_values=torch.ones(1, 3, 64, 64))
    expected = windows.semantic_scores(
        outputs.class_queries_logits, outputs.masks_queries_logits, (64, 64)
    )
    torch.testing.assert_close(whole, expected)


def test_flips_are_averaged_in_score_space():
    crops = torch.randn(3, 3, 64, 96)
    # adds a ramp from left to right, wherever the crop comes from
    model = ColorModel(patch_sensitive=1.0)
    logits = 8 * (crops * model.std + model.mean - 0.5)
    ramp = torch.linspace(-1, 1, 96)
    # seen mirrored, the ramp falls
    expected = ((logits + ramp).sigmoid() + (logits - ramp).sigmoid()) / 2
    torch.testing.assert_close(WindowScorer(model, tta=True)(crops), expected)
    torch.testing.assert_close(WindowScorer(model)(crops), (logits + ramp).sigmoid())
    assert len(model.batches) == 5


def test_flips_do_not_change_an_equivariant_model():
    crops = torch.randn(2, 3, 48, 32)
    plain, flipped = (WindowScorer(ColorModel(), tta=tta)(crops) for tta in (False, True))
    assert torch.equal(plain, flipped)


class SmallMemory(ColorModel):
    """Fails for more than `most` crops with one of the errors by which torch and Python say that memory is short."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error = most, error

    def forward(self, pixel_values):
        if len(pixel_values) > self.most:
            self.batches.append(tuple(pixel_values.shape))
            raise self.error
        return super().forward(pixel_values)


SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    MemoryError(),
]


@pytest.mark.parametrize("error", SHORTAGES)
def test_short_memory_halves_the_batch_once(error, capsys):
    crops = torch.randn(5, 3, 32, 32)
    model = SmallMemory(3, error)
    scorer = WindowScorer(model)
    expected = WindowScorer(ColorModel())(crops)
    torch.testing.assert_close(scorer(crops), expected)
    torch.testing.assert_close(scorer(crops[:4]), expected[:4])  # the next batch is halved at once
    assert [shape[0] for shape in model.batches] == [5, 3, 2, 3, 1]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "5 windows of 32 x 32" in said
    assert "3 at a time" in said


@pytest.mark.parametrize("error", SHORTAGES)
@pytest.mark.parametrize("count", [1, 4])
def test_half_a_batch_is_the_last_try(error, count):
    with pytest.raises(InputError, match="smaller batch size or window") as refused:
        WindowScorer(SmallMemory(0, error))(torch.zeros(count, 3, 32, 32))
    assert refused.value.__cause__ is error


def test_other_failures_are_not_taken_for_short_memory():
    model = SmallMemory(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        WindowScorer(model)(torch.zeros(4, 3, 32, 32))
    assert len(model.batches) == 1


@pytest.mark.parametrize(
    ("window", "stride", "expected"),
    [
        (None, None, (64, 43)),
        (50, None, (64, 43)),
        (128, None, (128, 86)),
        (None, 64, (64, 64)),
        (16, 1, (32, 1)),
    ],
)
def test_resolve_window(config, window, stride, expected):
    assert resolve_window(config, window, stride) == expected


@pytest.mark.parametrize(
    ("window", "stride", "usual", "expected"),
    [
        (None, None, 43, (64, 56)),
        (512, None, 43, (512, 448)),
        (None, 30, 43, (64, 30)),
        (None, None, 60, (64, 60)),
    ],
)
def test_fast_windows_overlap_less(config, window, stride, usual, expected):
    config.window_stride = usual
    assert resolve_window(config, window, stride, fast=True) == expected


@pytest.mark.parametrize(
    ("window", "stride"), [(None, 0), (None, -3), (None, 65), (0, None), (-16, None)]
)
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


def test_the_bundled_model_has_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert model_folder("bundled") == model_folder() == BUNDLED_MODEL
    (tmp_path / "bundled").mkdir()
    with pytest.raises(InputError, match=r"the folder bundled has no config\.json"):
        model_folder("bundled")


def test_without_a_bundled_model(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "BUNDLED_MODEL", tmp_path)
    with pytest.raises(InputError, match="--model"):
        load_model()


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "5", "[" * 200_000, '{"model_type": ["crossearth"]}']
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_json_of_any_kind_is_one_sentence(folder, name, content):
    (folder / name).write_text(content)
    if "model_type" in content and name != "config.json":
        return
    with pytest.raises(InputError, match=str(folder)) as raised:
        load_model(folder, device="cpu")
    assert len(str(raised.value)) < 500


ABSURD = {
    "blocks": {"backbone_config": {"num_hidden_layers": 10**7}},
    "width": {"backbone_config": {"hidden_size": 10**9}},
    "side": {"backbone_config": {"image_size": 16 * 10**8}},
    "large side": {
        "backbone_config": {"image_size": 16_384}
    },  # allowed, but not what these weights are of
    "queries": {"num_queries": 10**9},
    "large width": {"dim_feedforward": 65_536},
    "fewer layers": {"decoder_layers": 3},
    "no object": {"backbone_config": [1]},
    "unknown backbone": {"backbone_config": {"model_type": "\x1b[31m" + "x" * 10**6}},
}


@pytest.mark.parametrize("name", ABSURD)
def test_configurations_of_other_sizes_than_the_weights(folder, name, monkeypatch):
    values = json.loads((folder / "config.json").read_text())
    for key, value in ABSURD[name].items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps(values))
    # found while the weights are read, the others before memory is taken
    if name != "fewer layers":
        monkeypatch.setattr(CrossEarthForSemanticSegmentation, "from_pretrained", None)
    with pytest.raises(InputError) as raised:
        load_model(folder, device="cpu")
    assert len(str(raised.value)) < 600
    assert "\x1b" not in str(raised.value)


def test_a_header_of_99_megabytes_is_not_quoted(folder):
    (folder / "model.safetensors").write_bytes((99 << 20).to_bytes(8, "little") + b"x" * 1000)
    with pytest.raises(InputError, match="the limit is 16777216") as raised:
        load_model(folder, device="cpu")
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": 5}', '{"weight_map": {"a": "../up.safetensors"}}']
)
def test_indexes_of_parts_that_name_none(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=r"index.json (cannot be read|does not list weight files)"):
        load_model(folder, device="cpu")


def test_loading_draws_no_bars(folder, capfd):
    load_model(folder, device="cpu")
    assert capfd.readouterr().err == ""
