"""Folders of pairs and their checks; training crops."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from crossearth_hf.augmentation import (
    CropSettings,
    TrainingCrops,
    largest_share,
    photometric_distortion,
    random_crop,
    random_orientation,
    resize_region,
    to_tensors,
)
from crossearth_hf.data import ArrayPair, FilePair, in_memory, load_pairs, load_source
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.synthetic import generate_scene

LAND_COVER = get_label_set("land-cover")


@pytest.fixture
def folder(tmp_path):
    """Three pairs of 20x30 pixels; the masks hold the classes 0 to 4 and 255."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name in ("tile1_a", "tile1_b", "tile2_a"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
        mask = rng.choice([0, 1, 2, 3, 4, 255], (20, 30)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def test_a_folder_becomes_pairs(folder):
    pairs = load_source(str(folder), LAND_COVER)
    assert [pair.name for pair in pairs] == ["tile1_a", "tile1_b", "tile2_a"]
    image, labels = pairs[0].read()
    assert (image == np.array(Image.open(folder / "images" / "tile1_a.png"))).all()
    assert (labels == np.array(Image.open(folder / "masks" / "tile1_a.png"))).all()
    assert pairs[0].size == (20, 30)


def test_a_pattern_restricts_names(folder):
    assert [pair.name for pair in load_source(f"{folder}:tile[2-9]_*", LAND_COVER)] == ["tile2_a"]


def test_files_that_are_no_images_are_passed_over(folder):
    (folder / "images" / "notes.txt").write_text("x")
    assert len(load_pairs(folder, "*", LAND_COVER)) == 3


def test_palette_masks_keep_their_ids(folder):
    mask = Image.fromarray(np.full((20, 30), 3, dtype=np.uint8))
    mask.putpalette([value for color in LAND_COVER.colors for value in color])
    mask.save(folder / "masks" / "tile1_a.png")
    assert Image.open(folder / "masks" / "tile1_a.png").mode == "P"
    assert set(np.unique(load_pairs(folder, "tile1_a", LAND_COVER)[0].read()[1])) == {3}


def break_nothing_matches(folder):
    return f"{folder}:nothing*"


def break_missing_folder(folder):
    return str(folder / "absent")


def break_missing_mask(folder):
    (folder / "masks" / "tile1_b.png").unlink()


def break_size(folder):
    Image.fromarray(np.zeros((20, 31), np.uint8)).save(folder / "masks" / "tile1_b.png")


def break_ids(folder):
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(folder / "masks" / "tile1_b.png")


def break_colour_mask(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "masks" / "tile1_b.png")


def break_image(folder):
    (folder / "images" / "tile1_b.png").write_bytes(b"no image")


def break_truncated_mask(folder):
    data = (folder / "masks" / "tile1_b.png").read_bytes()
    (folder / "masks" / "tile1_b.png").write_bytes(data[: len(data) // 2])


def break_sixteen_bits(folder):
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(folder / "images" / "tile1_b.png")


def break_twins(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "tile1_b.tif")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_nothing_matches, "nothing"),
        (break_missing_folder, "holds no folder 'images'"),
        (break_missing_mask, "tile1_b.png has no mask"),
        (break_size, "31x20"),
        (break_ids, r"tile1_b.png holds the label ids \[7\]"),
        (break_colour_mask, "one band of class ids"),
        (break_image, "tile1_b.png cannot be read"),
        (break_truncated_mask, "tile1_b.png cannot be read"),
        (break_sixteen_bits, "I;16"),
        (break_twins, "share one mask"),
    ],
)
def test_what_does_not_fit_is_named(folder, break_it, message):
    source = break_it(folder) or str(folder)
    with pytest.raises(InputError, match=message):
        load_source(source, LAND_COVER)


def test_synthetic_sources_are_drawn():
    scenes = load_source("synth:desert-city:2", LAND_COVER)
    drawn = generate_scene("desert-city", 1, 512, 512)
    image, labels = scenes[1].read()
    assert (image == drawn.image).all()
    assert (labels == drawn.labels).all()


@pytest.mark.parametrize("source", ["synth:atlantis", "synth:desert-city:0", "synth:desert-city:many"])
def test_synthetic_sources_that_do_not_exist(source):
    with pytest.raises(InputError, match="synth"):
        load_source(source, LAND_COVER)


def test_synthetic_sources_need_their_label_set():
    with pytest.raises(InputError, match="not 'road'"):
        load_source("synth:desert-city:1", get_label_set("road"))


def test_small_sets_are_decoded_once_and_large_ones_not(folder):
    pairs = load_pairs(folder, "*", LAND_COVER)
    assert all(isinstance(pair, ArrayPair) for pair in in_memory(pairs))
    assert all(isinstance(pair, FilePair) for pair in in_memory(pairs, limit=4 * 600 * 3 - 1))


def scene(height=96, width=96):
    """An image whose red channel repeats the label map: geometry that moves one must move the other."""
    labels = np.arange(height)[:, None] // 24 % 2 + 2 * (np.arange(width)[None] // 32 % 2)
    labels = labels.astype(np.uint8)
    image = np.stack([labels * 60, np.full_like(labels, 90), np.full_like(labels, 30)], axis=-1)
    return image, labels


def test_crops_are_a_function_of_seed_and_index():
    source = [ArrayPair("scene", *scene())]
    settings = CropSettings(size=32, rotate=True)

    def crop(seed, index):
        return TrainingCrops([source], None, settings, seed, 100)[index]["pixel_values"]

    assert torch.equal(crop(1, 5), crop(1, 5))
    assert not torch.equal(crop(1, 5), crop(1, 6))
    assert not torch.equal(crop(1, 5), crop(2, 5))


def test_weights_choose_the_source():
    sources = [[ArrayPair(str(c), np.zeros((32, 32, 3), np.uint8), np.full((32, 32), c, np.uint8))] for c in (0, 1)]
    crops = TrainingCrops(sources, [1, 3], CropSettings(size=16), 0, 400)
    share = np.mean([int(crops[index]["labels"][0, 0]) for index in range(400)])
    assert share == pytest.approx(0.75, abs=0.06)  # 3 standard errors


def test_geometry_moves_image_and_labels_together():
    image, labels = scene()
    settings = CropSettings(size=64, scale_range=(1.0, 1.0), relative_to_crop=False, rotate=True)
    orientations = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        part, ids = random_orientation(*random_crop(image, labels, settings, rng), True, rng)
        assert (part[..., 0] == 60 * ids).all()
        orientations.add(np.ascontiguousarray(ids).tobytes())
    assert len(orientations) > 8


def test_scaled_labels_stay_on_their_pixels():
    image, labels = scene()
    settings = CropSettings(size=64, scale_range=(0.7, 2.0), relative_to_crop=False)
    for seed in range(20):
        part, ids = random_crop(image, labels, settings, np.random.default_rng(seed))
        assert (np.abs(part[..., 0].astype(int) - 60.0 * ids) <= 30).mean() > 0.9  # all but the blended borders


@pytest.mark.parametrize(("relative", "expected"), [(True, (32, 16)), (False, (64, 64))])
def test_scale_one_means_the_crop_or_the_pixels(relative, expected):
    image, labels = np.zeros((200, 100, 3), np.uint8), np.zeros((200, 100), np.uint8)
    size = 32 if relative else 64
    settings = CropSettings(size=size, scale_range=(1.0, 1.0), relative_to_crop=relative)
    assert random_crop(image, labels, settings, np.random.default_rng(0))[1].shape == expected


def test_the_original_pixels_at_scale_one():
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    assert (resize_region(image, (8, 16, 40, 48), (32, 32)) == image[16:48, 8:40]).all()


def test_region_and_whole_image_resize_alike():
    image = np.asarray(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((90, 90))
    )
    whole = np.asarray(Image.fromarray(image).resize((180, 180), Image.Resampling.BILINEAR))
    part = resize_region(image, (20, 30, 60, 70), (80, 80))
    inner = np.abs(part[4:-4, 4:-4].astype(int) - whole[64:136, 44:116])
    assert inner.max() <= 1


def test_crops_full_of_one_class_are_tried_again():
    labels = np.zeros((64, 256), np.uint8)
    labels[:, 120:136] = 1  # a crop of 32 needs to lie across it
    image, settings = np.zeros((64, 256, 3), np.uint8), CropSettings(32, (1.0, 1.0), relative_to_crop=False)
    shares = [largest_share(random_crop(image, labels, settings, np.random.default_rng(i))[1]) for i in range(60)]
    assert np.mean(np.array(shares) < 0.75) > 0.5  # about 0.65 in ten tries, 0.1 in one


def test_largest_share_leaves_out_ignored_pixels():
    assert largest_share(np.array([0, 0, 0, 1, 255, 255], np.uint8)) == 0.75
    assert largest_share(np.full(4, 255, np.uint8)) == 1.0


def test_distortion_turns_hue_and_keeps_gray_gray():
    gray = np.full((4, 4, 3), 120, np.uint8)
    red = np.broadcast_to(np.array([200, 40, 40], np.uint8), (4, 4, 3))
    hues, grays = [], []
    for seed in range(60):
        out = photometric_distortion(gray, np.random.default_rng(seed))
        assert np.ptp(out.astype(int), axis=-1).max() <= 1
        grays.append(int(out[0, 0, 0]))
        hue = colorsys.rgb_to_hsv(*photometric_distortion(red, np.random.default_rng(seed))[0, 0] / 255)[0]
        hues.append((hue + 0.5) % 1 - 0.5)
    assert min(grays) < 70
    assert max(grays) > 160
    assert -0.115 < min(hues) < -0.04
    assert 0.04 < max(hues) < 0.115


def test_tensors_are_normalised_and_padded_like_the_processor_does():
    from crossearth_hf import CrossEarthImageProcessor  # noqa: PLC0415

    processor = CrossEarthImageProcessor()
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (20, 28, 3), dtype=np.uint8), rng.integers(0, 5, (20, 28)).astype(np.uint8)
    settings = CropSettings(32, mean=tuple(processor.image_mean), std=tuple(processor.image_std))
    ours = to_tensors(image, labels, settings)
    theirs = processor(images=[image], segmentation_maps=[labels], return_tensors="pt")
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"][0])
    assert torch.equal(ours["labels"], theirs["labels"][0])
    assert ours["labels"].dtype == torch.int64
