"""What the image processor is given: nothing is read wrong without a word, judged by Pillow and numpy."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from crossearth_hf import CrossEarthImageProcessor

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 33, 3), dtype=np.uint8)
MAP = RNG.choice(np.array([0, 1, 2, 4, 255], np.uint8), (20, 33))
GRAY = PIXELS[..., 0]


def values_of(image, **options):
    """(3, 20, 33) normalized values of one image."""
    return CrossEarthImageProcessor(**options)(image, return_tensors="np")["pixel_values"][0][
        :, :20, :33
    ]


def labels_of(maps, images=PIXELS, **options):
    """(20, 33) ids of one map."""
    return CrossEarthImageProcessor(**options)(images, maps, return_tensors="np")["labels"][0][
        :20, :33
    ]


def normalized(pixels):
    """By hand: (H, W, 3) in 0..255."""
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    return ((pixels - mean) / std).transpose(2, 0, 1)


COLORS = np.dstack([MAP] * 3)
NO_MAPS = {
    "RGB array": (COLORS, r"shape \(20, 33, 3\) holds colors"),
    "RGB array, channels first": (COLORS.transpose(2, 0, 1), "holds colors"),
    "RGB array in a list": ([COLORS], "holds colors"),
    "RGBA array": (np.dstack([COLORS, MAP]), "holds colors"),
    "RGB picture": (Image.fromarray(COLORS), "of mode RGB is read as color"),
    "gray with alpha": (Image.fromarray(MAP).convert("LA"), "of mode LA is read as color"),
    "path": ("mask.png", "of a path or address is read as color"),
    "fractions": (MAP * 0.5, "holds fractions"),
    "NaN": (np.where(MAP == 1, np.nan, MAP), "holds fractions"),
    "infinity": (np.where(MAP == 1, np.inf, MAP), "holds fractions"),
    "text": (MAP.astype(str), "holds no class ids"),
    "negative": (np.where(MAP == 1, -100, MAP.astype(int)), "holds -100; .* set ignore_index=-100"),
    "beyond a byte": (MAP.astype(np.uint16) + 1, "holds 256; .* set ignore_index=256"),
    "several beyond a byte": (MAP.astype(int) - 3, "holds -3, -2, -1; .* write 255"),
    "far beyond": (np.where(MAP == 1, 2**40, MAP.astype(np.int64)), "holds 1099511627776"),
    "another size": (MAP[:, :30, None], "20 x 33 pixels has a segmentation map of 20 x 30"),
    "turned": (MAP.T, "20 x 33 pixels has a segmentation map of 33 x 20"),
    "several for one image": (np.stack([MAP] * 2), "holds colors or scores"),
    "numbers": (3, r"shape \(\) is none"),
}


@pytest.mark.parametrize("name", NO_MAPS)
def test_what_is_no_label_map_is_refused(name):
    maps, sentence = NO_MAPS[name]
    with pytest.raises(ValueError, match=sentence):
        CrossEarthImageProcessor()(PIXELS, maps)


SAME_MAP = {
    "list": [MAP],
    "channel first": MAP[None],
    "channel last": MAP[..., None],
    "channel last in a list": [MAP[..., None]],
    "picture": Image.fromarray(MAP),
    "16-bit picture": Image.fromarray(MAP.astype(np.uint16)),
    "int64 tensor": torch.from_numpy(MAP).long(),
    "whole floats": MAP.astype(np.float32),
    "bfloat16 tensor": torch.from_numpy(MAP).bfloat16(),
}


@pytest.mark.parametrize("name", SAME_MAP)
def test_label_maps_of_every_form_keep_their_ids(name):
    np.testing.assert_array_equal(labels_of(SAME_MAP[name]), MAP)


def test_a_palette_gives_the_ids_not_the_colors():
    picture = Image.fromarray(MAP)
    picture.putpalette(list(range(255, -1, -1)) * 3)
    np.testing.assert_array_equal(labels_of(picture), MAP)


@pytest.mark.parametrize("mask", [MAP == 1, Image.fromarray(MAP == 1), torch.from_numpy(MAP == 1)])
def test_masks_of_true_and_false_are_two_classes(mask):
    np.testing.assert_array_equal(labels_of(mask), (MAP == 1).astype(int))


def test_batches_of_maps_with_an_axis_of_one():
    maps = np.stack([MAP, MAP[::-1]])
    for given in (maps, maps[:, None], maps[..., None], [maps], list(maps), [[MAP], [MAP[::-1]]]):
        found = CrossEarthImageProcessor()([PIXELS] * 2, given, return_tensors="np")["labels"]
        np.testing.assert_array_equal(found[:, :20, :33], maps)


def test_an_image_one_pixel_wide_decides_which_axis_is_the_maps():
    column, row = PIXELS[:, :1], PIXELS[:1]
    options = {"input_data_format": "channels_last", "return_tensors": "np"}
    for image, ids in ((column, MAP[:, :1]), (row, MAP[:1])):
        for given in (ids, ids[None], ids[..., None]):
            found = CrossEarthImageProcessor()(image, given, **options)["labels"][0]
            np.testing.assert_array_equal(found[: len(ids), : ids.shape[1]], ids)


def test_labels_are_reduced_as_in_segformer(tmp_path):
    maps = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.zeros((16, 16, 3), np.uint8)
    expected = np.array([255, *range(254), 255]).reshape(16, 16)
    processor = CrossEarthImageProcessor(do_reduce_labels=True)
    before = maps.copy()
    np.testing.assert_array_equal(
        processor(image, maps, return_tensors="np")["labels"][0], expected
    )
    np.testing.assert_array_equal(maps, before)  # the caller's own
    processor.save_pretrained(tmp_path)
    assert (
        json.loads((tmp_path / "preprocessor_config.json").read_text())["do_reduce_labels"] is True
    )
    for loaded in (
        CrossEarthImageProcessor.from_pretrained(tmp_path),
        AutoImageProcessor.from_pretrained(tmp_path),
    ):
        np.testing.assert_array_equal(
            loaded(image, maps, return_tensors="np")["labels"][0], expected
        )
    once = CrossEarthImageProcessor()(image, maps, do_reduce_labels=True, return_tensors="np")[
        "labels"
    ][0]
    np.testing.assert_array_equal(once, expected)


@pytest.mark.parametrize(
    ("ids", "options", "expected"),
    [
        ([0, 1, 2, 255], {"ignore_index": 0}, [255, 1, 2, 255]),
        ([0, 1, 2, -100], {"ignore_index": -100}, [0, 1, 2, 255]),
        ([0, 1, 2, -100], {"ignore_index": -100, "do_reduce_labels": True}, [255, 0, 1, 255]),
        (
            [0, 1, 2, 255],
            {"ignore_index": 1, "do_reduce_labels": True},
            [255, 0, 255, 255],
        ),  # the reduced id, as there
        ([0, 1, 2, 65535], {"ignore_index": 65535}, [0, 1, 2, 255]),
    ],
)
def test_another_id_means_ignored(tmp_path, ids, options, expected):
    processor = CrossEarthImageProcessor(**options)
    processor.save_pretrained(tmp_path)
    loaded = CrossEarthImageProcessor.from_pretrained(tmp_path)
    for each in (processor, loaded):
        found = each(np.zeros((1, 4, 3), np.uint8), np.array([ids]), return_tensors="np")["labels"]
        assert found[0, 0, :4].tolist() == expected


WIDE = GRAY.astype(np.uint16) * 200
GARBAGE = {
    "uint16": (np.dstack([WIDE] * 3), {}, "pixels of 16 bits"),
    "dark uint16": (PIXELS.astype(np.uint16), {}, "pixels of 16 bits"),
    "int16": (PIXELS.astype(np.int16) - 50, {}, "pixels of 16 bits"),
    "16-bit picture": (Image.fromarray(WIDE), {}, "pixels of 16 bits"),
    "32-bit picture": (
        Image.fromarray(WIDE.astype(np.int32)),
        {},
        "from 0 to 51000 are not the 0..255",
    ),
    "float picture": (
        Image.fromarray((GRAY / 255).astype(np.float32)),
        {},
        "rescaled or normalized already",
    ),
    "floats of 0..1": (PIXELS / 255, {}, "set do_rescale=False"),
    "float16 of 0..1": (torch.from_numpy(PIXELS / 255).half(), {}, "set do_rescale=False"),
    "truth values": (PIXELS > 99, {}, "rescaled or normalized already"),
    "normalized": (normalized(PIXELS), {}, "do_normalize=False"),
    "floats above 255": (PIXELS * 20.0, {}, "from 0 to 5100 are not the 0..255"),
    "negative": (PIXELS.astype(int) - 99, {}, "are not the 0..255"),
    "NaN": (np.where(PIXELS > 200, np.nan, PIXELS), {}, "NaN or infinity"),
    "infinity": (np.where(PIXELS > 200, -np.inf, PIXELS), {}, "NaN or infinity"),
    "not rescaled": (PIXELS, {"do_rescale": False}, "far from the 0..1"),
    "wrong factor": (np.dstack([WIDE] * 3), {"rescale_factor": 1 / 300}, "far from the 0..1"),
    "complex": (PIXELS.astype(complex), {}, "give numbers"),
    "empty": (PIXELS[:0], {"input_data_format": "channels_last"}, "is not an image"),
    "bands taken for transparency": (np.dstack([PIXELS, GRAY]), {}, "may be a band"),
    "no opacity": (np.dstack([PIXELS, 0 * GRAY]), {}, "may be a band"),
    "two axes": (GRAY, {}, r"shape \(20, 33\) is not an image"),
    "two channels": (PIXELS[..., :2], {}, "do not fit together"),
    "three rows": (PIXELS[:3], {}, "channels first or last; say which"),
    "nothing": ([], {}, "no image is given"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_pixels_that_would_be_normalized_to_garbage_are_refused(name):
    image, options, sentence = GARBAGE[name]
    with pytest.raises(ValueError, match=sentence):
        CrossEarthImageProcessor()(image, **options)


def test_the_remedies_that_are_named_work():
    expected = normalized(PIXELS)
    for image, options in (
        (PIXELS / 255, {"do_rescale": False}),
        (torch.from_numpy(PIXELS / 255).half(), {"do_rescale": False}),
        (PIXELS.astype(np.uint16) * 257, {"rescale_factor": 1 / 65535}),
        (normalized(PIXELS), {"do_rescale": False, "do_normalize": False}),
        (PIXELS, {"input_data_format": "channels_last"}),
    ):
        np.testing.assert_allclose(values_of(image, **options), expected, rtol=0, atol=5e-3)
    three = values_of(PIXELS[:3], input_data_format="channels_last")
    np.testing.assert_allclose(three[:, :3], expected[:, :3], rtol=1e-4, atol=1e-5)


SAME_PIXELS = {
    "int64": PIXELS.astype(np.int64),
    "floats": PIXELS.astype(np.float64),
    "bfloat16": torch.from_numpy(PIXELS).bfloat16(),
    "with gradient": torch.from_numpy(PIXELS).float().requires_grad_(),
    "opaque array": np.dstack([PIXELS, np.full_like(GRAY, 255)]),
    "channels first": PIXELS.transpose(2, 0, 1),
    "CMYK": Image.fromarray(PIXELS).convert("CMYK"),
    "RGBA": Image.fromarray(PIXELS).convert("RGBA"),
}


@pytest.mark.parametrize("name", SAME_PIXELS)
def test_pixels_of_every_form_are_the_same(name):
    tolerance = 1e-4 if name not in ("CMYK", "bfloat16") else 0.02
    np.testing.assert_allclose(
        values_of(SAME_PIXELS[name]), normalized(PIXELS), rtol=0, atol=tolerance
    )


def test_black_images_and_overshoot_are_no_mistake():
    black = np.zeros((20, 33, 3), np.float32)
    np.testing.assert_allclose(values_of(black), normalized(black), rtol=1e-5)
    resampled = PIXELS * 1.04 - 5
    np.testing.assert_allclose(values_of(resampled), normalized(resampled), rtol=1e-4, atol=1e-4)


def test_gray_and_transparent_pictures():
    for image in (
        Image.fromarray(GRAY),
        GRAY[..., None],
        GRAY[None],
        Image.fromarray(GRAY.astype(np.int32)),
    ):
        np.testing.assert_allclose(
            values_of(image), normalized(np.dstack([GRAY] * 3)), rtol=1e-4, atol=1e-4
        )
    alpha = np.where(GRAY > 128, np.uint8(255), np.uint8(0))
    # on white, as transformers lays it
    expected = normalized(np.where(alpha[..., None] > 0, PIXELS, 255))
    array = np.dstack([PIXELS, alpha])
    for image in (array, array.astype(np.float32), Image.fromarray(array)):
        np.testing.assert_allclose(values_of(image), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        values_of(array / 255, do_rescale=False), expected, rtol=1e-4, atol=1e-4
    )
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_allclose(
        values_of(palette), normalized(np.asarray(palette.convert("RGB"))), rtol=1e-4, atol=1e-4
    )


MISTAKES = {
    "misspelled": (
        {"image_maen": [0.5, 0.5, 0.5]},
        TypeError,
        "no setting 'image_maen'; did you mean 'image_mean'",
    ),
    "old name": ({"reduce_labels": True}, TypeError, "did you mean 'do_reduce_labels'"),
    "another library's": (
        {"brightness": 1},
        TypeError,
        "no setting 'brightness'; the known ones are",
    ),
    "crop": (
        {"do_center_crop": True},
        ValueError,
        "do_center_crop=True is not supported; crop the images first",
    ),
    "pad size": (
        {"pad_size": {"height": 64, "width": 64}},
        ValueError,
        "pad_size=.* multiples of size_divisor",
    ),
    "channels last": (
        {"data_format": "channels_last"},
        ValueError,
        "images come out channels first",
    ),
    "divisor": ({"size_divisor": 0}, ValueError, "size_divisor 0 is not 1 or more"),
    "no deviation": ({"image_std": [0.2, 0.0, 0.2]}, ValueError, "image_std .* is not above 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_settings_that_would_be_ignored_are_refused(name):
    options, kind, sentence = MISTAKES[name]
    with pytest.raises(kind, match=sentence):
        CrossEarthImageProcessor(**options)
    with pytest.raises(kind, match=sentence):
        CrossEarthImageProcessor()(PIXELS, **options)


def test_a_misspelled_setting_is_refused_when_loading(tmp_path):
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    for cls in (CrossEarthImageProcessor, AutoImageProcessor):
        with pytest.raises(TypeError, match="did you mean 'size_divisor'"):
            cls.from_pretrained(tmp_path, size_diviser=32)
        assert cls.from_pretrained(tmp_path, size_divisor=32).size_divisor == 32
        # meant for the model
        assert cls.from_pretrained(tmp_path, attn_implementation="sdpa").size_divisor == 16
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_maen": [0.5, 0.5, 0.5]}))
    with pytest.raises(TypeError, match="did you mean 'image_mean'"):
        AutoImageProcessor.from_pretrained(tmp_path)


# What the release before and transformers 5.20 to 5.24 wrote, and names that transformers adds on its own.
EARLIER = {
    "auto_map": {"AutoImageProcessor": "image_processing_crossearth.CrossEarthImageProcessor"},
    "do_convert_rgb": True, "do_earth_style_injection": False, "do_normalize": True, "do_pad": True,
    "do_rescale": True, "do_resize": False, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "CrossEarthImageProcessor", "resample": 2, "rescale_factor": 0.00392156862745098,
    "return_clean_pixel_values": False, "size_divisor": 32, "style_alpha": 0.1, "style_block_size": 64,
    "style_mask_ratio": 0.7, "style_probability": 0.1, "style_residual": False, "do_center_crop": False,
    "crop_size": None, "data_format": "channels_first", "default_to_square": True, "processor_class": None,
    "feature_extractor_type": "X", "_commit_hash": "abc", "_processor_class": None, "_valid_processor_keys": [],
}  # fmt: skip


def test_saved_settings_of_earlier_releases_and_of_transformers_load(tmp_path, model):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(EARLIER))
    for cls in (CrossEarthImageProcessor, AutoImageProcessor):
        loaded = cls.from_pretrained(tmp_path)
        assert loaded.size_divisor == 32
        assert loaded(PIXELS, MAP, return_tensors="np")["labels"].shape == (1, 32, 64)
    model.save_pretrained(tmp_path)
    segment = pipeline(
        "image-segmentation", model=str(tmp_path), model_kwargs={"attn_implementation": "eager"}
    )
    assert segment.image_processor.size_divisor == 32
