"""A person's own data as Parquet: what is written reads back to the bit, and trains under the names of its classes."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image
from rasters import write_raster

from crossearth_hf.cli import main
from crossearth_hf.data import load_source, source_classes
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.errors import InputError
from crossearth_hf.hub.publishing import publish
from crossearth_hf.raster.scene import Reading
from crossearth_hf.scenarios.build import build_own_dataset, own_source

RNG = np.random.default_rng(0)
CLASSES = "bare,roof,street"


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """A raster of 30 x 20 pixels whose lower left quarter has no label, and a picture of 8 x 8."""
    root = tmp_path / "mine"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    pixels = RNG.integers(1, 255, (3, 20, 30)).astype(np.uint8)
    labels = RNG.integers(0, 3, (20, 30)).astype(np.uint8)
    labels[10:, :15] = 255
    write_raster(root / "images/a.tif", pixels)
    write_raster(root / "masks/a.tif", labels[None])
    Image.fromarray(RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(root / "images/b.png")
    Image.fromarray(RNG.integers(0, 3, (8, 8)).astype(np.uint8)).save(root / "masks/b.png")
    return root


def test_tiles_cover_an_image_once_and_read_back_to_the_bit(folder, tmp_path):
    out = tmp_path / "out"
    assert main(["build-dataset", str(folder), str(out), "--classes", CLASSES, "--tile", "16"]) == 0
    rows = list(load_dataset(str(out), split="train"))
    names = ["a_0_0_15_10", "a_15_0_30_10", "a_15_10_30_20", "b"]  # the lower left one has no label
    assert [row["name"] for row in rows] == names
    first, second = load_source(str(folder), read_classes(CLASSES))
    assert [row["pixel_size"] for row in rows] == [first.pixel_size] * 3 + [None]
    assert first.pixel_size == pytest.approx(0.5, abs=1e-3)
    windows = [(0, 0), (0, 15), (10, 15)]
    for row, (top, left) in zip(rows, windows, strict=False):
        part = slice(top, top + 10), slice(left, left + 15)
        np.testing.assert_array_equal(np.asarray(row["image"]), first.read()[0][part])
        np.testing.assert_array_equal(np.asarray(row["label"]), first.read()[1][part])
    np.testing.assert_array_equal(np.asarray(rows[3]["image"]), second.read()[0])
    facts = json.loads((out / "data/build.json").read_text())
    assert (facts["left_out"], facts["splits"]["train"]["images"], facts["incomplete"]) == (
        1,
        4,
        False,
    )
    held = sum(
        counts
        for name, counts in facts["splits"]["train"]["class_pixels"].items()
        if name != "ignored"
    )
    assert held == 450 + 64


def test_it_is_a_source_with_its_classes(folder, tmp_path):
    build_own_dataset(str(folder), tmp_path / "out", classes=CLASSES, tile=16)
    source = f"hf:{tmp_path / 'out'}"
    named = source_classes(source)
    assert named.classes == ("bare", "roof", "street")
    images = load_source(source, named)
    first = load_source(str(folder), named)[0].pixel_size
    assert [image.pixel_size for image in images] == [first, first, first, None]
    assert images[0].decode().pixel_size == images[0].pixel_size
    other_order = load_source(source, read_classes("street,roof,bare,palm"))
    np.testing.assert_array_equal(other_order[0].read()[1], 2 - images[0].read()[1])


def test_the_card_is_one_of_the_hub(folder, tmp_path):
    built = build_own_dataset(
        str(folder), tmp_path / "out", classes=CLASSES, validation_fraction=0.5
    )
    data = DatasetCard.load(built.out_dir / "README.md").data.to_dict()
    splits = data["dataset_info"][0]["splits"]
    assert [(split["name"], split["num_examples"]) for split in splits] == [
        ("train", 1),
        ("validation", 1),
    ]
    assert "license" not in data
    assert "mine" in data["pretty_name"]
    assert (built.out_dir / "preview.png").is_file()
    report = publish(built.out_dir, "someone/mine", dataset=True, private=True)
    assert "states no license" in report.describe()


def test_a_lone_scene_is_split_by_blocks(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "one" / part).mkdir(parents=True)
    ids = np.arange(400, dtype=np.int64).reshape(20, 20)
    # each pixel knows where it lies
    place = np.stack([ids // 256, ids % 256, np.zeros_like(ids)]).astype(np.uint8)
    write_raster(tmp_path / "one/images/a.tif", place + np.array([[[1]], [[0]], [[1]]], np.uint8))
    write_raster(tmp_path / "one/masks/a.tif", (ids[None] % 2).astype(np.uint8))
    build_own_dataset(
        str(tmp_path / "one"), tmp_path / "out", classes="even,odd", validation_fraction=0.2
    )
    seen = []
    for split in ("train", "validation"):
        for row in load_dataset(str(tmp_path / "out"), split=split):
            left, top, right, bottom = map(int, row["name"].split("_")[1:])
            here = ids[top:bottom, left:right]
            np.testing.assert_array_equal(np.asarray(row["image"])[..., 1], here % 256)
            np.testing.assert_array_equal(np.asarray(row["label"]), here % 2)
            seen.append((split, here))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([here.ravel() for _, here in seen])), ids.ravel()
    )
    assert 60 <= sum(here.size for split, here in seen if split == "validation") <= 120


def test_more_bands_and_pixels_without_data(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "four" / part).mkdir(parents=True)
    pixels = RNG.integers(1, 255, (4, 6, 8)).astype(np.uint8)
    pixels[:, 0, :5] = 0
    write_raster(tmp_path / "four/images/a.tif", pixels, nodata=0, photometric="minisblack")
    write_raster(tmp_path / "four/masks/a.tif", np.ones((1, 6, 8), np.uint8))
    build_own_dataset(
        str(tmp_path / "four"), tmp_path / "out", classes="land,sea", bands=[1, 2, 3, 4]
    )
    reading = Reading(bands=(1, 2, 3, 4), num_channels=4)
    source = f"hf:{tmp_path / 'out'}"
    (image,) = load_source(source, source_classes(source), reading=reading)
    found, labels = image.read()
    np.testing.assert_array_equal(found, pixels.transpose(1, 2, 0))
    expected = np.ones((6, 8))
    expected[0, :5] = 255
    np.testing.assert_array_equal(labels, expected)


def test_shards_are_as_large_as_said(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(own_source, "SHARD_PIXELS", 300)
    built = build_own_dataset(str(folder), tmp_path / "out", classes=CLASSES, tile=16)
    shards = built.build["shards"]
    assert [(shard["file"], shard["images"]) for shard in shards] == [
        ("train-00000-of-00002.parquet", 2),
        ("train-00001-of-00002.parquet", 2),
    ]
    assert len(load_dataset(str(tmp_path / "out"), split="train")) == 4


def test_colors_are_kept_and_a_rebuild_replaces(folder, tmp_path):
    (tmp_path / "classes.yaml").write_text(
        "classes: {bare: '#010203', roof: '#040506', street: '#070809'}"
    )
    out = tmp_path / "out"
    build_own_dataset(str(folder), out, classes=str(tmp_path / "classes.yaml"))
    assert read_classes(str(out / "classes.yaml")).colors == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    with pytest.raises(InputError, match="exists already; add --overwrite"):
        build_own_dataset(str(folder), out, classes=CLASSES)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt would be lost"):
        build_own_dataset(str(folder), out, classes=CLASSES, overwrite=True)
    (out / "notes.txt").unlink()
    build_own_dataset(str(folder), out, classes=CLASSES, overwrite=True)
    assert not (out / "classes.yaml").exists()
    assert (out / "id2label.json").is_file()


PARTLY = "images: images\nmasks: masks\nlabeled: [roof]\nmask_values: [0, 1, 2]\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["SOURCE", "OUT"],
            "the data do not name the classes; the masks hold the values 0, 1, 2 and 255: add --classes",
        ),
        (["SOURCE", "OUT", "--classes", CLASSES, "--tile", "0"], "tile 0 is not above 0"),
        (
            ["SOURCE", "OUT", "--classes", CLASSES, "--validation-fraction", "1"],
            "validation_fraction 1.0 is not from 0",
        ),
        (
            ["SOURCE", "OUT", "--workers", "3"],
            "--workers does not go with your own data; leave it out",
        ),
        (["SOURCE", "SOURCE", "--classes", CLASSES], "SOURCE exists already; add --overwrite"),
        (
            ["SOURCE", "SOURCE", "--classes", CLASSES, "--overwrite"],
            "was not written by build-dataset; move it away",
        ),
        (
            ["loveda", "raw", "OUT", "--tile", "3"],
            "--tile does not go with archives of the benchmark; leave it out",
        ),
        (["loveda", "OUT"], "is neither DATASET RAW_DIR OUT_DIR nor SOURCE OUT_DIR"),
        (["nothing", "OUT", "--classes", CLASSES], "nothing holds no folder 'images'"),
        (["SOURCE/partly.yaml", "OUT", "--classes", CLASSES], "labels only some classes"),
    ],
)
def test_mistakes_are_one_sentence(folder, tmp_path, capsys, arguments, sentence):
    (folder / "partly.yaml").write_text(PARTLY)
    texts = [
        text.replace("SOURCE", str(folder)).replace("OUT", str(tmp_path / "out"))
        for text in arguments
    ]
    assert main(["build-dataset", *texts]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert sentence.replace("SOURCE exists", f"{folder} exists") in error[0]
    assert not (tmp_path / "out").exists()


def test_no_tile_with_data_and_label_leaves_nothing_behind(folder, tmp_path):
    for path in (folder / "images").iterdir():
        path.unlink()
    write_raster(folder / "images/a.tif", np.zeros((3, 20, 30), np.uint8), nodata=0)
    with pytest.raises(
        InputError, match="no tile of the split train holds a label where its image has data"
    ):
        build_own_dataset(str(folder), tmp_path / "out", classes=CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
