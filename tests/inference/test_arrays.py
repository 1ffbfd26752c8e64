"""`predict_array`: shapes, shares, and what is not an image."""

import numpy as np
import pytest
import torch

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference.arrays import predict_array

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def test_shares_of_every_class_at_every_pixel(model):
    scores = predict_array(IMAGE, model, CrossEarthImageProcessor())
    assert (scores.shape, scores.dtype) == ((50, 70, 6), np.float32)
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-5)


def test_one_window_gives_what_the_processor_gives(model):
    image, processor = IMAGE[:48, :64], CrossEarthImageProcessor()
    scores = predict_array(image, model, processor)
    with torch.inference_mode():
        outputs = model(**processor(image, return_tensors="pt"))
    labels = processor.post_process_semantic_segmentation(outputs, target_sizes=[(48, 64)])[0]
    np.testing.assert_array_equal(scores.argmax(-1), labels.numpy())


def test_a_processor_that_styles_in_training_styles_nothing_here(model):
    styled = CrossEarthImageProcessor(
        do_earth_style_injection=True, style_probability=1.0, style_alpha=1.0
    )
    plain = predict_array(IMAGE, model, CrossEarthImageProcessor())
    np.testing.assert_array_equal(predict_array(IMAGE, model, styled), plain)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (
            IMAGE / 255,
            r"the image is float64 \(50, 70, 3\), but the model takes a uint8 array \(height, width, 3\)",
        ),
        (IMAGE[..., 0], r"uint8 \(50, 70\)"),
        (IMAGE[..., :2], r"uint8 \(50, 70, 2\)"),
        (IMAGE[:0], r"uint8 \(0, 70, 3\)"),
        ("scene.tif", "the image is 'scene.tif'"),
    ],
)
def test_what_is_no_image_is_refused(model, image, sentence):
    with pytest.raises(InputError, match=sentence):
        predict_array(image, model, CrossEarthImageProcessor())


def test_numbers_that_are_none_are_refused(model):
    with pytest.raises(InputError, match="batch size 0"):
        predict_array(IMAGE, model, CrossEarthImageProcessor(), batch_size=0)
    with pytest.raises(InputError, match="window 0"):
        predict_array(IMAGE, model, CrossEarthImageProcessor(), window=0)
