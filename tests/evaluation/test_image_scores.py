"""Reports of a model that is known pixel by pixel."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.data.labeled_images import PartialLabels
from crossearth_hf.data.sources import ArrayPair
from crossearth_hf.evaluation import image_scores as evaluation
from crossearth_hf.labels import get_label_set

LAND_COVER = get_label_set("land-cover")


class BrightnessModel(nn.Module):
    """Says class 3 where a 4x4 block is bright, else class 0: one query per class, masks at a quarter's resolution."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(
            num_labels=5, ground_sampling_distance=None, confidence_temperature=None
        )
        self.anchor, self.dtype = nn.Parameter(torch.zeros(())), torch.float32

    def forward(self, pixel_values):
        assert not self.training
        bright = nn.functional.avg_pool2d(pixel_values.mean(1, keepdim=True), 4)  # (B, 1, h, w)
        classes = torch.full((len(pixel_values), 2, 6), -20.0)
        classes[:, 0, 0] = classes[:, 1, 3] = 20.0
        return SimpleNamespace(
            class_queries_logits=classes, masks_queries_logits=torch.cat([-bright, bright], 1) * 50
        )


def half_bright(height, width):
    """Left half dark, right half bright; truth says class 0 and class 3, a bright stripe is labeled 1, one row 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    labels = np.where(image[..., 0] > 0, 3, 0).astype(np.uint8)
    labels[:8, width // 2 :] = 1
    labels[-1] = 255
    return ArrayPair("half", image, labels)


def scored(model, images, processor=None, **options):
    """The report of a model on images."""
    confusion = evaluation.predict_confusion(
        model,
        processor or CrossEarthImageProcessor(),
        images,
        LAND_COVER,
        progress=False,
        **options,
    )
    return evaluation.confusion_scores(confusion, LAND_COVER)


@pytest.mark.parametrize("size", [(64, 96), (40, 48), (72, 104)])
def test_report_counts_every_labeled_pixel_once(size):
    model, pair = BrightnessModel().train(), half_bright(*size)
    report = scored(model, [pair, pair], window=32, stride=16, batch_size=3)
    height, half = size[0] - 1, size[1] // 2
    expected = np.zeros((5, 5), int)
    expected[0, 0], expected[1, 3], expected[3, 3] = (
        2 * height * half,
        2 * 8 * half,
        2 * (height - 8) * half,
    )
    assert report["confusion_matrix"] == expected.tolist()
    assert report["pixels"] == 2 * height * size[1]
    assert report["iou"] == {
        "land": 1.0, "building": 0.0, "road": None, "water": pytest.approx(1 - 8 / height), "vegetation": None,
    }  # fmt: skip
    assert report["mean_iou"] == pytest.approx((1 + 0 + 1 - 8 / height) / 3)
    assert report["accuracy"] == pytest.approx(1 - 4 / height)
    assert model.training


@pytest.mark.parametrize(("scale", "seen"), [(1.0, (48, 48)), (2.0, (64, 64)), (0.5, (32, 32))])
def test_images_are_scaled_and_scores_brought_back(scale, seen):
    model, shapes = BrightnessModel(), set()
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.add(kwargs["pixel_values"].shape[-2:]), with_kwargs=True
    )
    report = scored(model, [half_bright(40, 48)], window=64, stride=32, scale=scale)
    assert shapes == {seen}
    assert report["pixels"] == 39 * 48
    assert report["iou"]["land"] > 0.85  # all but the columns that bilinear scores blend


def test_a_processor_that_styles_in_training_styles_no_image_that_is_scored():
    styling = CrossEarthImageProcessor(
        do_earth_style_injection=True, style_probability=1.0, style_alpha=1.0
    )
    pair, options = half_bright(40, 48), {"window": 32, "stride": 16}
    assert scored(BrightnessModel(), [pair], styling, **options) == scored(
        BrightnessModel(), [pair], **options
    )


def test_images_that_know_their_pixel_size_are_scored_at_the_models():
    model, shapes = BrightnessModel(), set()
    model.config.ground_sampling_distance = 1.0
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.add(kwargs["pixel_values"].shape[-2:]), with_kwargs=True
    )
    pair = dataclasses.replace(half_bright(40, 48), pixel_size=0.5)
    report = scored(model, [pair], window=64, stride=32)
    assert shapes == {(32, 32)}  # 20 x 24 pixels of a meter, padded
    assert report["pixels"] == 39 * 48


def test_confidence_is_the_top_scores_share():
    scores = torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]], [[0.0, 2.0]]])
    said = evaluation.Prediction(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2), np.uint8), scores)
    assert said.classes().tolist() == [[0, 2]]
    assert said.confidence().tolist() == [[0.75, 0.5]]
    nothing = evaluation.Prediction(said.image, said.labels, torch.zeros(3, 1, 2))
    assert nothing.confidence().tolist() == [[0, 0]]


def test_predictions_of_classes_that_an_image_does_not_label_count_as_the_first():
    """The model says class 3 on the right; the image labels class 1 alone, in a stripe there."""
    image = half_bright(64, 96)
    labels = np.where(image.labels == 1, 1, 255).astype(np.uint8)
    partly = dataclasses.replace(image, labels=labels, partial=PartialLabels((1,), complete=True))
    options = {"window": 64, "stride": 32}
    confusion = evaluation.predict_confusion(
        BrightnessModel(),
        CrossEarthImageProcessor(),
        [partly],
        LAND_COVER,
        progress=False,
        **options,
    )
    stripe = 8 * 48
    assert confusion[1].tolist() == [stripe, 0, 0, 0, 0]
    assert confusion[0].tolist() == [64 * 96 - stripe, 0, 0, 0, 0]
    classes = evaluation.labeled_classes([partly], LAND_COVER)
    report = evaluation.confusion_scores(confusion, LAND_COVER, classes)
    assert classes == ("building",)
    assert report["mean_iou"] == 0
    assert report["iou"] == {
        name: 0.0 if name == "building" else None for name in LAND_COVER.classes
    }
    assert evaluation.labeled_classes([partly, image], LAND_COVER) == LAND_COVER.classes


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_pixels_without_data_are_the_image_mean(scale):
    image = half_bright(64, 96)
    valid = np.zeros((64, 96), bool)
    valid[:, 16:] = True
    seen = []

    class Watched(BrightnessModel):
        def forward(self, pixel_values):
            seen.append(pixel_values)
            return super().forward(pixel_values)

    options = {"window": 96, "stride": 96, "scale": scale}
    scored(Watched(), [dataclasses.replace(image, valid=valid)], **options)
    border = int(16 * scale)
    assert (seen[0][..., :border] == 0).all()
    assert (seen[0][..., border:] != 0).all()


def test_classes_without_labels_count_as_the_first():
    table = evaluation.scored_ids(LAND_COVER, ["building", "vegetation"])
    assert table[:5].tolist() == [0, 1, 0, 0, 4]
    assert table[255] == 255
    assert evaluation.scored_ids(LAND_COVER, LAND_COVER.classes)[:5].tolist() == [0, 1, 2, 3, 4]


def test_report_of_nothing_is_json():
    report = evaluation.confusion_scores(np.zeros((5, 5), np.int64), LAND_COVER)
    assert json.loads(json.dumps(report, allow_nan=False))["mean_iou"] is None
