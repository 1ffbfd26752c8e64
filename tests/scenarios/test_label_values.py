"""Published colors and numbers become ids; what is not a class is counted and named."""

import numpy as np
import pytest
from miniature_archives import ISPRS_COLORS, class_map, encoded, isprs_colored, picture, tiff

from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.label_values import mapped_ids, palette_ids
from crossearth_hf.scenarios.build.readers.isprs import isprs_palette, to_pure_colors

PALETTE = {(255, 255, 255): 0, (0, 0, 255): 1, (0, 0, 0): 255}


def raw(tmp_path, content, name="label.tif"):
    (tmp_path / name).write_bytes(content)
    return RawFolder.open(tmp_path).files(name)[0]


def test_colors_become_ids(tmp_path):
    colors = np.array([[[255, 255, 255], [0, 0, 255]], [[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert palette_ids(raw(tmp_path, tiff(colors)), PALETTE).tolist() == [[0, 1], [255, 0]]


def test_strange_colors_are_counted_and_the_first_is_named(tmp_path):
    colors = np.zeros((1100, 40, 3), np.uint8)  # more than one strip
    colors[600, 7] = 9, 8, 7
    colors[1050:1052, 3] = 1, 0, 0
    with pytest.raises(
        InputError,
        match=r"has 3 pixels of colors .* the first 9, 8, 7 at row 600, column 7; known are",
    ):
        palette_ids(raw(tmp_path, tiff(colors)), PALETTE)


def test_the_isprs_palette_merges_for_rescuenet():
    rescue = get_label_set("rescue")
    ids = {name: isprs_palette(rescue)[color] for name, color in ISPRS_COLORS.items()}
    assert {name: rescue.id2label.get(value, value) for name, value in ids.items()} == {
        "impervious_surface": "impervious_surface",
        "building": "building",
        "low_vegetation": "vegetation",
        "tree": "vegetation",
        "car": "car",
        "clutter": "clutter",
        "boundary": 255,
    }


def test_the_two_published_defects_are_repaired():
    """Colors that users of the data have reported from the tiles 6_7 (the first) and 4_12."""
    found = np.array([[[252, 255, 0], [9, 222, 221], [225, 227, 227]]], np.uint8)
    wanted = [ISPRS_COLORS[name] for name in ("car", "low_vegetation", "impervious_surface")]
    assert to_pure_colors(found).tolist() == [list(map(list, wanted))]
    assert (to_pure_colors(isprs_colored(np.arange(7))[None]) == isprs_colored(np.arange(7))).all()


def test_numbers_become_ids(tmp_path):
    mask = class_map(0, 30, 40, 4)
    ids = mapped_ids(raw(tmp_path, encoded(mask, "PNG"), "m.png"), {0: 255, 1: 0, 2: 1, 3: 1})
    assert (ids == np.array([255, 0, 1, 1])[mask]).all()
    mask[20:22, 5] = 77
    with pytest.raises(
        InputError,
        match=r"2 pixels of ids .* the first 77 at row 20, column 5; known are 0, 1, 2, 3:",
    ):
        mapped_ids(raw(tmp_path, encoded(mask, "PNG"), "m.png"), {0: 255, 1: 0, 2: 1, 3: 1})


def test_images_are_no_labels(tmp_path):
    with pytest.raises(InputError, match="has 3 bands of uint8 where 1 of uint8"):
        mapped_ids(raw(tmp_path, tiff(picture(0, 20, 20))), {0: 0})
    with pytest.raises(InputError, match="has 1 bands of uint16 where 3 of uint8"):
        palette_ids(raw(tmp_path, tiff(picture(0, 20, 20, 1, "uint16"))), PALETTE)
