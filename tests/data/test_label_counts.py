"""The table of what is labeled, against counts by hand."""

import numpy as np
import pytest
from PIL import Image
from rasters import write_raster

from crossearth_hf.data import load_source, load_sources
from crossearth_hf.data.label_counts import STREAMED, count_labels
from crossearth_hf.data.labeled_images import ArrayPair
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set

LAND_COVER, BUILDING = get_label_set("land-cover"), get_label_set("building")


def pair(ids, **options):
    labels = np.array([ids], np.uint8)
    return ArrayPair("a", np.zeros((*labels.shape, 3), np.uint8), labels, **options)


def test_the_table_by_hand():
    counts = count_labels([[pair([0, 0, 1, 255]), pair([0, 3, 3, 3])], [pair([0, 0])]])
    assert counts.table("train_data", LAND_COVER).splitlines() == [
        "labels of train_data, in 3 images:",
        "   id  class         pixels  images",
        "    0  land         50.00 %       3",
        "    1  building     10.00 %       1",
        "    2  road               -       0",
        "    3  water        30.00 %       1",
        "    4  vegetation         -       0",
        "  255  (ignored)    10.00 %       1",
        "no pixel of road, vegetation",
    ]


def test_a_class_of_a_few_pixels_is_not_shown_as_none():
    labels = np.zeros((300, 300), np.uint8)
    labels[0, 0] = 1
    table = count_labels([[ArrayPair("a", np.zeros((300, 300, 3), np.uint8), labels)]]).table(
        "x", BUILDING
    )
    assert "building     <0.01 %       1" in table
    assert table.splitlines()[0] == "labels of x, in 1 image:"


def test_pixels_without_data_do_not_count():
    hidden = pair([0, 0, 1, 1], valid=np.array([[True, True, False, False]]))
    counts = count_labels([[hidden]])
    assert dict(counts.pixels) == {0: 2, 255: 2}
    with pytest.raises(
        InputError, match="x holds no pixel with data of building in 1 image; check masks"
    ):
        counts.check("x", ["building"], BUILDING)
    counts.check("x", BUILDING.classes, BUILDING)


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        ([1, 2, 3, 4], "count classes from 1, add --mask-offset 1"),
        ([0, 255], "add --mask-values 0,255"),
    ],
)
def test_what_is_likely_meant_is_hinted_at(ids, hint):
    assert hint in count_labels([[pair(ids)]]).table("x", LAND_COVER).splitlines()[-1]


@pytest.mark.parametrize("ids", [[0, 1, 255], [1, 255], [0, 1, 2, 3, 4]])
def test_sets_labeled_in_part_get_no_hint(ids):
    assert "--mask-" not in count_labels([[pair(ids)]]).table("x", LAND_COVER)


def test_every_kind_of_source_is_counted(tmp_path):
    datasets = pytest.importorskip("datasets")
    for part in ("images", "masks"):
        (tmp_path / "files" / part).mkdir(parents=True)
    mask = np.random.default_rng(0).choice([0, 2, 255], (20, 30)).astype(np.uint8)
    write_raster(tmp_path / "files" / "images" / "a.tif", np.zeros((3, 20, 30), np.uint8))
    write_raster(tmp_path / "files" / "masks" / "a.tif", mask[None])
    rows = {
        "image": [Image.fromarray(np.zeros((20, 30, 3), np.uint8))] * 20,
        "mask": [Image.fromarray(mask)] * 20,
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    expected = {value: int((mask == value).sum()) for value in (0, 2, 255)}
    files = f"{tmp_path / 'files'}"
    for cache in (0, 10**6):
        counts = count_labels(
            load_sources([files, f"hf:{tmp_path / 'set'}"], LAND_COVER, cache_bytes=cache)
        )
        assert dict(counts.pixels) == {value: 21 * number for value, number in expected.items()}
        assert counts.images == {0: 21, 2: 21, 255: 21}
    stream = count_labels([load_source(f"hf-stream:{tmp_path / 'set'}", LAND_COVER)])
    assert dict(stream.pixels) == {value: STREAMED * number for value, number in expected.items()}
    assert stream.total is None
    assert "of streams the first 16 records" in stream.table("x", LAND_COVER)
    (scenes,) = load_sources(["synth:desert-city:2"], LAND_COVER)
    labels = np.concatenate([scene.read()[1] for scene in scenes])
    assert count_labels([scenes]).pixels[1] == int((labels == 1).sum())
    undrawn = count_labels([load_source("synth:desert-city:2", LAND_COVER)])
    assert "not known before they are drawn" in undrawn.table("x", LAND_COVER)
    undrawn.check("x", LAND_COVER.classes, LAND_COVER)


def test_streams_of_black_and_white_masks_are_refused_by_their_first_records(tmp_path):
    datasets = pytest.importorskip("datasets")
    mask = Image.fromarray(np.kron([[0, 255]], np.ones((8, 8))).astype(np.uint8))
    rows = {"image": [Image.fromarray(np.zeros((8, 16, 3), np.uint8))] * 2, "mask": [mask] * 2}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path)
    with pytest.raises(
        InputError, match=r"the first records of hf-stream:.* add --mask-values 0,255"
    ):
        count_labels([load_source(f"hf-stream:{tmp_path}", BUILDING)])
    stream = load_source(f"hf-stream:{tmp_path}", BUILDING, mask_values=[0, 255])
    assert dict(count_labels([stream]).pixels) == {0: 128, 1: 128}
    assert (stream.image(0, 0).read()[1] == np.asarray(mask) // 255).all()


def test_black_and_white_masks_of_more_than_two_classes_are_refused():
    white = count_labels([[pair([0, 255]), pair([0, 0])]])
    with pytest.raises(
        InputError,
        match=r"so only 'land' would be learned; .* add --mask-values 0,255; if",
    ):
        white.check_black_and_white("x", LAND_COVER)
    white.check_black_and_white("x", BUILDING)
    count_labels([[pair([0, 255, 1])]]).check_black_and_white("x", LAND_COVER)
