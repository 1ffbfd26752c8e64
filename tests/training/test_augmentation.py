"""Training crops: geometry, color, padding, and what they depend on."""

import colorsys

import numpy as np
import pytest
import shapely
import torch
from PIL import Image
from rasters import write_raster
from torch.utils.data import DataLoader

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.data import load_sources
from crossearth_hf.data.image_files import resize_bands
from crossearth_hf.data.labeled_images import ArrayPair, FilePair
from crossearth_hf.data.polygons import PolygonImage, PolygonLabels
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Reading
from crossearth_hf.training.augmentation import (
    Crop,
    CropSettings,
    TrainingCrops,
    largest_share,
    photometric_distortion,
    random_crop,
    random_orientation,
    shrink_notice,
    to_tensors,
    turned,
)

LAND_COVER = get_label_set("land-cover")
AS_IS = {"scale_range": (1.0, 1.0), "relative_to_crop": False}


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
    sources = [
        [ArrayPair(str(c), np.zeros((32, 32, 3), np.uint8), np.full((32, 32), c, np.uint8))]
        for c in (0, 1)
    ]
    crops = TrainingCrops(sources, [1, 3], CropSettings(size=16), 0, 400)
    share = np.mean([int(crops[index]["labels"][0, 0]) for index in range(400)])
    assert share == pytest.approx(0.75, abs=0.06)  # 3 standard errors


def test_geometry_moves_image_and_labels_together():
    image, labels = scene()
    settings = CropSettings(64, rotate=True, **AS_IS)
    orientations = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        part, ids, _ = random_orientation(
            random_crop(ArrayPair("a", image, labels), settings, rng), True, rng
        )
        assert (part[..., 0] == 60 * ids).all()
        orientations.add(np.ascontiguousarray(ids).tobytes())
    assert len(orientations) > 8


def test_scaled_labels_stay_on_their_pixels():
    image, labels = scene()
    settings = CropSettings(size=64, scale_range=(0.7, 2.0), relative_to_crop=False)
    for seed in range(20):
        part, ids, _ = random_crop(
            ArrayPair("a", image, labels), settings, np.random.default_rng(seed)
        )
        # all but the blended borders
        assert (np.abs(part[..., 0].astype(int) - 60.0 * ids) <= 30).mean() > 0.9


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_right_angle_turns_as_numpy_does(quarter_turns):
    rng = np.random.default_rng(0)
    shape = (32, 32)
    pixels, ids = rng.integers(0, 256, (*shape, 4), np.uint8), rng.integers(0, 5, shape, np.uint8)
    crop = Crop(pixels, ids, rng.random(shape) > 0.1)
    image, labels, valid = turned(crop, quarter_turns * np.pi / 2, 32)
    # Pillow cuts off what it interpolates
    assert np.allclose(image, np.rot90(pixels, quarter_turns), atol=1)
    assert np.array_equal(labels, np.rot90(ids, quarter_turns))
    assert np.array_equal(valid, np.rot90(crop.valid, quarter_turns))


def test_turned_crops_stay_on_their_labels_and_end_with_the_image():
    image, labels = scene(128, 128)
    settings = CropSettings(64, rotation_degrees=45, **AS_IS)
    shapes = set()
    for seed in range(20):
        part, ids, valid = random_crop(
            ArrayPair("a", image, labels), settings, np.random.default_rng(seed)
        )
        assert part.shape == (64, 64, 3)
        assert valid.all()  # the piece that is turned is large enough
        # all but the blended borders
        assert (np.abs(part[..., 0].astype(int) - 60.0 * ids) <= 40).mean() > 0.9
        shapes.add(ids.tobytes())
    assert len(shapes) == 20
    small = ArrayPair("a", *(part[:40, :40] for part in (image, labels)))
    part, ids, valid = random_crop(small, settings, np.random.default_rng(0))
    # the whole image, turned; nothing of it twice
    assert valid.sum() == pytest.approx(40 * 40, rel=0.03)
    assert (ids[~valid] == 255).all()
    assert (ids[valid] < 4).all()


@pytest.mark.parametrize(("relative", "expected"), [(True, (32, 16)), (False, (64, 64))])
def test_scale_one_means_the_crop_or_the_pixels(relative, expected):
    pair = ArrayPair("a", np.zeros((200, 100, 3), np.uint8), np.zeros((200, 100), np.uint8))
    size = 32 if relative else 64
    settings = CropSettings(size=size, scale_range=(1.0, 1.0), relative_to_crop=relative)
    assert random_crop(pair, settings, np.random.default_rng(0)).labels.shape == expected


@pytest.mark.parametrize(
    ("pixel_size", "expected"), [(0.5, (50, 25)), (2.0, (200, 100)), (None, (100, 50))]
)
def test_images_that_know_their_pixel_size_are_brought_to_the_models(pixel_size, expected):
    pair = ArrayPair(
        "a", np.zeros((100, 50, 3), np.uint8), np.zeros((100, 50), np.uint8), pixel_size=pixel_size
    )
    settings = CropSettings(size=256, ground_sampling_distance=1.0, **AS_IS)
    assert random_crop(pair, settings, np.random.default_rng(0)).labels.shape == expected


def test_the_original_pixels_at_scale_one():
    rng = np.random.default_rng(0)
    image, labels = (
        rng.integers(0, 256, (80, 80, 3), dtype=np.uint8),
        rng.integers(0, 5, (80, 80), dtype=np.uint8),
    )
    crop = random_crop(ArrayPair("a", image, labels), CropSettings(32, **AS_IS), rng)
    found = [
        (row, col)
        for row in range(49)
        for col in range(49)
        if (image[row : row + 32, col : col + 32] == crop.image).all()
    ]
    assert len(found) == 1
    row, col = found[0]
    assert (labels[row : row + 32, col : col + 32] == crop.labels).all()


def test_a_part_is_resized_as_the_whole_image_would_be():
    smooth = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((90, 90), Image.Resampling.BICUBIC))
    whole = np.asarray(Image.fromarray(image).resize((180, 180), Image.Resampling.BILINEAR)).astype(
        int
    )
    settings = CropSettings(80, (2.0, 2.0), relative_to_crop=False)
    rows, columns = np.indices((90, 90)).astype(np.uint8)
    crop = random_crop(ArrayPair("a", image, rows), settings, np.random.default_rng(1)).image
    places = [
        random_crop(ArrayPair("a", image, where), settings, np.random.default_rng(1)).labels
        for where in (rows, columns)
    ]
    top, left = (
        2 * int(places[0][1, 1]),
        2 * int(places[1][1, 1]),
    )  # to within a pixel of the enlarged image
    errors = [
        np.abs(crop[4:-4, 4:-4] - whole[y + 4 : y + 76, x + 4 : x + 76]).max()
        for y in range(max(top - 2, 0), top + 2)
        for x in range(max(left - 2, 0), left + 2)
        if whole[y : y + 80, x : x + 80].shape[:2] == (80, 80)
    ]
    assert min(errors) <= 1


def test_crops_full_of_one_class_are_tried_again():
    labels = np.zeros((64, 256), np.uint8)
    labels[:, 120:136] = 1  # a crop of 32 needs to lie across it
    image, settings = (
        np.zeros((64, 256, 3), np.uint8),
        CropSettings(32, (1.0, 1.0), relative_to_crop=False),
    )
    pair = ArrayPair("a", image, labels)
    shares = [
        largest_share(random_crop(pair, settings, np.random.default_rng(i)).labels)
        for i in range(60)
    ]
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
        hue = colorsys.rgb_to_hsv(
            *photometric_distortion(red, np.random.default_rng(seed))[0, 0] / 255
        )[0]
        hues.append((hue + 0.5) % 1 - 0.5)
    assert min(grays) < 70
    assert max(grays) > 160
    assert -0.115 < min(hues) < -0.04
    assert 0.04 < max(hues) < 0.115


def test_tensors_are_normalized_and_padded_like_the_processor_does():
    processor = CrossEarthImageProcessor(image_mean=[0.2, 0.3, 0.4], rescale_factor=1 / 300)
    rng = np.random.default_rng(0)
    image, labels = (
        rng.integers(0, 256, (20, 28, 3), dtype=np.uint8),
        rng.integers(0, 5, (20, 28)).astype(np.uint8),
    )
    settings = CropSettings(
        32,
        mean=tuple(processor.image_mean),
        std=tuple(processor.image_std),
        rescale_factor=processor.rescale_factor,
    )
    ours = to_tensors(Crop(image, labels, np.ones((20, 28), bool)), settings)
    theirs = processor(images=[image], segmentation_maps=[labels], return_tensors="pt")
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"][0], rtol=0, atol=1e-6)
    assert torch.equal(ours["labels"], theirs["labels"][0])
    assert ours["labels"].dtype == torch.int64


@pytest.mark.parametrize("settings", [CropSettings(48, **AS_IS), CropSettings(48, (0.5, 0.5))])
def test_images_smaller_than_the_crop_are_padded(settings):
    image, labels = np.full((20, 30, 3), 200, np.uint8), np.full((20, 30), 2, np.uint8)
    height, width = (20, 30) if not settings.relative_to_crop else (16, 24)
    item = TrainingCrops([[ArrayPair("a", image, labels)]], None, settings, 0, 1)[0]
    assert item["pixel_values"].shape == (3, 48, 48)
    assert (item["labels"][:height, :width] == 2).all()
    assert (item["pixel_values"][:, :height, :width] != 0).all()
    assert torch.equal(item["valid"], item["labels"] == 2)
    for axis_rest in (np.s_[height:, :], np.s_[:, width:]):
        assert (item["labels"][axis_rest] == 255).all()
        assert (item["pixel_values"][(slice(None), *axis_rest)] == 0).all()


def test_an_image_of_one_pixel_is_no_trouble():
    pair = ArrayPair("a", np.full((1, 1, 3), 9, np.uint8), np.zeros((1, 1), np.uint8))
    for settings in (
        CropSettings(16),
        CropSettings(16, (0.1, 0.2), relative_to_crop=False, rotate=True),
    ):
        labels = TrainingCrops([[pair]], None, settings, 0, 1)[0]["labels"]
        assert set(labels.unique().tolist()) <= {0, 255}
        assert (labels == 0).any()


@pytest.mark.parametrize("id_", [1, 255])
def test_masks_of_one_class_end_the_search_and_keep_it(id_):
    class Counting(ArrayPair):
        reads = 0

        def read_labels(self, *window):
            Counting.reads += 1
            return super().read_labels(*window)

    pair = Counting("a", np.zeros((64, 64, 3), np.uint8), np.full((64, 64), id_, np.uint8))
    crop = random_crop(pair, CropSettings(32, **AS_IS), np.random.default_rng(0))
    assert Counting.reads == 10
    assert crop.labels.shape == (32, 32)
    assert (crop.labels == id_).all()


def test_pixels_without_data_become_the_mean_and_unlabeled():
    """Whatever brightness and orientation do: padding and nodata look alike to the network, as in prediction."""
    valid = np.ones((64, 64), bool)
    valid[:, :20] = False
    pair = ArrayPair(
        "a",
        np.where(valid[..., None], np.uint8(250), np.uint8(0)).repeat(3, 2),
        np.ones_like(valid, np.uint8),
        valid,
    )
    crops = TrainingCrops([[pair]], None, CropSettings(64, rotate=True, **AS_IS), 0, 30)
    for index in range(30):
        empty = crops[index]["labels"] == 255
        assert int(empty.sum()) == 20 * 64
        assert torch.equal(crops[index]["valid"], ~empty)
        assert (crops[index]["pixel_values"][:, empty] == 0).all()
        assert (crops[index]["pixel_values"][:, ~empty] != 0).all()


def test_items_know_their_index():
    item = TrainingCrops([[ArrayPair("a", *scene())]], None, CropSettings(16), 0, 100)[77]
    assert item["index"].dtype == torch.int64
    assert item["index"].item() == 77


@pytest.fixture
def mixed_folder(tmp_path):
    """A picture, a 16-bit raster with nodata and windows, a 16-bit raster with a PNG mask."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    image, labels = scene()
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    values = rng.integers(1, 4000, (4, 96, 96)).astype(np.uint16)
    values[:, 60:, 50:] = 0
    for name in ("b", "c"):
        write_raster(
            tmp_path / "images" / f"{name}.tif",
            values,
            nodata=0,
            tiled=True,
            blockxsize=32,
            blockysize=32,
        )
    for name in ("a", "c"):
        Image.fromarray(labels).save(tmp_path / "masks" / f"{name}.png")
    write_raster(tmp_path / "masks" / "b.tif", labels[None])
    return str(tmp_path)


def test_neither_workers_nor_memory_change_a_crop(mixed_folder):
    settings = CropSettings(32, (0.5, 1.5), relative_to_crop=False, rotate=True)
    runs = []
    for cache_bytes, workers in ((10**9, 0), (0, 0), (0, 2)):
        sources = load_sources([mixed_folder], LAND_COVER, cache_bytes=cache_bytes)
        assert isinstance(sources[0][1], FilePair) == (cache_bytes == 0)
        crops = TrainingCrops(sources, None, settings, 3, 24)
        batches = list(DataLoader(crops, 4, num_workers=workers, generator=torch.Generator()))
        runs.append({key: torch.cat([batch[key] for batch in batches]) for key in batches[0]})
    assert len(runs[0]["labels"].flatten(1).unique(dim=0)) == 24
    for run in runs[1:]:
        assert all(
            torch.equal(run[key], runs[0][key]) for key in ("pixel_values", "labels", "index")
        )


def test_no_crop_may_swallow_a_huge_raster(tmp_path):
    huge = FilePair("huge", tmp_path / "huge.tif", None, (20_000, 20_000))
    with pytest.raises(
        InputError,
        match=r"huge would shrink 20000x20000 pixels to 512; set relative_to_crop to false",
    ):
        TrainingCrops([[huge]], None, CropSettings(512), 0, 1)
    TrainingCrops([[huge]], None, CropSettings(512, relative_to_crop=False), 0, 1)


def test_bands_beyond_rgb_follow_the_crop_and_the_light_alone():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 50, 6), dtype=np.uint8)
    pixels[..., 3:] = pixels[..., :1]  # the bands beyond RGB repeat red
    shifts, alone = 0, 0
    for seed in range(40):
        distorted = photometric_distortion(pixels, np.random.default_rng(seed))
        rgb = photometric_distortion(pixels[..., :3], np.random.default_rng(seed))
        np.testing.assert_array_equal(distorted[..., :3], rgb)
        assert (distorted[..., 3:] == distorted[..., 3:4]).all()
        # Saturation and hue leave them alone; brightness and contrast rise with the value.
        order = np.argsort(pixels[..., 0], axis=None, kind="stable")
        assert (np.diff(distorted[..., 3].ravel()[order].astype(int)) >= 0).all()
        shifts += (distorted[..., 3] != pixels[..., 3]).any()
        alone += (distorted[..., 3] != rgb[..., 0]).any()
    assert 20 < shifts < 40
    assert alone > 10


def test_crops_of_four_bands(tmp_path):
    image, labels = scene()
    bands = np.dstack([image, labels * 50])
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    write_raster(tmp_path / "images" / "a.tif", bands.transpose(2, 0, 1), photometric="MINISBLACK")
    write_raster(tmp_path / "masks" / "a.tif", labels[None])
    sources = load_sources(
        [str(tmp_path)], LAND_COVER, reading=Reading((1, 2, 3, 4), num_channels=4)
    )
    numbers = {"mean": (0.5,) * 4, "std": (0.25,) * 4}
    settings = CropSettings(
        size=48, scale_range=(0.7, 1.5), relative_to_crop=False, rotate=True, **numbers
    )
    for index in range(20):
        crop = random_crop(sources[0][0].open(), settings, np.random.default_rng(index))
        assert crop.image.shape == (48, 48, 4)
        # Of a grid of whole classes the fourth band tells the class as the first one does, away from the borders.
        # half a gray level
        assert np.abs(crop.image[..., 0] / 60 - crop.image[..., 3] / 50).max() < 0.03
        item = TrainingCrops(sources, None, settings, 0, 100)[index]
        assert item["pixel_values"].shape == (4, 48, 48)


def test_resizing_four_bands_is_resizing_each():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 5), dtype=np.uint8)
    box = (2.5, 3.25, 50.0, 36.5)
    found = resize_bands(pixels, (20, 15), box)
    for band in range(5):
        alone = Image.fromarray(pixels[..., band]).resize(
            (20, 15), Image.Resampling.BILINEAR, box=box
        )
        np.testing.assert_array_equal(found[..., band], np.asarray(alone))
    rgb = Image.fromarray(pixels[..., :3]).resize((20, 15), Image.Resampling.BILINEAR, box=box)
    np.testing.assert_array_equal(resize_bands(pixels[..., :3], (20, 15), box), np.asarray(rgb))


def sparse_scene(tmp_path, side=2000):
    """A raster with ten polygons of 12 pixels a side, two of them at its corners; they cover 0.04 % of it."""
    rng = np.random.default_rng(0)
    corners = [*rng.integers(0, side - 12, (8, 2)).tolist(), [0, 0], [side - 12, side - 12]]
    shapes = shapely.box(*np.array([(x, y, x + 12, y + 12) for x, y in corners], dtype=float).T)
    labels = PolygonLabels((side, side), shapes, np.arange(10, dtype=np.uint8) % 2)
    image = write_raster(tmp_path / "a.tif", np.zeros((3, side, side), np.uint8), tiled=True)
    return PolygonImage("a", image, labels)


@pytest.mark.parametrize(
    ("in_memory", "turn", "share"), [(False, 0.0, 1.0), (True, 0.0, 1.0), (True, 45.0, 0.8)]
)
def test_crops_of_a_raster_with_few_polygons_hold_labels(tmp_path, in_memory, turn, share):
    """Turned crops lose corners: of the polygons a fifth lies in corners of the raster."""
    scene = sparse_scene(tmp_path)
    settings = CropSettings(
        64, scale_range=(0.5, 2.0), relative_to_crop=False, rotation_degrees=turn
    )
    crops = TrainingCrops([[scene.decode() if in_memory else scene]], None, settings, 0, 100)
    labels = [crops[index]["labels"] for index in range(100)]
    holding = np.mean([bool((each != 255).any()) for each in labels])
    assert holding >= share
    first = np.mean([bool((each == 0).any()) for each in labels])
    assert first == pytest.approx(0.5, abs=0.15)
    rows = [
        int(torch.nonzero(each != 255)[:, 0].float().mean())
        for each in labels
        if (each != 255).any()
    ]
    assert np.ptp(rows) > 40  # the polygon may lie anywhere in the crop
    whole = ArrayPair("a", *scene.read())
    blind = [random_crop(whole, settings, np.random.default_rng(seed)) for seed in range(50)]
    assert np.mean([(crop.labels != 255).any() for crop in blind]) < 0.3


def test_large_rasters_that_crops_shrink_are_told(tmp_path):
    scene = sparse_scene(tmp_path)
    assert "1/16 of their size" in shrink_notice([[scene]], CropSettings(128))
    assert shrink_notice([[scene]], CropSettings(1024)) is None
    assert shrink_notice([[scene]], CropSettings(128, relative_to_crop=False)) is None
    assert shrink_notice([[ArrayPair("a", *scene.read())]], CropSettings(128)) is None
