"""From the text of a source to checked pairs, and what of them is kept in memory."""

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from rasters import PLACE, write_raster

from crossearth_hf.data.labeled_images import ArrayPair, FilePair
from crossearth_hf.data.mask_values import read_as
from crossearth_hf.data.pairs import load_pairs
from crossearth_hf.data.sources import all_images, in_memory, load_source, load_sources
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Reading
from crossearth_hf.synthetic import generate_scene

LAND_COVER = get_label_set("land-cover")


@pytest.fixture
def folder(tmp_path):
    """Three pairs of 20x30 pixels; the masks hold the classes 0 to 4 and 255."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for name in ("tile1_a", "tile1_b", "tile2_a"):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
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
    assert len(load_pairs(folder, "*", read_as(LAND_COVER))) == 3


def test_palette_masks_keep_their_ids(folder):
    mask = Image.fromarray(np.full((20, 30), 3, dtype=np.uint8))
    mask.putpalette([value for color in LAND_COVER.colors for value in color])
    mask.save(folder / "masks" / "tile1_a.png")
    assert Image.open(folder / "masks" / "tile1_a.png").mode == "P"
    assert set(np.unique(load_pairs(folder, "tile1_a", read_as(LAND_COVER))[0].read()[1])) == {3}


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


def break_color_mask(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "masks" / "tile1_b.png")


def break_image(folder):
    (folder / "images" / "tile1_b.png").write_bytes(b"no image")


def break_truncated_mask(folder):
    data = (folder / "masks" / "tile1_b.png").read_bytes()
    (folder / "masks" / "tile1_b.png").write_bytes(data[: len(data) // 2])


def break_two_masks(folder):
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(folder / "masks" / "tile1_b.tif")


def break_place(folder):
    (folder / "images" / "tile1_b.png").unlink()
    (folder / "masks" / "tile1_b.png").unlink()
    write_raster(folder / "images" / "tile1_b.tif", np.zeros((3, 20, 30), np.uint8))
    write_raster(
        folder / "masks" / "tile1_b.tif",
        np.zeros((1, 20, 30), np.uint8),
        transform=PLACE @ Affine.translation(3, 4),
    )


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
        (break_color_mask, "holds the color #000000 of no class"),
        (break_image, "tile1_b.png is damaged or is not a raster that GDAL can read"),
        (break_truncated_mask, "tile1_b.png cannot be read"),
        (break_two_masks, "has the masks tile1_b.png and tile1_b.tif"),
        (break_place, "tile1_b.tif lie 5 pixels apart"),
        (break_twins, "have the same name"),
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


@pytest.mark.parametrize(
    "source", ["synth:atlantis", "synth:desert-city:0", "synth:desert-city:many"]
)
def test_synthetic_sources_that_do_not_exist(source):
    with pytest.raises(InputError, match="synth"):
        load_source(source, LAND_COVER)


def test_synthetic_sources_need_their_label_set():
    with pytest.raises(InputError, match="not 'road'"):
        load_source("synth:desert-city:1", get_label_set("road"))


def test_the_order_is_that_of_the_names(folder, monkeypatch):
    listing = sorted((folder / "images").iterdir())
    for order in (listing, listing[::-1]):
        monkeypatch.setattr(Path, "iterdir", lambda _, order=order: iter(order))
        assert [pair.name for pair in load_source(str(folder), LAND_COVER)] == [
            "tile1_a",
            "tile1_b",
            "tile2_a",
        ]


def test_rasters_and_their_masks(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    values = rng.integers(0, 5000, (5, 20, 30)).astype(np.uint16)
    ids = rng.choice([0, 3, 255], (1, 20, 30)).astype(np.uint8)
    write_raster(tmp_path / "images" / "a.tif", values)
    write_raster(tmp_path / "masks" / "a.tif", ids, nodata=255)
    (pair,) = load_source(str(tmp_path), LAND_COVER, reading=Reading((5, 1, 2)))
    low, high = (np.percentile(values[[4, 0, 1]], q, axis=(1, 2))[:, None, None] for q in (2, 98))
    image, labels = pair.read()
    expected = np.clip((values[[4, 0, 1]] - low) / (high - low), 0, 1) * 255
    assert np.abs(image.transpose(2, 0, 1) - expected).max() <= 0.5
    np.testing.assert_array_equal(labels, ids[0])
    with pytest.raises(InputError, match="bands 6 do not fit"):
        load_source(str(tmp_path), LAND_COVER, reading=Reading((6,)))


@pytest.mark.parametrize("inside", [True, False])
def test_images_alone_need_no_masks(folder, inside):
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()
    write_raster(folder / "images" / "b.tif", np.zeros((4, 8, 9), np.uint16))
    source = folder if inside else folder / "images"
    pairs = load_source(str(source), LAND_COVER, labeled=False)
    assert [pair.name for pair in pairs] == ["b", "tile1_a", "tile1_b", "tile2_a"]
    assert [int(pair.read()[1].min()) for pair in pairs] == [255] * 4
    assert (
        load_source("synth:desert-city:1", get_label_set("road"), labeled=False)[0].read()[1] == 255
    ).all()
    with pytest.raises(InputError, match="is not a folder; name one that holds images"):
        load_source(str(folder / "absent"), LAND_COVER, labeled=False)


def test_images_are_kept_in_memory_while_the_budget_lasts(folder):
    pairs = load_pairs(folder, "*", read_as(LAND_COVER))
    kept, left = in_memory(pairs, 4 * 600 * 2 + 100)
    assert [type(pair) for pair in kept] == [ArrayPair, ArrayPair, FilePair]
    assert left == 100
    for pair, same in zip(pairs, kept, strict=True):
        for first, second in zip(pair.read(), same.read(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_sources_share_one_budget(folder):
    sources = load_sources([str(folder), str(folder)], LAND_COVER, cache_bytes=4 * 600 * 4)
    assert [type(pair) for pair in all_images(sources)] == [ArrayPair] * 4 + [FilePair] * 2


def test_sources_know_their_pixel_size_where_something_tells(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    write_raster(tmp_path / "images" / "a.tif", np.zeros((3, 32, 32), np.uint8))  # half a meter
    write_raster(tmp_path / "masks" / "a.tif", np.zeros((1, 32, 32), np.uint8))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "images" / "b.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "masks" / "b.png")
    first, second = load_source(str(tmp_path), LAND_COVER)
    assert first.pixel_size == pytest.approx(0.5, rel=2e-3)  # the scale of UTM
    assert first.decode().pixel_size == first.pixel_size
    assert second.pixel_size is None
    assert load_source("synth:coarse-hazy:1", LAND_COVER)[0].decode().pixel_size == 1
