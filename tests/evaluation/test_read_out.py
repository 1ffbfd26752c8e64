"""Factors on the scores of classes and the temperature: what they do, and how they are chosen."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rasters import write_raster
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.data.labeled_images import ArrayPair, PartialLabels
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.image_scores import predict_image
from crossearth_hf.evaluation.read_out import (
    ScoredPixels,
    choose_factors,
    choose_temperature,
    score_pixels,
)
from crossearth_hf.inference.arrays import predict_array
from crossearth_hf.inference.loading import load_model
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.semantic_scores import semantic_scores
from crossearth_hf.prediction.blending import confidences
from crossearth_hf.training.adaptation import extend_channels

LAND_COVER = get_label_set("land-cover")
FACTORS = [0.5, 1.0, 0.25, 0.75, 1.0, 1.0]


def scores(model, images):
    with torch.no_grad():
        output = model(images)
    return semantic_scores(
        output.class_queries_logits, output.masks_queries_logits, (64, 64)
    ), output


def test_scores_are_multiplied_by_the_factors():
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    images = torch.randn(2, 3, 64, 64)
    plain, _ = scores(model, images)
    model.config.class_factors = FACTORS
    weighted, output = scores(model, images)
    torch.testing.assert_close(
        weighted, plain * torch.tensor(FACTORS)[:, None, None], rtol=1e-4, atol=1e-6
    )
    small = semantic_scores(output.class_queries_logits, output.masks_queries_logits, (16, 16))
    torch.testing.assert_close(output.logits, small)


def test_the_loss_does_not_heed_them():
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    labels = torch.randint(0, 6, (1, 64, 64))
    losses = []
    for factors in (None, FACTORS):
        model.config.class_factors = factors
        torch.manual_seed(1)
        losses.append(model(torch.ones(1, 3, 64, 64), labels=labels).loss)
    assert losses[0].equal(losses[1])


@pytest.mark.parametrize("factors", [[1.0] * 5, [0.0] + [1.0] * 5, [1.5] + [1.0] * 5])
def test_senseless_factors_are_refused(factors):
    with pytest.raises(ValueError, match=r"class_factors .* must be 6 numbers above 0, at most 1"):
        tiny_config(class_factors=factors)


def test_a_missed_class_gets_a_larger_factor():
    """Class 1 has 0.4 where it is true and 0.1 elsewhere; class 0 has the rest: argmax never finds class 1."""
    truth = np.repeat(np.array([0, 1], np.uint8), 500)
    values = np.zeros((1000, 5), np.float32)
    values[:, 1] = np.where(truth == 1, 0.4, 0.1)
    values[:, 0] = 1 - values[:, 1]
    sets = {"roofs": ScoredPixels(values, truth, ("land", "building"))}
    told = []
    factors = choose_factors(sets, LAND_COVER, told.append)
    assert factors.max() == 1
    assert 0.6 / 0.4 < factors[1] / factors[0] < 0.9 / 0.1
    assert told == ["roofs: mean IoU 25.0 -> 100.0"]
    assert factors[2:].tolist() == [factors[2]] * 3  # classes that are nowhere keep theirs


def test_partly_labeled_sets_count_the_rest_as_one_class():
    values = np.eye(5, dtype=np.float32)[[1, 2, 3, 0]]
    pixels = ScoredPixels(values, np.array([1, 0, 0, 0], np.uint8), ("building",))
    assert pixels.mean_iou(np.ones(5), LAND_COVER) == 1.0
    wrong = ScoredPixels(values[[0, 0, 1, 2]], np.array([1, 0, 0, 0], np.uint8), ("building",))
    assert wrong.mean_iou(np.ones(5), LAND_COVER) == 0.5


def test_the_temperature_of_a_model_that_is_too_sure():
    """Shares of 0.9 that are right in 75 % of the pixels: a temperature t with 9 ** (1 / t) = 3 makes them 0.75."""
    truth = np.repeat(np.array([0, 0, 0, 1], np.uint8), 250)
    values = np.tile(np.array([9.0, 1.0, 0.0, 0.0, 0.0], np.float32), (1000, 1))
    told = []
    sets = {"roofs": ScoredPixels(values, truth, LAND_COVER.classes)}
    assert choose_temperature(sets, np.ones(5), LAND_COVER, told.append) == 2.0
    assert told == ["roofs: calibration error 15.0 -> 0.0 %"]


def test_confidence_counts_classes_without_labels_as_one():
    values = np.array([[1, 4, 2, 1, 0]], np.float32)
    pixels = ScoredPixels(values, np.array([1], np.uint8), ("building",))
    np.testing.assert_allclose(pixels.shares(np.ones(5), 1.0, LAND_COVER), [[0.5, 0.5, 0, 0, 0]])
    squared = np.array([[1 + 4 + 1, 16, 0, 0, 0]]) / 22
    np.testing.assert_allclose(pixels.shares(np.ones(5), 0.5, LAND_COVER), squared, rtol=1e-6)


def test_a_temperature_changes_confidences_everywhere_and_no_class():
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    arguments = (image, model, CrossEarthImageProcessor())
    plain = predict_array(*arguments)
    model.config.confidence_temperature = 2.0
    flat = predict_array(*arguments)
    roots = np.sqrt(plain.astype(np.float64))
    np.testing.assert_allclose(flat, roots / roots.sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(flat.argmax(-1), plain.argmax(-1))
    pair = ArrayPair("a", image, np.zeros((64, 64), np.uint8))
    predicted = predict_image(model, CrossEarthImageProcessor(), pair, window=64, stride=64)
    np.testing.assert_allclose(predicted.confidence(), flat.max(-1), rtol=1e-5)
    labels = np.zeros((64, 64), np.uint8)
    written = confidences(labels, np.ascontiguousarray(plain.transpose(2, 0, 1)), 2.0)
    np.testing.assert_allclose(written, flat.max(-1), rtol=1e-5)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "1"])
def test_senseless_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match=r"confidence_temperature .* must be a positive number"):
        tiny_config(confidence_temperature=temperature)


def test_sets_that_cannot_be_scored_are_refused():
    labels = np.full((8, 8), 255, np.uint8)
    labels[:4] = 1
    image = np.zeros((8, 8, 3), np.uint8)
    open_ended = ArrayPair("a", image, labels, partial=PartialLabels((1,), False))
    complete = ArrayPair("b", image, labels, partial=PartialLabels((1,), True))
    model = CrossEarthForSemanticSegmentation(tiny_config(num_labels=5)).eval()
    options = {"window": 64, "stride": 64, "progress": False}
    with pytest.raises(InputError, match="label only building and no pixel of another class"):
        score_pixels(model, CrossEarthImageProcessor(), [open_ended], LAND_COVER, **options)
    with pytest.raises(InputError, match="label different classes"):
        score_pixels(
            model, CrossEarthImageProcessor(), [open_ended, complete], LAND_COVER, **options
        )
    scored = score_pixels(model, CrossEarthImageProcessor(), [complete], LAND_COVER, **options)
    assert (scored.scores.shape, scored.classes) == ((64, 5), ("building",))
    assert np.bincount(scored.labels).tolist() == [32, 32]


def test_the_command_writes_a_model_with_factors(tmp_path, capsys):
    torch.manual_seed(0)
    start, out = tmp_path / "start", tmp_path / "out"
    labels = {"id2label": LAND_COVER.id2label, "label2id": LAND_COVER.label2id}
    CrossEarthForSemanticSegmentation(tiny_config(num_labels=5, **labels)).save_pretrained(start)
    CrossEarthImageProcessor().save_pretrained(start)
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(
        tmp_path / "data" / "images" / "a.png"
    )
    mask = np.repeat(np.arange(4, dtype=np.uint8), 1024).reshape(64, 64)
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "a.png")
    before = (start / "config.json").read_bytes()
    assert main(["calibrate", str(start), str(out), "--data", str(tmp_path / "data")]) == 0
    said = capsys.readouterr()
    assert "mean IoU" in said.err
    assert said.out.startswith("factors: land ")
    model, _ = load_model(out)
    assert max(model.config.class_factors) == 1
    assert f"temperature of the confidence: {model.config.confidence_temperature:g}" in said.out
    assert json.loads((start / "config.json").read_bytes()) == json.loads(before)
    assert main(["calibrate", str(start), str(out), "--data", str(tmp_path / "data")]) == 2
    assert "exists" in capsys.readouterr().err


def test_masks_in_other_values_are_calibrated_on_and_a_folder_of_data_is_safe(tmp_path, capsys):
    torch.manual_seed(0)
    start, data = tmp_path / "start", tmp_path / "data"
    labels = {"id2label": {0: "ground", 1: "roof"}, "label2id": {"ground": 0, "roof": 1}}
    CrossEarthForSemanticSegmentation(tiny_config(num_labels=2, **labels)).save_pretrained(start)
    CrossEarthImageProcessor().save_pretrained(start)
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(data / "images" / "a.png")
    Image.fromarray(np.repeat(np.array([0, 255], np.uint8), 2048).reshape(64, 64)).save(
        data / "masks" / "a.png"
    )
    values = ["--mask-values", "0,255"]

    def run(out, *flags):
        return main(["calibrate", str(start), str(out), "--data", str(data), *flags])

    assert run(tmp_path / "out") == 2
    assert "add --mask-values 0,255" in capsys.readouterr().err
    assert run(tmp_path / "out", *values) == 0
    assert len(load_model(tmp_path / "out")[0].config.class_factors) == 2
    capsys.readouterr()
    assert run(data, *values, "--overwrite") == 2
    said = capsys.readouterr().err
    assert "would be lost" in said
    assert "mean IoU" not in said  # it is refused before the work
    assert (data / "masks" / "a.png").exists()


def test_four_bands_and_values_without_data(tmp_path, capsys):
    torch.manual_seed(0)
    start, data = tmp_path / "start", tmp_path / "data"
    labels = {"id2label": {0: "ground", 1: "roof"}, "label2id": {"ground": 0, "roof": 1}}
    model = CrossEarthForSemanticSegmentation(tiny_config(num_labels=2, **labels))
    processor = CrossEarthImageProcessor()
    extend_channels(model, 4)
    processor.extend_channels(4)
    model.save_pretrained(start)
    processor.save_pretrained(start)
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(1, 255, (5, 64, 64), np.uint8)
    pixels[:, :, 40:] = 0
    write_raster(data / "images" / "a.tif", pixels)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 40:] = 1
    Image.fromarray(mask).save(data / "masks" / "a.png")

    def run(out, *flags):
        return main(["calibrate", str(start), str(out), "--data", str(data), *flags])

    assert run(tmp_path / "out") == 0
    assert run(tmp_path / "bands", "--bands", "5,4,3,2") == 0
    capsys.readouterr()
    assert run(tmp_path / "three", "--bands", "1,2,3") == 2
    assert "a model of 4 channels" in capsys.readouterr().err
    assert run(tmp_path / "nodata", "--nodata", "0") == 2  # without data, no roof is left
    assert "no pixel of another class" in capsys.readouterr().err
