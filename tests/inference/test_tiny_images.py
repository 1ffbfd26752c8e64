"""Images, scenes and windows of any size, from one pixel on, and batches of several sizes."""

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image
from tiny_model import tiny_config
from transformers import pipeline

from crossearth_hf import (
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
    CrossEarthModel,
)
from crossearth_hf.cli import main
from crossearth_hf.data.labeled_images import ArrayPair
from crossearth_hf.evaluation.image_scores import predict_confusion
from crossearth_hf.inference.windows import resolve_window, sliding_window_scores
from crossearth_hf.labels import label_set_for
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining
from crossearth_hf.model.semantic_scores import semantic_scores
from crossearth_hf.raster.writing import write_geotiff
from crossearth_hf.training.baseline import FeaturePyramidSegmenter

SIDES = (1, 16, 17, 33)
PROCESSOR = CrossEarthImageProcessor()


def build(model_class=CrossEarthForSemanticSegmentation, **overrides):
    torch.manual_seed(0)
    return model_class(tiny_config(**overrides)).eval()


MODELS = {
    "plain ViT": build,
    "hybrid": lambda: build(convolutional_stem=True),
    "peer": lambda: build(FeaturePyramidSegmenter),
}


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scores(model, images):
    """(K, h, w) scores of every image, cut to its size."""
    output = model(**PROCESSOR(images, return_tensors="pt"))
    masks = output.masks_queries_logits
    size = tuple(4 * side for side in masks.shape[-2:])
    found = semantic_scores(output.class_queries_logits, masks, size)
    return [
        score[:, : image.shape[0], : image.shape[1]]
        for score, image in zip(found, images, strict=True)
    ]


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_every_small_size_gives_the_scores_of_the_padded_image(kind):
    model = MODELS[kind]()
    for height in SIDES:
        for width in SIDES:
            image = picture(height, width)
            (found,) = scores(model, [image])
            assert found.shape == (6, height, width)
            inputs = PROCESSOR(image, return_tensors="pt")["pixel_values"]
            rows, cols = inputs.shape[-2:]
            enlarged = torch.zeros(1, 3, max(32, rows), max(32, cols))
            enlarged[..., :rows, :cols] = inputs
            output, full = model(inputs), model(enlarged)
            expected = full.masks_queries_logits[..., : rows // 4, : cols // 4]
            torch.testing.assert_close(output.masks_queries_logits, expected, rtol=0, atol=0)
            torch.testing.assert_close(
                output.class_queries_logits, full.class_queries_logits, rtol=0, atol=0
            )


@torch.no_grad()
def test_features_of_small_images_are_those_of_padded_ones(config):
    features = CrossEarthModel(config).eval()(torch.zeros(1, 3, 16, 64))
    assert [tuple(m.shape[-2:]) for m in features.feature_maps] == [(8, 16), (4, 8), (2, 4), (1, 2)]


@pytest.mark.parametrize("kind", MODELS)
def test_small_images_are_learned_from(kind):
    model = MODELS[kind]().train()
    loss = model(torch.randn(2, 3, 16, 48), labels=torch.randint(0, 6, (2, 16, 48))).loss
    loss.backward()
    assert torch.isfinite(loss)


def test_multi_task_training_takes_small_images():
    model = build(CrossEarthForMultiTaskTraining, mim_block_size=16)
    output = model(torch.randn(2, 3, 16, 16), labels=torch.zeros(2, 16, 16, dtype=torch.long))
    assert output.reconstruction.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_sliding_windows_take_small_images(kind):
    for height, width in ((1, 1), (1, 70), (70, 1), (16, 40)):
        found = sliding_window_scores(MODELS[kind](), torch.randn(1, 3, height, width), 32, 20)
        assert found.shape == (1, 6, height, width)


def test_windows_are_no_smaller_than_the_model_needs(config):
    assert resolve_window(config, 1, None) == (32, round(32 * 43 / 64))
    assert resolve_window(config, 16, None)[0] == 32
    assert resolve_window(config, 33, None)[0] == 48


def test_evaluation_counts_every_pixel_of_small_images(model):
    images = [
        ArrayPair(f"{h}x{w}", picture(h, w), np.zeros((h, w), np.uint8))
        for h, w in ((1, 1), (3, 90), (16, 16))
    ]
    counts = predict_confusion(
        model,
        PROCESSOR,
        images,
        label_set_for(model.config.id2label),
        window=32,
        stride=20,
        progress=False,
    )
    assert counts.sum() == 1 + 270 + 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    build(convolutional_stem=True).save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def test_transformers_pipeline_takes_one_pixel(folder):
    model = CrossEarthForSemanticSegmentation.from_pretrained(folder)
    segment = pipeline("image-segmentation", model=model, image_processor=PROCESSOR)
    (found,) = segment(Image.fromarray(picture(1, 1)))
    assert found["mask"].size == (1, 1)


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [
        (1, 1, []),
        (1, 300, ["--window", "16"]),
        (40, 3, ["--tta"]),
        (90, 70, ["--window", "16", "--stride", "16"]),
        (40, 50, ["--resolution", "60"]),  # one pixel remains
        (2, 3, ["--resolution", "0.1"]),
    ],
)
def test_scenes_of_any_size_become_maps(folder, tmp_path, capsys, height, width, options):
    place = Affine(1, 0, 5e5, 0, -1, 5e6)
    write_geotiff(
        tmp_path / "s.tif",
        picture(height, width).transpose(2, 0, 1),
        crs="EPSG:32632",
        transform=place,
    )
    files = {"confidence": "c.tif", "probabilities": "p.tif", "preview": "v.png"}
    extras = [word for name, file in files.items() for word in (f"--{name}", tmp_path / file)]
    arguments = [
        tmp_path / "s.tif",
        tmp_path / "m.tif",
        "--model",
        folder,
        "--device",
        "cpu",
        *extras,
        *options,
    ]
    assert main(["predict", *map(str, arguments)]) == 0
    said = capsys.readouterr().err
    assert ("window 16 is below the least of 32 pixels: 32 is used" in said) == (
        "--window" in options
    )
    with rasterio.open(tmp_path / "m.tif") as found:
        assert (found.height, found.width, found.transform) == (height, width, place)
        assert found.read(1).max() < 6


@pytest.mark.parametrize("kind", ["plain ViT", "hybrid"])
@torch.no_grad()
def test_a_result_does_not_depend_on_the_rest_of_the_batch(kind):
    model = MODELS[kind]()
    images = [
        picture(h, w, seed)
        for seed, (h, w) in enumerate([(70, 90), (1, 1), (33, 120), (70, 96), (100, 40)])
    ]
    for found, image in zip(scores(model, images), images, strict=True):
        torch.testing.assert_close(found, scores(model, [image])[0], rtol=0, atol=1e-5)
    maps = PROCESSOR.post_process_semantic_segmentation(
        model(**PROCESSOR(images, return_tensors="pt")), [image.shape[:2] for image in images]
    )
    assert [found.shape for found in maps] == [image.shape[:2] for image in images]


def test_a_mask_tells_padding_for_others_alone():
    mixed = PROCESSOR([picture(20, 40), picture(50, 10)], return_tensors="pt")
    assert mixed["pixel_values"].shape == (2, 3, 64, 48)
    assert [(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in mixed["pixel_mask"]] == [
        (32, 48),
        (64, 16),
    ]
    assert "pixel_mask" not in PROCESSOR([picture(20, 40), picture(30, 33)], return_tensors="pt")


def test_images_of_several_sizes_are_learned_from(model):
    images, maps = (
        [picture(20, 40), picture(50, 10)],
        [np.zeros((20, 40), np.uint8), np.ones((50, 10), np.uint8)],
    )
    inputs = PROCESSOR(images, segmentation_maps=maps, return_tensors="pt")
    output = model.train()(**inputs)
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert all(parameter.grad is not None for parameter in model.class_predictor.parameters())
    with pytest.raises(ValueError, match="hidden states"):
        model(**inputs, output_hidden_states=True)
