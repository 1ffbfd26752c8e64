"""A mask for each class: which files are put together, and to what."""

import numpy as np
import pytest
from PIL import Image
from rasters import write_raster

from crossearth_hf.data import load_source, source_classes
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.labeled_images import PartialLabels
from crossearth_hf.errors import InputError

RUN = read_classes("background,building,road,palm")
BUILDING = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8) * 255
ROAD = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.uint8) * 7
BUILDING_AND_ROAD = np.array([[1, 1, 255, 255], [1, 2, 2, 2], [255, 255, 255, 255]])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two images; the second one has no mask of a road."""
    for name in "ab":
        save(tmp_path / f"images/{name}.png", np.full((3, 4, 3), 9, np.uint8))
        save(tmp_path / f"masks/{name}_building.png", BUILDING)
    save(tmp_path / "masks/a_road.png", ROAD)
    return tmp_path


def described(folder, *lines, masks=("building: masks/*_building.png", "road: masks/*_road.png")):
    texts = ["images: images/*.png", "masks:", *(f"  {line}" for line in masks), *lines]
    (folder / "mine.yaml").write_text("\n".join(texts))
    return str(folder / "mine.yaml")


def test_the_later_class_lies_on_top_and_a_line_counts_the_overlap(folder):
    lines = []
    source = described(folder)
    first, second = load_source(source, RUN, tell=lines.append)
    np.testing.assert_array_equal(first.read()[1], BUILDING_AND_ROAD)
    np.testing.assert_array_equal(second.read()[1], np.where(BUILDING, 1, 255))
    assert lines == [
        f"{source}: masks of different classes overlap in 1 pixels; the later class lies on top"
    ]
    assert first.label_counts() == {1: 3, 2: 3, 255: 6}
    assert first.partial == second.partial == PartialLabels((1, 2), complete=False)
    assert source_classes(source).classes == ("building", "road")
    assert first.decode().partial == first.partial

    other_order = described(
        folder, masks=("road: masks/*_road.png", "building: masks/*_building.png")
    )
    np.testing.assert_array_equal(load_source(other_order, RUN)[0].read()[1][1], [1, 1, 2, 2])


def test_pixels_that_no_mask_shows(folder):
    source = described(folder, "unlabeled: background")
    first, second = load_source(source, RUN)
    np.testing.assert_array_equal(
        first.read()[1], np.where(BUILDING_AND_ROAD == 255, 0, BUILDING_AND_ROAD)
    )
    np.testing.assert_array_equal(second.read()[1], BUILDING // 255)
    assert first.partial is None
    assert source_classes(source).classes == ("background", "building", "road")

    source = described(folder, "unlabeled: others")
    first = load_source(source, RUN)[0]
    windows = first.open()
    assert first.partial.unlabeled_classes(4) == [True, False, False, True]
    trained = first.partial.for_training(windows.read_labels(0, 0, 3, 4))
    np.testing.assert_array_equal(
        trained, np.where(BUILDING_AND_ROAD == 255, 254, BUILDING_AND_ROAD)
    )
    np.testing.assert_array_equal(
        first.read()[1], np.where(BUILDING_AND_ROAD == 255, 0, BUILDING_AND_ROAD)
    )
    assert source_classes(source) is None
    with pytest.raises(
        InputError, match="shows all classes, building, road: no other is left; name the class of"
    ):
        load_source(source, read_classes("building,road"))


def test_rasters_are_read_by_windows(tmp_path):
    (tmp_path / "images").mkdir()
    write_raster(tmp_path / "images/a.tif", np.full((3, 3, 4), 9, np.uint8))
    write_raster(tmp_path / "a_building.tif", BUILDING[None], nodata=0)
    write_raster(tmp_path / "a_road.tif", ROAD[None])
    source = described(tmp_path, masks=("building: '*_building.tif'", "road: '*_road.tif'"))
    (tmp_path / "mine.yaml").write_text(
        (tmp_path / "mine.yaml").read_text().replace("*.png", "*.tif")
    )
    (image,) = load_source(source, RUN)
    assert image.has_windows
    np.testing.assert_array_equal(image.open().read_labels(1, 1, 2, 3), BUILDING_AND_ROAD[1:, 1:])
    np.testing.assert_array_equal(image.read()[1], BUILDING_AND_ROAD)


def test_a_png_export_of_label_studio(tmp_path):
    """A file for every brush stroke; images go by the ids of the tasks."""
    save(tmp_path / "images/12.png", np.zeros((3, 4, 3), np.uint8))
    save(tmp_path / "images/7.png", np.zeros((3, 4, 3), np.uint8))
    left, right = BUILDING.copy(), BUILDING.copy()
    left[:, 1:], right[:, :1] = 0, 0
    for name, mask in {
        "task-12-annotation-3-by-1-tag-building-0": left,
        "task-12-annotation-3-by-1-tag-building-1": right,
        "task-12-annotation-3-by-1-tag-road-0": ROAD,
        "task-7-annotation-4-by-1-tag-road-0": ROAD,
    }.items():
        save(tmp_path / f"masks/{name}.png", mask)
    masks = [
        f"{name}: masks/task-*-annotation-*-by-*-tag-{name}-*.png" for name in ("building", "road")
    ]
    labels = [image.read()[1] for image in load_source(described(tmp_path, masks=masks), RUN)]
    np.testing.assert_array_equal(labels[0], BUILDING_AND_ROAD)
    np.testing.assert_array_equal(labels[1], np.where(ROAD, 2, 255))


def test_groups_and_images_alone(folder):
    source = described(folder, "group: '(.)[.]png$'")
    assert [image.group for image in load_source(source, RUN)] == ["a", "b"]
    assert [image.mask for image in load_source(source, RUN, labeled=False)] == [None, None]


def wrong_size(folder):
    save(folder / "masks/b_road.png", ROAD[:2])


def empty(folder):
    for path in (folder / "masks").iterdir():
        save(path, np.zeros((3, 4), np.uint8))


@pytest.mark.parametrize(
    ("change", "lines", "masks", "message"),
    [
        (
            None,
            [],
            ["house: masks/*_building.png"],
            "a class of masks is 'house'; it must be 'ignored' or one of",
        ),
        (None, [], ["road: masks/*.jpg"], "no file matches 'masks/\\*.jpg'"),
        (
            None,
            [],
            ["road: masks/a_*.png"],
            "no mask of 'road' belongs to an image; .* the same text in .*, such as a",
        ),
        (
            None,
            ["classes: [a, b]"],
            ["road: masks/*_road.png"],
            "has the field 'classes'; those of a mask for each",
        ),
        (
            None,
            ["unlabeled: 3"],
            ["road: masks/*_road.png"],
            "has unlabeled 3; write it as one text",
        ),
        (None, [], ["road: [1]"], "has masks .*; write 'CLASS: PATTERN' for each class"),
        (wrong_size, [], ["road: masks/*_road.png"], "b.png is 4x3 pixels and .*b_road.png is 4x2"),
        (
            empty,
            [],
            ["road: masks/*_road.png"],
            "the masks are 0 everywhere; values above 0 are the class",
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(folder, change, lines, masks, message):
    if change is not None:
        change(folder)
    with pytest.raises(InputError, match=message):
        load_source(described(folder, *lines, masks=masks), RUN)
