"""The processor's contracts: sizes, numbers, labels, Earth-Style Injection, scores and label maps."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.model.earth_style import EarthStyle, StyleSettings, image_seed
from crossearth_hf.model.semantic_scores import semantic_scores

RNG = np.random.default_rng(0)


def image(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_normalization_by_hand_and_padding_with_zero():
    pixels = image(20, 33)
    batch = CrossEarthImageProcessor()(pixels, return_tensors="pt")["pixel_values"]
    assert batch.shape == (1, 3, 32, 48)
    assert batch.dtype == torch.float32
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    np.testing.assert_allclose(
        batch[0, :, :20, :33].permute(1, 2, 0), (pixels - mean) / std, rtol=1e-4, atol=1e-5
    )
    assert batch[0, :, 20:].abs().max() == 0
    assert batch[0, :, :, 33:].abs().max() == 0


def test_labels_keep_their_ids_and_are_padded_with_255():
    maps = RNG.choice(np.array([0, 1, 2, 255], dtype=np.uint8), (20, 33))
    labels = CrossEarthImageProcessor()(image(20, 33), maps, return_tensors="pt")["labels"]
    assert labels.shape == (1, 32, 48)
    assert labels.dtype == torch.int64
    np.testing.assert_array_equal(labels[0, :20, :33], maps)
    assert (labels[0, 20:] == 255).all()
    assert (labels[0, :, 33:] == 255).all()


def test_a_batch_of_sizes_and_kinds_is_padded_to_the_largest():
    gray = Image.fromarray(image(10, 12)[..., 0])
    rgba = Image.fromarray(np.dstack([image(40, 20), np.full((40, 20), 9, np.uint8)]))
    batch = CrossEarthImageProcessor()(
        [gray, rgba, Image.fromarray(image(5, 5))], return_tensors="pt"
    )
    assert batch["pixel_values"].shape == (3, 3, 48, 32)


def test_resizing_is_off_unless_asked():
    assert CrossEarthImageProcessor()(image(64, 80), return_tensors="pt")["pixel_values"].shape == (
        1,
        3,
        64,
        80,
    )
    processor = CrossEarthImageProcessor(do_resize=True, size={"height": 32, "width": 40})
    batch = processor(
        image(64, 80), RNG.integers(0, 3, (64, 80), dtype=np.uint8), return_tensors="pt"
    )
    assert batch["pixel_values"].shape == (1, 3, 32, 48)
    assert batch["labels"].shape == (1, 32, 48)
    with pytest.raises(ValueError, match="do_resize=True without a size"):
        CrossEarthImageProcessor(do_resize=True)


def test_pairs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="20 x 30 pixels has a segmentation map of 20 x 31"):
        CrossEarthImageProcessor()(image(20, 30), np.zeros((20, 31), np.uint8))
    with pytest.raises(ValueError, match="2 images but 1 segmentation maps"):
        CrossEarthImageProcessor()([image(20, 30)] * 2, [np.zeros((20, 30), np.uint8)])


def test_scores_by_hand():
    # two queries, two classes and "no object"
    classes = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]])
    masks = torch.tensor([[[[0.0]], [[2.0]]]])
    weight = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    gate = 1 / (1 + np.exp(-2))
    expected = [1 / 3 * 0.5 + weight[0] * gate, 1 / 3 * 0.5 + weight[1] * gate]
    np.testing.assert_allclose(
        semantic_scores(classes, masks, (3, 2))[0, :, 2, 1], expected, rtol=1e-6
    )


def test_scores_stay_in_float32_under_autocast():
    classes, masks = torch.randn(1, 5, 4), torch.randn(1, 5, 8, 8)
    expected = semantic_scores(classes, masks, (16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        found = semantic_scores(classes, masks, (16, 16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def outputs(height, width, blob):
    """Model outputs with class 1 inside `blob` (rows and columns of the quarter-size masks), class 0 elsewhere."""
    inside = torch.full((height // 4, width // 4), -20.0)
    inside[blob] = 20.0
    classes = torch.tensor([[[-20.0, 20.0, -20.0], [20.0, -20.0, -20.0]]])
    return SimpleNamespace(
        class_queries_logits=classes, masks_queries_logits=torch.stack([inside, -inside])[None]
    )


def test_label_maps_are_cropped_back_to_the_image():
    found = outputs(32, 48, (slice(0, 4), slice(0, 6)))
    maps = CrossEarthImageProcessor().post_process_semantic_segmentation(
        found, target_sizes=[(20, 33)]
    )
    assert maps[0].shape == (20, 33)
    assert maps[0].dtype == torch.int64
    assert (maps[0][:15, :23] == 1).all()
    assert (maps[0][17:] == 0).all()
    assert CrossEarthImageProcessor().post_process_semantic_segmentation(found)[0].shape == (32, 48)
    with pytest.raises(ValueError, match="2 target_sizes for 1 images"):
        CrossEarthImageProcessor().post_process_semantic_segmentation(
            found, target_sizes=[(20, 33)] * 2
        )
    with pytest.raises(ValueError, match="target size 64 x 80 exceeds the prepared 32 x 48 pixels"):
        CrossEarthImageProcessor().post_process_semantic_segmentation(
            found, target_sizes=[(64, 80)]
        )


def test_label_maps_of_resized_images_have_the_original_size():
    processor = CrossEarthImageProcessor(do_resize=True, size={"height": 32, "width": 40})
    # the left half of the 40 columns before padding
    found = outputs(32, 48, (slice(0, 8), slice(0, 5)))
    maps = processor.post_process_semantic_segmentation(found, target_sizes=[(64, 80)])
    assert maps[0].shape == (64, 80)
    assert (maps[0][:, :38] == 1).all()
    assert (maps[0][:, 42:] == 0).all()


def test_round_trip_through_a_folder(tmp_path):
    CrossEarthImageProcessor(size_divisor=32).save_pretrained(tmp_path)
    loaded = CrossEarthImageProcessor.from_pretrained(tmp_path)
    assert loaded(image(20, 33), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 64)


STYLED = {
    "do_earth_style_injection": True,
    "style_probability": 0.5,
    "style_alpha": 0.6,
    "style_block_size": 8,
}
MEAN, STD = (
    torch.tensor(v)[:, None, None] / 255
    for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
)


def styling_processor(**options):
    return CrossEarthImageProcessor(**(STYLED | {"style_seed": 5} | options))


def test_injection_by_hand_in_every_place_of_a_batch_of_sizes():
    images = [image(40, 50), image(33, 64), image(40, 50), image(40, 50), image(33, 64)]
    maps = [RNG.integers(0, 5, i.shape[:2], dtype=np.uint8) for i in images]
    batch = styling_processor(return_clean_pixel_values=True)(images, maps, return_tensors="pt")
    plain = CrossEarthImageProcessor()(images, maps, return_tensors="pt")
    assert torch.equal(batch["labels"], plain["labels"])
    assert torch.equal(batch["clean_pixel_values"], plain["pixel_values"])
    assert batch["styled"].dtype == torch.bool
    assert batch["pixel_values"].dtype == torch.float32
    settings, style, fired = StyleSettings(0.5, 0.6, 0.7, 8), EarthStyle.from_file(), []
    for i, pixels in enumerate(images):
        unit = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        mixed, styled = style.inject(unit, settings, [image_seed(5, i)])
        fired.append(bool(styled))
        height, width = pixels.shape[:2]
        found = batch["pixel_values"][i, :, :height, :width]
        torch.testing.assert_close(found, (mixed[0] - MEAN) / STD, rtol=0, atol=1e-4)
        assert (
            batch["pixel_values"][i, :, height:].abs().sum()
            + batch["pixel_values"][i, :, :, width:].abs().sum()
            == 0
        )
    assert batch["styled"].tolist() == fired
    assert set(fired) == {True, False}


def test_injection_is_off_unless_asked_and_repeatable_when_seeded():
    pixels = [image(32, 32)] * 2
    processor = CrossEarthImageProcessor()
    assert set(processor(pixels)) == {"pixel_values"}
    assert processor._earth_style is None
    options = STYLED | {"style_probability": 1.0}
    asked = processor(pixels, return_tensors="pt", **options, style_seed=3)["pixel_values"]
    assert torch.equal(
        processor(pixels, return_tensors="pt", **options, style_seed=3)["pixel_values"], asked
    )
    assert not torch.equal(
        processor(pixels, return_tensors="pt", **options, style_seed=4)["pixel_values"], asked
    )
    assert not torch.equal(asked[0], asked[1])
    fresh = [processor(pixels, return_tensors="pt", **options)["pixel_values"] for _ in range(2)]
    assert not torch.equal(*fresh)
    torch.manual_seed(0)
    first = processor(pixels, return_tensors="pt", **options)["pixel_values"]
    torch.manual_seed(0)
    assert torch.equal(processor(pixels, return_tensors="pt", **options)["pixel_values"], first)


STYLE_MISTAKES = {
    "probability": ({"style_probability": 1.1}, "probability 1.1 is not a number from 0 to 1"),
    "alpha": ({"style_alpha": -1.0}, "alpha -1.0"),
    "mask ratio": ({"style_mask_ratio": 2.0}, "mask_ratio 2.0"),
    "block": ({"style_block_size": 0}, "block_size 0"),
    "large block": (
        {"style_block_size": 64},
        "block_size 64 is larger than an image of 32 x 48 pixels",
    ),
    "seed": ({"style_seed": -2}, "style_seed -2 is negative"),
    "not rescaled": ({"do_rescale": False}, "cannot be styled; they must lie in"),
}


@pytest.mark.parametrize("name", STYLE_MISTAKES)
def test_injection_that_cannot_be_is_refused(name):
    options, sentence = STYLE_MISTAKES[name]
    with pytest.raises(ValueError, match=sentence):
        CrossEarthImageProcessor()(image(32, 48), **(STYLED | options))
    if name in ("probability", "alpha", "mask ratio", "block"):
        with pytest.raises(ValueError, match=sentence):
            CrossEarthImageProcessor(**options)


def test_a_saved_processor_takes_its_styles_along(tmp_path):
    processor = styling_processor(style_probability=1.0)
    processor.earth_style.replace_bank(
        torch.full((100,), 0.5), torch.eye(100), count=7, sources=["elsewhere"]
    )
    processor.save_pretrained(tmp_path)
    assert "earth_style.safetensors" in {path.name for path in tmp_path.iterdir()}
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert not [name for name in settings if name.startswith("_")]
    assert str(tmp_path) not in json.dumps(settings)
    pixels = image(32, 32)
    expected = processor(pixels, return_tensors="pt")["pixel_values"]
    for place in (tmp_path, str(tmp_path), tmp_path / "preprocessor_config.json"):
        loaded = CrossEarthImageProcessor.from_pretrained(place)
        assert loaded._earth_style is None  # until it is needed
        assert torch.equal(loaded(pixels, return_tensors="pt")["pixel_values"], expected)
        assert loaded.earth_style.bank.sources == ("elsewhere",)
    automatic = pickle.loads(pickle.dumps(AutoImageProcessor.from_pretrained(tmp_path)))
    assert torch.equal(automatic(pixels, return_tensors="pt")["pixel_values"], expected)
    automatic.save_pretrained(tmp_path)  # over the file that its styles came from
    assert torch.equal(
        CrossEarthImageProcessor.from_pretrained(tmp_path)(pixels, return_tensors="pt")[
            "pixel_values"
        ],
        expected,
    )


def test_a_folder_without_styles_falls_back_to_the_packages_own(tmp_path):
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    assert "earth_style.safetensors" not in {path.name for path in tmp_path.iterdir()}
    pixels, options = image(32, 32), STYLED | {"style_probability": 1.0, "style_seed": 1}
    loaded, unused = CrossEarthImageProcessor.from_pretrained(
        tmp_path, return_unused_kwargs=True, **options, other=1
    )
    assert unused["other"] == 1
    expected = CrossEarthImageProcessor(**options)(pixels, return_tensors="pt")["pixel_values"]
    assert torch.equal(loaded(pixels, return_tensors="pt")["pixel_values"], expected)


def bands(height, width, count=4):
    return RNG.integers(0, 256, (height, width, count), dtype=np.uint8)


def processor_of(channels, **options):
    processor = CrossEarthImageProcessor(**options)
    processor.extend_channels(channels)
    return processor


def test_further_channels_get_the_mean_of_the_others(tmp_path):
    processor = processor_of(5)
    assert list(processor.image_mean[:3]) == list(CrossEarthImageProcessor().image_mean)
    np.testing.assert_allclose(
        np.array(processor.image_mean[3:]) * 255, [(123.675 + 116.28 + 103.53) / 3] * 2
    )
    np.testing.assert_allclose(
        np.array(processor.image_std[3:]) * 255, [(58.395 + 57.12 + 57.375) / 3] * 2
    )
    processor.extend_channels(4)  # it has them
    processor.save_pretrained(tmp_path)
    loaded = CrossEarthImageProcessor.from_pretrained(tmp_path)
    assert list(loaded.image_mean) == processor.image_mean
    assert list(loaded.image_std) == processor.image_std
    assert len(processor.image_mean) == 5
    assert len(CrossEarthImageProcessor().image_mean) == 3


@pytest.mark.parametrize("count", [4, 5])
def test_images_of_more_channels_are_normalized_as_they_are(count):
    processor, pixels = processor_of(count), bands(20, 33, count)
    expected = (pixels / 255 - np.array(processor.image_mean)) / np.array(processor.image_std)
    for given in (pixels, pixels.transpose(2, 0, 1), torch.from_numpy(pixels)):
        batch = processor(given, np.zeros((20, 33), np.uint8), return_tensors="pt")
        assert batch["pixel_values"].shape == (1, count, 32, 48)
        np.testing.assert_allclose(
            batch["pixel_values"][0, :, :20, :33].permute(1, 2, 0), expected, rtol=1e-4, atol=1e-5
        )
        assert batch["labels"].shape == (1, 32, 48)


def test_a_fourth_channel_is_resized_as_a_band_not_as_transparency():
    size = {"height": 32, "width": 48}
    pixels = bands(64, 80)
    pixels[..., 3] = 0  # transparency of 0 would blacken the others
    found = processor_of(4, do_resize=True, size=size)(pixels, return_tensors="pt")["pixel_values"][
        0
    ]
    rgb = CrossEarthImageProcessor(do_resize=True, size=size)(pixels[..., :3], return_tensors="pt")[
        "pixel_values"
    ][0]
    assert found.shape == (4, 32, 48)
    assert torch.equal(found[:3], rgb)
    assert found[3].std() < 1e-6


@pytest.mark.parametrize(
    "pixels", [bands(20, 30, 3), bands(20, 30, 5), Image.fromarray(bands(20, 30, 3))]
)
def test_images_of_other_channels_are_refused(pixels):
    with pytest.raises(
        ValueError,
        match=r"an image of shape .* and an image_mean of 4 channels do not fit together",
    ):
        processor_of(4)(pixels)


def test_styles_are_for_rgb_alone():
    with pytest.raises(
        ValueError, match="an image of 4 channels cannot be styled: Earth styles are those of RGB"
    ):
        processor_of(4)(bands(32, 32), **STYLED)
