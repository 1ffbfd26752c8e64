"""Masks as people have them: colors, palettes, a band per class, ids from 1: the same ids come out, or a sentence."""

import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import write_raster

from crossearth_hf.data import load_source
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.labeled_images import ArrayPair
from crossearth_hf.data.mask_values import read_as
from crossearth_hf.data.pairs import load_pairs
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LabelSet, get_label_set
from crossearth_hf.raster.scene import DEFAULT_READING

COLORS = ((228, 196, 120), (213, 94, 0), (90, 90, 90), (0, 158, 60))
BLACK = (0, 0, 0)
NAMED = read_classes("bare,roof,street,palm")
COLORED = LabelSet("custom", NAMED.classes, COLORS, ignored=(BLACK,))
IDS = np.random.default_rng(0).choice(np.array([0, 1, 2, 3, 255], np.uint8), (40, 30))
IDS.flat[:5] = (0, 1, 2, 3, 255)
PAINTED = np.array([*COLORS, *[BLACK] * 252], np.uint8)[IDS]


def folder_of(root, mask, suffix="png"):
    """A data folder of one pair, whose mask is a picture or (bands, H, W)."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
    write_raster(root / "images" / "0.tif", np.zeros((3, *IDS.shape), np.uint8))
    if suffix == "tif":
        write_raster(root / "masks" / "0.tif", mask)
    else:
        mask.save(root / "masks" / "0.png")
    return str(root)


def ids_of(source, label_set, **options):
    (image,) = load_source(source, label_set, **options)
    return image.read()[1]


def refusal(source, label_set, **options):
    with pytest.raises(InputError) as error:
        load_source(source, label_set, **options)
    return str(error.value)


def palette_picture(order):
    """The ids as a palette picture whose colors stand in another order: value v shows class order[v]."""
    values = np.argsort([*order, *range(len(order), 256)]).astype(np.uint8)[IDS]
    colors = [COLORS[index] for index in order] + [BLACK] * (256 - len(order))
    picture = Image.fromarray(values)
    picture.putpalette([value for color in colors for value in color])
    return picture


def test_colors_are_read_from_png_and_from_windows_of_rasters(tmp_path):
    png = folder_of(tmp_path / "png", Image.fromarray(PAINTED))
    np.testing.assert_array_equal(ids_of(png, COLORED), IDS)
    tif = folder_of(tmp_path / "tif", np.moveaxis(PAINTED, -1, 0), "tif")
    np.testing.assert_array_equal(ids_of(tif, COLORED), IDS)
    (pair,) = load_source(tif, COLORED)
    assert not isinstance(pair.open(), ArrayPair)
    np.testing.assert_array_equal(pair.open().read_labels(5, 3, 20, 20), IDS[5:25, 3:23])
    assert pair.label_counts() == {int(v): int((v == IDS).sum()) for v in np.unique(IDS)}


def test_transparent_pixels_of_colors_are_ignored(tmp_path):
    alpha = np.where(IDS == 255, 0, 255).astype(np.uint8)
    painted = np.dstack([PAINTED, alpha])
    painted[IDS == 255, :3] = COLORS[1]
    without = LabelSet("custom", NAMED.classes, COLORS)
    np.testing.assert_array_equal(
        ids_of(folder_of(tmp_path / "a", Image.fromarray(painted)), without), IDS
    )
    tif = folder_of(tmp_path / "b", np.moveaxis(painted, -1, 0), "tif")
    with rasterio.open(tmp_path / "b" / "masks" / "0.tif", "r+") as target:
        target.colorinterp = [*target.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    np.testing.assert_array_equal(ids_of(tif, without), IDS)


def test_a_known_set_is_read_in_its_colors(tmp_path):
    isprs = get_label_set("isprs")
    ids = np.arange(24, dtype=np.uint8).reshape(4, 6) % 6
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for part, picture in (
        ("images", np.zeros((4, 6, 3), np.uint8)),
        ("masks", isprs.colorize(ids)),
    ):
        Image.fromarray(picture).save(tmp_path / part / "a.png")
    np.testing.assert_array_equal(ids_of(str(tmp_path), isprs), ids)


def test_a_color_of_no_class_is_named_with_the_file_and_the_remedy(tmp_path):
    painted = PAINTED.copy()
    painted[3, 4] = (1, 2, 3)
    sentence = refusal(folder_of(tmp_path, Image.fromarray(painted)), COLORED)
    assert "masks/0.png holds the color #010203 of no class (bare #e4c478, roof #d55e00" in sentence
    assert "add it to the file of classes under 'classes' or 'ignored'" in sentence


def test_blurred_colors_are_refused_as_such(tmp_path):
    data = io.BytesIO()
    Image.fromarray(np.kron(PAINTED, np.ones((4, 4, 1), np.uint8))).save(data, "JPEG", quality=60)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (120, 160)).save(tmp_path / "images" / "0.png")
    Image.open(data).save(tmp_path / "masks" / "0.png")
    assert "JPEG compression or resampling" in refusal(str(tmp_path), COLORED)
    assert "it is a picture, or a mask that JPEG" in refusal(str(tmp_path), NAMED)


def test_colors_without_classes_in_colors_are_listed(tmp_path):
    sentence = refusal(folder_of(tmp_path, Image.fromarray(PAINTED)), NAMED)
    assert all(f"#{r:02x}{g:02x}{b:02x}" in sentence for r, g, b in (*COLORS, BLACK))
    assert "write a file classes.yaml" in sentence


def test_gray_in_three_bands_is_one_band(tmp_path):
    source = folder_of(tmp_path, Image.fromarray(np.dstack([IDS] * 3)))
    np.testing.assert_array_equal(ids_of(source, NAMED), IDS)


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_palette_is_read_by_the_colors_that_a_person_gave(tmp_path, kind):
    picture = palette_picture([2, 0, 3, 1])
    source = folder_of(tmp_path, picture)
    if kind == "tif":
        (tmp_path / "masks" / "0.png").unlink()
        path = write_raster(tmp_path / "masks" / "0.tif", np.asarray(picture)[None])
        with rasterio.open(path, "r+") as target:
            target.write_colormap(
                1, {value: COLORS[shown] for value, shown in enumerate([2, 0, 3, 1])}
            )
    np.testing.assert_array_equal(ids_of(source, COLORED), IDS)
    np.testing.assert_array_equal(ids_of(source, NAMED), np.asarray(picture))
    np.testing.assert_array_equal(
        ids_of(source, COLORED, mask_values=[0, 1, 2, 3]), np.asarray(picture)
    )


def test_a_palette_of_other_colors_is_refused_and_the_remedy_reads_its_numbers(tmp_path):
    picture = Image.fromarray(IDS)
    picture.putpalette([7 * value % 256 for value in range(768)])
    source = folder_of(tmp_path, picture)
    sentence = refusal(source, COLORED)
    assert "shows the value 0 in the color #00070e, which is that of no class" in sentence
    assert "--mask-values 0,1,2,3 if the values are ids" in sentence
    np.testing.assert_array_equal(ids_of(source, COLORED, mask_values=[0, 1, 2, 3]), IDS)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("high", [1, 255])
def test_a_band_per_class(tmp_path, classes, high):
    ids = np.where(classes > IDS, IDS, 255).astype(np.uint8)
    bands = np.stack([(ids == index) * high for index in range(classes)]).astype(np.uint8)
    named = read_classes([f"c{index}" for index in range(classes)])
    source = folder_of(tmp_path, bands, "tif")
    np.testing.assert_array_equal(ids_of(source, named), ids)
    (pair,) = load_source(source, named)
    np.testing.assert_array_equal(pair.open().read_labels(5, 3, 20, 20), ids[5:25, 3:23])


def test_bands_that_overlap_or_are_too_many_are_refused(tmp_path):
    bands = np.stack([index == IDS for index in range(4)]).astype(np.uint8)
    bands[2, 0, 0] = bands[3, 0, 0] = 1
    sentence = refusal(folder_of(tmp_path / "a", bands, "tif"), NAMED)
    assert "1 pixels are both 'bare' and 'street'" in sentence
    assert "a band for each of the 4 classes" in refusal(
        folder_of(tmp_path / "b", np.repeat(bands, 2, 0), "tif"), NAMED
    )


def test_values_do_not_go_with_colors(tmp_path):
    source = folder_of(tmp_path, Image.fromarray(PAINTED))
    assert "mask values are for masks of one" in refusal(source, COLORED, mask_offset=1)


def test_ids_from_one(tmp_path):
    values = np.where(IDS == 255, 0, IDS + 1).astype(np.uint8)
    source = folder_of(tmp_path / "a", Image.fromarray(values))
    assert "add --mask-offset 1 where 0 means no label" in refusal(source, NAMED)
    np.testing.assert_array_equal(ids_of(source, NAMED, mask_offset=1), IDS)
    tif = folder_of(tmp_path / "b", values[None], "tif")
    with rasterio.open(tmp_path / "b" / "masks" / "0.tif", "r+") as target:
        target.nodata = 0
    assert "if 0 means no label and the classes count from 1, add --mask-offset 1" in refusal(
        tif, NAMED
    )
    np.testing.assert_array_equal(ids_of(tif, NAMED, mask_offset=1), IDS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mask_offset": 1, "mask_values": [1, 2, 3, 4]}, "give one"),
        ({"mask_offset": 253}, "--mask-offset 253 is out of range"),
        ({"mask_offset": -1}, "out of range"),
    ],
)
def test_offsets_that_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        read_as(NAMED, **options)


def test_ignored_values(tmp_path):
    ignoring = LabelSet(
        "custom", NAMED.classes, NAMED.colors, ignored=(7,), has_chosen_colors=False
    )
    values = np.where(IDS == 255, 7, IDS).astype(np.uint8)
    np.testing.assert_array_equal(
        ids_of(folder_of(tmp_path, Image.fromarray(values)), ignoring), IDS
    )
    with pytest.raises(
        InputError, match=r"the value 0 is both 'bare' and ignored.*--mask-offset 1"
    ):
        read_as(LabelSet("custom", NAMED.classes, NAMED.colors, ignored=(0,)))


def test_the_classes_of_masks_in_another_order(tmp_path):
    swapped = read_classes("palm,street,roof,bare")
    masks = read_as(NAMED, of_masks=swapped)
    (pair,) = load_pairs(
        folder_of(tmp_path, Image.fromarray(IDS)), "*", masks, reading=DEFAULT_READING
    )
    np.testing.assert_array_equal(pair.read()[1], np.where(IDS == 255, 255, 3 - IDS.astype(int)))
    with pytest.raises(
        InputError, match="the masks have the class 'moon', but the run has bare, roof"
    ):
        read_as(NAMED, of_masks=read_classes("moon,bare"))
