"""Sweeping whole scenes: against a plain re-computation in float64, and part by part to the last bit."""

import random
import threading

import numpy as np
import pytest
import torch
from rasters import write_raster
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.inference.windows import normalize, window_starts
from crossearth_hf.prediction import parts
from crossearth_hf.prediction.blending import confidences, probabilities
from crossearth_hf.prediction.parts import count_windows, joined, scene_parts, whole
from crossearth_hf.prediction.sweep import counted_windows, predict_part
from crossearth_hf.raster.scene import Scene

PROCESSOR = CrossEarthImageProcessor()


class Canvas:
    """What a sweep writes, put together; every pixel once."""

    def __init__(self, shape, classes=3):
        self.labels, self.scores = (
            np.full(shape, 200, np.uint8),
            np.full((classes, *shape), -1, np.float32),
        )
        self.writes = np.zeros(shape, int)

    def write(self, row, col, labels, scores, counted):
        assert row % 256 == 0
        assert col % 256 == 0
        here = np.s_[row : row + labels.shape[0], col : col + labels.shape[1]]
        self.labels[here], self.scores[(slice(None), *here)] = labels, scores
        self.writes[here] += 1

    @property
    def confidence(self):
        return confidences(self.labels, self.scores, None)


def itself(part):
    return part


def sweep(path, model, *, window=64, stride=43, resolution=None, **options):
    with Scene(path, resolution=resolution) as scene:
        canvas = Canvas((scene.grid.height, scene.grid.width))
        for run in joined(scene_parts(scene.grid, window, 3), itself):
            predict_part(
                scene,
                whole(run),
                model,
                PROCESSOR,
                canvas.write,
                window=window,
                stride=stride,
                **options,
            )
    assert (canvas.writes == 1).all()
    return canvas


def noise(*shape, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (3, *shape), dtype=np.uint8)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def place_dependent_scores(pixels, window):
    """What `ColorModel(sharpness=8, patch_sensitive=1)` answers for one (3, h, w) window of bytes, in float64."""
    return sigmoid(8 * (pixels / 255.0 - 0.5) + np.linspace(-1, 1, window))


def tapered_reference(pixels, window, stride):
    """(3, H, W) shares of the blended scores, window by window over the whole scene in float64."""
    height, width = pixels.shape[1:]
    ramp = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(window) + 0.5) / window)
    weights = np.outer(0.01 + 0.99 * ramp, 0.01 + 0.99 * ramp)
    total = np.zeros((3, height, width))
    for row in window_starts(height, window, stride):
        for col in window_starts(width, window, stride):
            here = np.s_[row : row + window, col : col + window]
            total[(slice(None), *here)] += weights * place_dependent_scores(
                pixels[(slice(None), *here)], window
            )
    return total / total.sum(axis=0)


@pytest.mark.parametrize(("height", "width"), [(600, 300), (257, 1100), (64, 64), (70, 900)])
def test_scene_equals_the_blend_computed_at_once(tmp_path, height, width):
    pixels = noise(height, width)
    canvas = sweep(write_raster(tmp_path / "a.tif", pixels), ColorModel(patch_sensitive=1.0))
    shares = tapered_reference(pixels, 64, 43)
    np.testing.assert_allclose(canvas.confidence, shares.max(axis=0), rtol=1e-5)
    chosen = np.take_along_axis(shares, canvas.labels[None].astype(int), axis=0)[0]
    # the best class, or one that is as good
    np.testing.assert_allclose(chosen, canvas.confidence, rtol=1e-5)
    found = probabilities(canvas.labels, canvas.scores, None)
    np.testing.assert_allclose(found, shares, atol=0.51 / 4096)
    np.testing.assert_array_equal(found * 4096, np.rint(found * 4096))


def test_columns_do_not_show(tmp_path, monkeypatch):
    path = write_raster(tmp_path / "a.tif", noise(300, 1300, seed=2))
    results = []
    for columns in (4, 12, 100):  # 256, 768 and all pixels wide
        monkeypatch.setattr(parts, "_COLUMN_WINDOWS", columns)
        results.append(sweep(path, ColorModel(patch_sensitive=1.0)))
    for canvas in results[1:]:
        np.testing.assert_array_equal(canvas.labels, results[0].labels)
        np.testing.assert_allclose(canvas.confidence, results[0].confidence, rtol=1e-6)


SCENES = {
    "overlap": {},
    "no overlap": {"stride": 64},
    "hardly any step": {"stride": 21, "height": 300, "width": 300},
    "large batches": {"batch_size": 16},
    "holes": {"holes": True},
    "resampled": {"resolution": 0.7, "holes": True},
    "flips": {"tta": True, "height": 300, "width": 530},
}


@pytest.mark.parametrize("kind", SCENES)
def test_parts_in_any_order_make_the_scene_to_the_last_bit(tmp_path, monkeypatch, kind):
    options = {
        "window": 64,
        "stride": 43,
        "height": 700,
        "width": 600,
        "batch_size": 4,
        "tta": False,
    } | SCENES[kind]
    pixels = noise(options.pop("height"), options.pop("width"), seed=3)
    if options.pop("holes", False):
        pixels[:, 200:420, 100:500] = 0
        pixels[:, 580:, :300] = 0
    path = write_raster(tmp_path / "a.tif", pixels, nodata=0)
    monkeypatch.setattr(parts, "_COLUMN_WINDOWS", 5)
    monkeypatch.setattr(parts, "_BAND_WINDOWS", 3)
    model = BatchSensitive()
    expected = sweep(path, model, **options)
    resolution = options.pop("resolution", None)
    with Scene(path, resolution=resolution) as scene:
        cut = list(scene_parts(scene.grid, options["window"], 3))
        random.Random(0).shuffle(cut)
        canvas = Canvas(expected.labels.shape)
        for part in cut:
            predict_part(scene, part, model, PROCESSOR, canvas.write, **options)
    assert len(cut) >= 2
    assert (canvas.writes == 1).all()
    np.testing.assert_array_equal(canvas.labels, expected.labels)
    known = expected.labels != 255
    np.testing.assert_array_equal(canvas.scores[:, known], expected.scores[:, known])
    assert 0 < known.mean() <= 1


class BatchSensitive(ColorModel):
    """Its answers depend on the company a window has in its batch, as those of real kernels do in the last digits."""

    def forward(self, pixel_values):
        outputs = super().forward(pixel_values)
        outputs.masks_queries_logits = outputs.masks_queries_logits + 1e-3 * pixel_values.mean()
        return outputs


def test_borders_of_parts(tmp_path):
    with Scene(write_raster(tmp_path / "a.tif", noise(3000, 2100)[:1], transform=None)) as scene:
        cut = list(scene_parts(scene.grid, 64, 3))
    borders = sorted({value for part in cut for value in (part.left, part.right)})
    assert borders == [
        0,
        768,
        1536,
        2100,
    ]  # three columns of at most 16 windows, or the next multiple of 256
    assert sorted({value for part in cut for value in (part.top, part.bottom)}) == [
        0,
        768,
        1536,
        2304,
        3000,
    ]
    assert [(part.left, part.top) for part in cut[:2]] == [(0, 0), (0, 768)]
    runs = list(joined(cut, itself))
    assert [len(run) for run in runs] == [4, 4, 4]
    assert whole(runs[1]) == parts.Part(0, 3000, 768, 1536)
    assert [len(run) for run in joined([*cut[:1], *cut[2:5]], itself)] == [1, 2, 1]


@pytest.mark.parametrize(("window", "stride"), [(256, 171), (512, 341), (1024, 683)])
def test_few_windows_are_computed_twice(tmp_path, window, stride):
    grid = FakeGrid(50_000)
    once = len(window_starts(50_000, window, stride)) ** 2
    cut = scene_parts(grid, window, 6)
    swept = sum(count_windows(grid, whole(run), window, stride) for run in joined(cut, itself))
    alone = sum(count_windows(grid, part, window, stride) for part in cut)
    assert swept <= 1.1 * once
    assert alone <= 1.1 * swept


def test_windows_of_a_part_are_those_of_the_whole_that_touch_it():
    for size in (5, 64, 300):
        grid = FakeGrid(size)
        for window, stride in ((64, 43), (64, 64), (64, 7), (256, 171)):
            side = min(window, -(-size // 16) * 16)
            starts = window_starts(size, side, stride)
            for part in (
                parts.Part(0, size, 0, size),
                parts.Part(size // 3, size // 2 + 1, size - 1, size),
            ):
                rows = [start for start in starts if part.top - side < start < part.bottom]
                cols = [start for start in starts if part.left - side < start < part.right]
                assert count_windows(grid, part, window, stride) == len(rows) * len(cols)
                batches = parts.part_batches(grid, part, window, stride, 3)
                assert [(b.row, col) for b in batches for col in b.cols] == [
                    (row, col) for row in rows for col in cols
                ]


class FakeGrid:
    def __init__(self, side):
        self.width = self.height = side


def test_many_classes_make_narrow_columns():
    def widest(classes):
        return max(part.right - part.left for part in scene_parts(FakeGrid(30_000), 512, classes))

    assert widest(6) == 7680  # a quarter of the scene, less than 16 windows
    assert widest(60) < 2048
    assert widest(10_000) == 1536  # three windows


def test_no_data_is_neither_seen_nor_mapped(tmp_path):
    pixels = np.full((3, 300, 300), 10, np.uint8)
    pixels[1] = 250
    pixels[:, :, :200] = 0
    model = ColorModel()
    canvas = sweep(write_raster(tmp_path / "a.tif", pixels, nodata=0), model)
    assert (canvas.labels[:, :200] == 255).all()
    assert np.isnan(canvas.confidence[:, :200]).all()
    assert np.isnan(probabilities(canvas.labels, canvas.scores, None)[:, :, :200]).all()
    assert (canvas.labels[:, 200:] == 1).all()
    green, other = sigmoid(8 * (250 / 255 - 0.5)), sigmoid(8 * (10 / 255 - 0.5))
    np.testing.assert_allclose(canvas.confidence[:, 200:], green / (green + 2 * other), rtol=1e-5)
    # of 7 x 7 windows, those that reach column 200
    assert sum(shape[0] for shape in model.batches) == 7 * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_no_data(tmp_path, bad):
    pixels = noise(150, 200).astype(np.float32) * 10
    clean = sweep(write_raster(tmp_path / "clean.tif", pixels), ColorModel())
    pixels[1, 40:60, 70:75] = bad
    spoilt = sweep(write_raster(tmp_path / "spoilt.tif", pixels), ColorModel())
    hole = np.zeros((150, 200), bool)
    hole[40:60, 70:75] = True
    np.testing.assert_array_equal(spoilt.labels == 255, hole)
    assert (spoilt.labels == clean.labels)[~hole].mean() > 0.99  # the stretch moves by a hair


def test_no_data_enters_the_model_as_the_mean(tmp_path):
    pixels = np.full((3, 64, 64), 200, np.uint8)
    pixels[:, 10:20] = 0
    with Scene(write_raster(tmp_path / "a.tif", pixels, nodata=0)) as scene:
        values = normalize(scene.read(0, 0, 64, 64), PROCESSOR)
    assert (values[:, 10:20] == 0).all()
    expected = PROCESSOR(images=[pixels.transpose(1, 2, 0)], return_tensors="pt", do_pad=False)[
        "pixel_values"
    ][0]
    torch.testing.assert_close(values[:, 30:], expected[:, 30:])


def test_progress_counts_every_window(tmp_path):
    told, model = [], ColorModel()
    path = write_raster(tmp_path / "a.tif", noise(300, 1300))
    with Scene(path) as scene:
        runs = joined(scene_parts(scene.grid, 64, 3), itself)
        total = sum(count_windows(scene.grid, whole(run), 64, 43) for run in runs)
    with counted_windows(total, shown=False, tell=lambda *numbers: told.append(numbers)) as count:
        sweep(path, model, on_batch=count)
    assert told[-1] == (total, total)
    assert total == sum(shape[0] for shape in model.batches)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_equal_scores_take_the_first_class(tmp_path):
    canvas = sweep(
        write_raster(tmp_path / "a.tif", np.full((3, 70, 70), 90, np.uint8)), ColorModel()
    )
    assert (canvas.labels == 0).all()


class Stopped(Exception):
    pass


@pytest.mark.parametrize("place", ["model", "writer", "counter"])
@pytest.mark.parametrize("error", [Stopped, KeyboardInterrupt])
def test_what_a_thread_raises_ends_the_sweep(tmp_path, place, error):
    path = write_raster(tmp_path / "a.tif", noise(600, 300))
    calls = {"model": 0, "writer": 0, "counter": 0}
    before = threading.enumerate()  # other tests' libraries may keep threads

    def raising(name):
        calls[name] += 1
        if name == place and calls[name] == 2:
            raise error

    class Model(ColorModel):
        def forward(self, pixel_values):
            raising("model")
            return super().forward(pixel_values)

    with Scene(path) as scene, pytest.raises(error):
        predict_part(
            scene,
            whole(list(scene_parts(scene.grid, 64, 3))),
            Model(),
            PROCESSOR,
            lambda *_: raising("writer"),
            window=64,
            stride=43,
            on_batch=lambda _: raising("counter"),
        )
    assert calls[place] == 2
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith("ThreadPoolExecutor") and thread not in before
    ]
