"""Masks of other values and orders than the label set's: mapped as asked, or refused with a remedy that works."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import PLACE, write_raster

from crossearth_hf.data import load_source
from crossearth_hf.data.labeled_images import ArrayPair
from crossearth_hf.errors import InputError
from crossearth_hf.labels import LABEL_SETS, get_label_set
from crossearth_hf.raster.writing import write_geotiff

datasets = pytest.importorskip("datasets")
RNG = np.random.default_rng(0)
SIZE = (20, 30)
BUILDING, LAND_COVER, ROAD = (get_label_set(name) for name in ("building", "land-cover", "road"))


def folder_of(root, masks, suffix="png"):
    """A data folder with these masks: arrays, pictures or the bytes of files."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / f"{index}.png")
        path = root / "masks" / f"{index}.{suffix}"
        if isinstance(mask, bytes):
            path.write_bytes(mask)
        elif suffix == "tif":
            write_raster(path, mask[None])
        else:
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    return str(root)


def drawn(values, size=SIZE):
    """(20, 30) uint8 in which every one of the values occurs."""
    ids = RNG.choice(np.array(values, np.uint8), size)
    ids.flat[: len(values)] = values
    return ids


def labels_of(source, label_set, **options):
    return [image.read()[1] for image in load_source(source, label_set, **options)]


def refusal(source, label_set, **options):
    with pytest.raises(InputError) as error:
        load_source(source, label_set, **options)
    return str(error.value)


def flags(sentence):
    """The values of every --mask-values that a sentence names."""
    return [
        [int(value) for value in text.split(",")]
        for text in re.findall(r"--mask-values ([\d,]+\d)", sentence)
    ]


def remedies(sentence):
    """What every flag that a sentence proposes is as an option of `load_source`."""
    offsets = [
        {"mask_offset": int(offset)} for offset in re.findall(r"--mask-offset (\d+)", sentence)
    ]
    return [{"mask_values": values} for values in flags(sentence)] + offsets


@pytest.mark.parametrize("kind", ["png", "tif", "hf", "hf array"])
def test_black_and_white_masks_are_refused_and_the_remedy_reads_them(tmp_path, kind):
    masks = [drawn([0, 255]), drawn([0])]
    if kind.startswith("hf"):
        as_png = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
        pixels = [Image.fromarray(np.zeros((*SIZE, 3), np.uint8))] * 2
        values = (
            [m[None].tolist() for m in masks]
            if "array" in kind
            else [Image.fromarray(m) for m in masks]
        )
        features = None if "array" in kind else as_png
        rows = {"image": pixels, "mask": values}
        data = datasets.Dataset.from_dict(rows, features=features)
        data.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "data")
        source = f"hf:{tmp_path / 'data'}"
    else:
        source = folder_of(tmp_path / "data", masks, kind)
    sentence = refusal(source, BUILDING)
    assert (
        "hold only 0 and 255, and 255 is ignored; if it means 'building', add --mask-values 0,255"
        in sentence
    )
    assert flags(sentence) == [[0, 255], [0, 1]]
    for found, mask in zip(labels_of(source, BUILDING, mask_values=[0, 255]), masks, strict=True):
        np.testing.assert_array_equal(found, (mask == 255).astype(np.uint8))
    for found, mask in zip(labels_of(source, BUILDING, mask_values=[0, 1]), masks, strict=True):
        np.testing.assert_array_equal(found, mask)


def test_masks_of_two_classes_with_ignored_pixels_are_no_mistake(tmp_path):
    masks = [drawn([0, 255]), drawn([0, 1, 255])]
    for found, mask in zip(labels_of(folder_of(tmp_path, masks), ROAD), masks, strict=True):
        np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize("label_set", [BUILDING, LAND_COVER])
def test_masks_of_255_alone_are_refused(tmp_path, label_set):
    source = folder_of(tmp_path, [drawn([255])] * 2)
    sentence = refusal(source, label_set)
    assert "every pixel of the masks" in sentence
    for values in flags(sentence):
        assert (labels_of(source, label_set, mask_values=values)[0] == 1).all()
    assert "is ignored" in refusal(
        source, label_set, mask_values=list(range(len(label_set.classes)))
    )


@pytest.mark.parametrize(
    ("label_set", "masks", "values"),
    [
        (LAND_COVER, [[1, 2, 3], [4, 5, 255]], [1, 2, 3, 4, 5]),
        (LAND_COVER, [[1, 5]], [1, 2, 3, 4, 5]),
        (LAND_COVER, [[0, 50, 100], [150, 200]], [0, 50, 100, 150, 200]),
        (BUILDING, [[0, 128]], [0, 128]),
        (BUILDING, [[1, 2]], [1, 2]),
        (BUILDING, [[7, 255]], [7, 255]),
    ],
)
def test_other_values_than_ids_are_refused_and_the_remedy_reads_them(
    tmp_path, label_set, masks, values
):
    masks = [drawn(each) for each in masks]
    source = folder_of(tmp_path, masks)
    sentence = refusal(source, label_set)
    assert "holds the label ids" in sentence
    (remedy,) = remedies(sentence)
    assert ("mask_offset" in remedy) == (values[0] == 1)
    for found, mask in zip(labels_of(source, label_set, **remedy), masks, strict=True):
        assert set(np.unique(found)) <= {*range(len(values)), 255}
        for index, value in enumerate(values):
            np.testing.assert_array_equal(found == index, mask == value)


def test_no_remedy_is_named_where_none_is_known(tmp_path):
    assert remedies(refusal(folder_of(tmp_path, [drawn([0, 1, 2, 3, 4, 6])]), LAND_COVER)) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, 1, 255], "names 3 values and the label set 'building' has 2 classes"),
        ([0, 0], "holds a value twice"),
        ([0, 256], "outside 0 to 255"),
        ([1, 255], r"0.png holds the values \[0\], which --mask-values 1,255 gives to no class"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, values, sentence):
    assert re.search(
        sentence, refusal(folder_of(tmp_path, [drawn([0, 255])]), BUILDING, mask_values=values)
    )


def test_windows_of_masks_are_mapped_too(tmp_path):
    mask = drawn([0, 255])
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    write_raster(tmp_path / "images" / "0.tif", np.zeros((3, *SIZE), np.uint8))
    write_raster(tmp_path / "masks" / "0.tif", mask[None])
    (pair,) = load_source(str(tmp_path), BUILDING, mask_values=[0, 255])
    np.testing.assert_array_equal(pair.open().read_labels(3, 4, 10, 20), mask[3:13, 4:24] // 255)
    assert not isinstance(pair.open(), ArrayPair)


def test_a_value_cannot_be_a_class_and_no_data(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    write_raster(tmp_path / "images" / "0.tif", np.zeros((3, *SIZE), np.uint8))
    write_raster(tmp_path / "masks" / "0.tif", drawn([0, 255])[None], nodata=255)
    assert "holds the id 255 where it declares no data" in refusal(
        str(tmp_path), BUILDING, mask_values=[0, 255]
    )


def with_palette(ids, colors):
    picture = Image.fromarray(ids)
    picture.putpalette([value for color in colors for value in color])
    return picture


@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_color_table_in_the_order_of_the_classes_is_read_by_its_numbers(tmp_path, name):
    label_set = LABEL_SETS[name]
    mask = drawn([*range(len(label_set.classes)), 255])
    colors = [*label_set.colors, *[(9, 9, 9)] * (255 - len(label_set.colors)), (0, 0, 0)]
    np.testing.assert_array_equal(
        labels_of(folder_of(tmp_path / "a", [with_palette(mask, colors)]), label_set)[0], mask
    )
    (tmp_path / "b" / "images").mkdir(parents=True)
    (tmp_path / "b" / "masks").mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "b" / "images" / "0.png")
    # As our own maps are, which serve as labels.
    target = tmp_path / "b" / "masks" / "0.tif"
    write_geotiff(
        target, mask[None], crs="EPSG:32636", transform=PLACE, nodata=255, label_set=label_set
    )
    np.testing.assert_array_equal(labels_of(str(tmp_path / "b"), label_set)[0], mask)


@pytest.mark.parametrize("form", ["png", "tif", "hf"])
def test_a_color_table_in_another_order_is_refused_and_the_remedy_reads_it(tmp_path, form):
    """What quantizing a picture in the label set's colors makes: values in the order of the palette."""
    ids = drawn([0, 1, 2, 3, 4])
    order = [3, 0, 4, 1, 2]  # the palette's colors are those of these classes
    values = np.argsort(order)[ids].astype(np.uint8)
    picture = with_palette(values, [LAND_COVER.colors[index] for index in order])
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), LAND_COVER.colorize(ids))
    source = folder_of(tmp_path / "data", [picture])
    if form == "tif":
        (tmp_path / "data" / "masks" / "0.png").unlink()
        path = write_raster(tmp_path / "data" / "masks" / "0.tif", values[None])
        with rasterio.open(path, "r+") as target:
            target.write_colormap(
                1, {index: LAND_COVER.colors[shown] for index, shown in enumerate(order)}
            )
    elif form == "hf":
        data = io.BytesIO()
        picture.save(data, "PNG")
        rows = {"image": [png_of(np.zeros((*SIZE, 3), np.uint8))], "mask": [data.getvalue()]}
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
        source = f"hf:{tmp_path / 'set'}"
    sentence = refusal(source, LAND_COVER)
    assert "its color table has another order" in sentence
    by_color, by_number = flags(sentence)
    np.testing.assert_array_equal(labels_of(source, LAND_COVER, mask_values=by_color)[0], ids)
    np.testing.assert_array_equal(labels_of(source, LAND_COVER, mask_values=by_number)[0], values)


def png_of(array):
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def test_color_tables_of_several_orders_are_refused_even_with_values(tmp_path):
    colors = [BUILDING.colors[1], BUILDING.colors[0]]
    masks = [with_palette(drawn([0, 1]), colors), with_palette(drawn([0, 1]), BUILDING.colors)]
    source = folder_of(tmp_path, masks)
    assert flags(refusal(source, BUILDING)) == [[1, 0], [0, 1]]
    assert "1.png shows the value 0 in the color of 'background'" in refusal(
        source, BUILDING, mask_values=[1, 0]
    )


@pytest.mark.parametrize(
    "colors",
    [[(v, v, v) for v in range(256)], [(7 * v % 256, 11, 200) for v in range(256)]],
    ids=["gray", "others"],
)
def test_color_tables_of_other_colors_are_read_by_their_numbers(tmp_path, colors):
    mask = drawn([0, 1, 255])
    np.testing.assert_array_equal(
        labels_of(folder_of(tmp_path, [with_palette(mask, colors)]), BUILDING)[0], mask
    )


def gray_png(values, bits):
    """A gray PNG of so few bits, by hand: Pillow writes none."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    planes = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(len(values), -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(planes, axis=1))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(("bits", "label_set"), [(1, BUILDING), (2, BUILDING), (4, LAND_COVER)])
def test_gray_masks_of_few_bits_keep_their_ids(tmp_path, bits, label_set):
    mask = drawn(list(range(len(label_set.classes))))
    found = labels_of(folder_of(tmp_path, [gray_png(mask, bits)]), label_set)[0]
    np.testing.assert_array_equal(found, mask)  # Pillow spreads 2 and 4 bits over 0..255
