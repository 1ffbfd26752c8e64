"""The kinds of labeled images: whole and in parts, with and without data."""

import numpy as np
import pytest
from rasters import write_raster

from crossearth_hf.data.labeled_images import ArrayPair, DrawnScene, FilePair, no_labels
from crossearth_hf.synthetic import generate_scene


@pytest.fixture
def raster_pair(tmp_path):
    """A float raster whose left half holds no data, and its mask."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 60, 80)).astype(np.float32)
    values[:, :, :40] = np.nan
    ids = rng.integers(0, 5, (1, 60, 80), dtype=np.uint8)
    image, mask = write_raster(tmp_path / "a.tif", values), write_raster(tmp_path / "m.tif", ids)
    return FilePair("a", image, mask, (60, 80)), ids[0]


def test_pixels_without_data_are_unlabeled(raster_pair):
    pair, ids = raster_pair
    image, labels = pair.read()
    assert (image[:, :40] == 0).all()
    assert (labels[:, :40] == 255).all()
    np.testing.assert_array_equal(labels[:, 40:], ids[:, 40:])


def test_parts_are_equal_whether_decoded_or_read_by_windows(raster_pair):
    pair, ids = raster_pair
    window = (10, 20, 30, 45)
    assert pair.open() is pair
    assert isinstance(pair.decode(), ArrayPair)
    for first, second in zip(
        pair.read_pixels(*window), pair.decode().read_pixels(*window), strict=True
    ):
        np.testing.assert_array_equal(first, second)
    for source in (pair, pair.decode()):
        np.testing.assert_array_equal(source.read_labels(*window), ids[10:40, 20:65])


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [("tif", "tif", True), ("tif", "png", False), ("jpg", "tif", False)],
)
def test_only_rasters_are_read_by_windows(tmp_path, image, mask, expected):
    assert (
        FilePair("a", tmp_path / f"a.{image}", tmp_path / f"m.{mask}", (1, 1)).has_windows
        == expected
    )


def test_a_raster_and_a_picture_as_mask_are_decoded(tmp_path):
    ids = np.random.default_rng(0).integers(0, 5, (1, 30, 20), dtype=np.uint8)
    mask = write_raster(tmp_path / "m.png", ids, driver="PNG", transform=None)
    pair = FilePair("a", write_raster(tmp_path / "a.tif", ids * 10), mask, (30, 20)).open()
    assert isinstance(pair, ArrayPair)
    assert (pair.image[..., 1] == 10 * pair.labels).all()


def test_without_masks_all_labels_are_255(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 20), dtype=np.uint8)
    pair = FilePair("a", write_raster(tmp_path / "a.tif", pixels), None, (30, 20))
    np.testing.assert_array_equal(pair.read()[1], no_labels((30, 20)))
    assert pair.read_labels(3, 4, 5, 6).tolist() == [[255] * 6] * 5
    assert (DrawnScene("desert-city", 0, (32, 48), labeled=False).read()[1] == 255).all()


def test_drawn_scenes_are_drawn_alike():
    expected = generate_scene("desert-city", 3, 32, 48)
    pair = DrawnScene("desert-city", 3, (32, 48)).open()
    np.testing.assert_array_equal(pair.image, expected.image)
    np.testing.assert_array_equal(pair.read_labels(2, 3, 20, 10), expected.labels[2:22, 3:13])
