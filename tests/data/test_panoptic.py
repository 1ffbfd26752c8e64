"""Panoptic masks of COCO's form: segments become classes by the names of their categories."""

import json

import numpy as np
import pytest
from PIL import Image

from crossearth_hf.data import load_source, source_classes
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.labeled_images import PartialLabels
from crossearth_hf.errors import InputError

RUN = read_classes("road,palm,roof")
ROOF, STREET, CROWD, PALM = 5, 300, 70_000, 256 * 256 * 3 + 256 * 2 + 1
SEGMENTS = np.array([[ROOF, ROOF, 0], [STREET, CROWD, PALM]])
CATEGORIES = [
    {"id": 184, "name": "roof", "isthing": 1, "color": [10, 20, 30]},
    {"id": 7, "name": "palm", "isthing": 1, "color": [40, 50, 60]},
    {"id": 92, "name": "road", "isthing": 0, "color": [70, 80, 90]},
    {"id": 3, "name": "sky", "isthing": 0, "color": [1, 1, 1]},
]
INFO = [
    {"id": ROOF, "category_id": 184, "iscrowd": 0, "area": 2},
    {"id": STREET, "category_id": 92, "iscrowd": 0},
    {"id": CROWD, "category_id": 7, "iscrowd": 1},
    {"id": PALM, "category_id": 7},
]


def as_colors(segments):
    return np.stack([segments % 256, segments // 256 % 256, segments // 256**2], axis=-1).astype(
        np.uint8
    )


@pytest.fixture
def folder(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.full((2, 3, 3), 9, np.uint8)).save(tmp_path / "images/000012.jpg")
    Image.fromarray(as_colors(SEGMENTS)).save(tmp_path / "masks/000012.png")
    return tmp_path


def described(folder, *lines, info=INFO, categories=CATEGORIES, name="000012.png"):
    annotations = [{"image_id": 12, "file_name": name, "segments_info": info}]
    content = {"images": [], "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    texts = ["images: images", "masks: masks", "panoptic: panoptic.json", *lines]
    (folder / "mine.yaml").write_text("\n".join(texts))
    return str(folder / "mine.yaml")


def test_segments_get_their_class_by_name(folder):
    (image,) = load_source(described(folder), RUN)
    np.testing.assert_array_equal(image.read()[1], [[2, 2, 255], [0, 255, 1]])
    np.testing.assert_array_equal(image.open().read_labels(1, 0, 1, 2), [[0, 255]])
    assert image.label_counts() == {0: 1, 1: 1, 2: 2, 255: 2}
    assert image.partial is None


def test_the_file_names_classes_and_colors(folder):
    found = source_classes(described(folder))
    assert found.classes == ("roof", "palm", "road", "sky")
    assert found.colors[0] == (10, 20, 30)
    assert source_classes(described(folder, "ignored: [sky]")).classes == ("roof", "palm", "road")
    without = [{"id": item["id"], "name": item["name"]} for item in CATEGORIES]
    assert source_classes(described(folder, categories=without)).classes == (
        "roof",
        "palm",
        "road",
        "sky",
    )


def test_categories_may_be_ignored_and_labels_be_partial(folder):
    source = described(folder, "ignored: [palm]", "labeled: [roof, road]", "complete: true")
    (image,) = load_source(source, RUN)
    assert image.partial == PartialLabels((2, 0), complete=True, is_marked=True)
    np.testing.assert_array_equal(image.decode().labels, [[2, 2, 254], [0, 255, 255]])


def test_crowds_and_ignored_categories_stay_ignored_where_labels_are_complete(folder):
    source = described(folder, "ignored: [palm]", "labeled: [roof]", "complete: true")
    (image,) = load_source(source, RUN)
    labels = image.decode().labels
    np.testing.assert_array_equal(image.partial.for_training(labels)[:, 1:], [[2, 254], [255, 255]])
    np.testing.assert_array_equal(image.read()[1][:, 1:], [[2, 0], [255, 255]])


def gray(folder):
    Image.fromarray(SEGMENTS.astype(np.uint8)).save(folder / "masks/000012.png")


@pytest.mark.parametrize(
    ("change", "lines", "options", "message"),
    [
        (
            None,
            [],
            {"info": INFO[1:]},
            r"000012.png holds the segments \[5\], which the JSON file does not list",
        ),
        (None, [], {"name": "13.png"}, "has no annotation with the file_name 000012.png"),
        (
            None,
            [],
            {"categories": CATEGORIES[1:]},
            r"gives 000012.png the categories \[184\], which it does not list",
        ),
        (None, [], {"info": [{"id": 5}]}, "is of another form .*category_id"),
        (None, [], {"categories": [{"id": 1}]}, "is of another form .*name"),
        (None, [], {"categories": [*CATEGORIES, CATEGORIES[0]]}, "two of one id"),
        (None, ["ignored: [tree]"], {}, "has no category 'tree', which is to be ignored"),
        (
            None,
            ["mask_offset: 1"],
            {},
            "has the field 'mask_offset'; those of panoptic masks are images, masks,",
        ),
        (gray, [], {}, "000012.png is not an 8-bit RGB picture"),
    ],
)
def test_mistakes_are_named_with_their_remedy(folder, change, lines, options, message):
    if change is not None:
        change(folder)
    with pytest.raises(InputError, match=message):
        load_source(described(folder, *lines, **options), RUN)


def test_a_category_that_the_run_lacks_is_named(folder):
    with pytest.raises(
        InputError, match="segments of the category 'palm', but the run has roof, road; add it"
    ):
        load_source(described(folder), read_classes("roof,road"))


def test_pixel_maps_of_stuff_go_by_the_values_of_their_classes(tmp_path):
    """COCO's pixel maps hold the category ids of stuff, from 92 on, and 183 for all else."""
    for part in ("images", "pixelmaps"):
        (tmp_path / part).mkdir()
    Image.fromarray(np.full((1, 4, 3), 9, np.uint8)).save(tmp_path / "images/1.jpg")
    Image.fromarray(np.array([[183, 149, 92, 255]], np.uint8)).save(tmp_path / "pixelmaps/1.png")
    lines = [
        "images: images",
        "masks: pixelmaps",
        "classes: [road, banner]",
        "mask_values: [149, 92]",
        "ignored: [183]",
    ]
    (tmp_path / "stuff.yaml").write_text("\n".join(lines))
    (image,) = load_source(str(tmp_path / "stuff.yaml"), read_classes("banner,road"))
    np.testing.assert_array_equal(image.read()[1], [[255, 1, 0, 255]])
