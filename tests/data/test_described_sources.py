"""Sources that a YAML file, an export or the data themselves describe."""

import json

import numpy as np
import pytest
from PIL import Image

from crossearth_hf.data import load_source, source_classes
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.labeled_images import PartialLabels
from crossearth_hf.data.sources import source_folder
from crossearth_hf.errors import InputError

datasets = pytest.importorskip("datasets")
RUN = read_classes("bare,roof,street,palm")
RNG = np.random.default_rng(0)
IDS = [RNG.integers(0, 4, (12, 10)).astype(np.uint8) for _ in range(4)]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def described(root, text, image="images/{}.png", mask="masks/{}.png", masks=IDS):
    """Four pairs under these names, and the file that describes them."""
    for index, ids in enumerate(masks):
        save(root / image.format(index), np.full((12, 10, 3), index, np.uint8))
        save(root / mask.format(index), ids)
    (root / "mine.yaml").write_text(text)
    return str(root / "mine.yaml")


def labels_of(source, label_set=RUN, **options):
    return [image.read()[1] for image in load_source(source, label_set, **options)]


@pytest.mark.parametrize(
    ("image", "mask", "text"),
    [
        ("images/{}.png", "masks/{}.png", "images: images\nmasks: masks\n"),
        ("a/{}.jpg", "a/{}_mask.png", "images: a/*.jpg\nmasks: a/*_mask.png\n"),
        ("x{}/image.png", "x{}/labels.png", "images: '*/image.png'\nmasks: '*/labels.png'\n"),
        ("i/deep/{}.png", "m/deep/{}.png", "images: i/**/*.png\nmasks: m/**/*.png\n"),
        (
            "images/img_{}.png",
            "masks/lab_{}.png",
            "images: images/img_*.png\nmasks: masks/lab_*.png\n",
        ),
    ],
)
def test_pairs_are_found_by_what_stars_stand_for(tmp_path, image, mask, text):
    source = described(tmp_path, text, image, mask)
    for found, ids in zip(labels_of(source), IDS, strict=True):
        np.testing.assert_array_equal(found, ids)
    names = [image.name for image in load_source(source, RUN)]
    assert len(set(names)) == 4
    assert str(source_folder(source)) == source


def test_values_of_a_source_win_over_those_of_the_run(tmp_path):
    text = "images: images\nmasks: masks\n"
    one = described(tmp_path / "a", f"{text}mask_offset: 1\n", masks=[ids + 1 for ids in IDS])
    tens = described(
        tmp_path / "b", f"{text}mask_values: [0, 10, 20, 30]\n", masks=[ids * 10 for ids in IDS]
    )
    for source in (one, tens):
        for options in ({}, {"mask_values": [3, 2, 1, 0]}):
            np.testing.assert_array_equal(labels_of(source, **options), IDS)


def test_the_classes_of_a_source_are_matched_by_name(tmp_path):
    text = "images: images\nmasks: masks\nclasses: [palm, street, roof, bare]\n"
    source = described(tmp_path, text)
    assert source_classes(source).classes == ("palm", "street", "roof", "bare")
    np.testing.assert_array_equal(labels_of(source), [3 - ids for ids in IDS])
    np.testing.assert_array_equal(labels_of(source, source_classes(source)), IDS)
    with pytest.raises(
        InputError, match=r"mine.yaml: the masks have the class 'palm', but the run has land, sea"
    ):
        load_source(source, read_classes("land,sea"))


def test_colors_and_ignored_ones_of_a_source(tmp_path):
    palette = np.array([(9, 0, 0), (0, 9, 0), (0, 0, 9), (7, 7, 7)], np.uint8)
    text = "images: images\nmasks: masks\nclasses: {bare: [9, 0, 0], roof: [0, 9, 0], street: [0, 0, 9]}\n"
    source = described(
        tmp_path, f"{text}ignored: ['#070707']\n", masks=[palette[ids] for ids in IDS]
    )
    np.testing.assert_array_equal(labels_of(source), [np.where(ids == 3, 255, ids) for ids in IDS])


def test_classes_may_lie_in_a_file_beside(tmp_path):
    source = described(tmp_path, "images: images\nmasks: masks\nclasses: names.yaml\n")
    (tmp_path / "names.yaml").write_text("classes: [bare, roof, street, palm]\n")
    assert source_classes(source) == RUN


def test_groups_by_a_pattern_on_paths(tmp_path):
    text = "images: '*/*.png'\nmasks: 'm/*/*.png'\ngroup: '^(town[12])'\n"
    for index, ids in enumerate(IDS):
        save(tmp_path / f"town{index % 2 + 1}" / f"{index}.png", np.zeros((12, 10, 3), np.uint8))
        save(tmp_path / "m" / f"town{index % 2 + 1}" / f"{index}.png", ids)
    (tmp_path / "mine.yaml").write_text(text)
    found = load_source(str(tmp_path / "mine.yaml"), RUN)
    assert [(image.name, image.group) for image in found] == [
        ("0", "town1"),
        ("2", "town1"),
        ("1", "town2"),
        ("3", "town2"),
    ]
    (tmp_path / "mine.yaml").write_text(text.replace("town[12]", "city"))
    with pytest.raises(InputError, match=r"finds nothing in .*town1/0\.png"):
        load_source(str(tmp_path / "mine.yaml"), RUN)


def test_partly_labeled_sources(tmp_path):
    masks = [np.where(ids == 1, 1, 255).astype(np.uint8) for ids in IDS]
    text = "images: images\nmasks: masks\nlabeled: [roof]\ncomplete: true\n"
    source = described(tmp_path, text, masks=masks)
    assert [image.partial for image in load_source(source, RUN)] == [
        PartialLabels((1,), complete=True)
    ] * 4
    assert source_classes(source) is None


IGNORING = {
    "values": ("classes: [bare, roof]\nignored: [9]\n", [1, 9, 255]),
    "from 1": ("classes: [bare, roof]\nignored: [9]\nmask_offset: 1\n", [2, 9, 0]),
    "colors": (
        "classes: {bare: '#0a0a0a', roof: '#ff0000'}\nignored: ['#000000']\n",
        [(255, 0, 0, 255), (0, 0, 0, 255), (0, 0, 0, 0)],
    ),
}


@pytest.mark.parametrize("kind", IGNORING)
@pytest.mark.parametrize("complete", ["true", "false"])
def test_ignored_values_are_not_the_rest_of_complete_labels(tmp_path, kind, complete):
    lines, values = IGNORING[kind]
    mask = np.repeat(np.array(values, np.uint8)[:, None], 10, axis=1)
    text = f"images: images\nmasks: masks\n{lines}labeled: [roof]\ncomplete: {complete}\n"
    source = described(tmp_path, text, masks=[mask])
    save(tmp_path / "images/0.png", np.zeros((3, 10, 3), np.uint8))
    (image,) = load_source(source, RUN)
    trained = image.partial.for_training(image.decode().labels)[:, 0]
    scored = image.read()[1][:, 0]
    without = (255, 255)
    if complete == "true":
        without = (254, 0)
    assert trained.tolist() == [1, 255, without[0]]
    assert scored.tolist() == [1, 255, without[1]]
    assert image.label_counts() == image.decode().label_counts()


def test_images_alone(tmp_path):
    source = described(tmp_path, "images: images\nmasks: masks\n")
    assert all((image.read()[1] == 255).all() for image in load_source(source, RUN, labeled=False))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("images: images\n", "has masks None; write fields"),
        (
            "images: images\nmasks: masks\nmask: 1\n",
            "has the field 'mask'; those of images and masks are images, masks",
        ),
        ("images: images\nmasks: nowhere/*.png\n", r"no file matches 'nowhere/\*.png'"),
        ("images: images\nmasks: masks/*1.png\n", "has no mask among .* stand for the same text"),
        (
            "images: images\nmasks: masks\nmask_values: a\n",
            "has mask_values 'a'; write whole numbers",
        ),
        ("images: images\nmasks: masks\nmask_offset: [1, 2]\n", "write one number"),
        (
            "images: images\nmasks: masks\nmask_offset: 1\nmask_values: [1, 2, 3, 4]\n",
            "mine.yaml: .*give one",
        ),
        ("images: images\nmasks: masks\nclasses: [bare]\n", "has 1 classes"),
        ("images: images\nmasks: masks\ngroup: '('\n", "is not a regular expression"),
        ("images: images\nmasks: masks\nignored: [0]\n", "has ignored and no classes"),
        ("images: images\nmasks: masks\ncomplete: true\n", "has complete and no labeled"),
        (
            "images: images\nmasks: masks\nlabeled: [moon]\n",
            "labeled 'moon' is not one of bare",
        ),
        (
            "images: images\nmasks: masks\nlabeled: [roof]\ncomplete: 1\n",
            "has complete 1; write true or false",
        ),
    ],
)
def test_files_that_are_refused(tmp_path, text, sentence):
    with pytest.raises(InputError, match=sentence):
        load_source(described(tmp_path, text), RUN)


LABEL_MAP = (
    "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroof:128,0,0::\nstreet:0,128,0::\n"
)


@pytest.mark.parametrize("kind", ["palette", "RGB"])
def test_an_export_of_cvat(tmp_path, kind):
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], np.uint8)
    for index in range(2):
        ids = IDS[index] % 3
        save(tmp_path / "JPEGImages" / f"{index}.jpg", np.zeros((12, 10, 3), np.uint8))
        mask = Image.fromarray(colors[ids])
        if kind == "palette":
            mask = Image.fromarray(ids)
            mask.putpalette(colors.ravel().tolist())
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(tmp_path / "SegmentationClass" / f"{index}.png")
    (tmp_path / "labelmap.txt").write_text(LABEL_MAP)
    classes = source_classes(str(tmp_path))
    assert (classes.classes, classes.colors[1]) == (("background", "roof", "street"), (128, 0, 0))
    for found, ids in zip(labels_of(str(tmp_path), classes), IDS, strict=False):
        np.testing.assert_array_equal(found, ids % 3)
    (tmp_path / "labelmap.txt").write_text("background:0,0::\n")
    with pytest.raises(
        InputError, match="has the line 'background:0,0::'; a line is name:red,green,blue"
    ):
        source_classes(str(tmp_path))


def test_a_data_set_of_the_form_of_transformers_example(tmp_path):
    """Parquet with the columns image and label, and id2label.json, as `run_semantic_segmentation` reads it."""
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    rows = {
        "image": [Image.new("RGB", (10, 12))] * 4,
        "label": [Image.fromarray(ids) for ids in IDS],
    }
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(
        tmp_path / "set" / "train-00000-of-00001.parquet"
    )
    source = f"hf:{tmp_path / 'set'}"
    assert source_classes(source) is None
    names = {"0": "palm", "1": "street", "2": "roof", "3": "bare"}
    (tmp_path / "set" / "id2label.json").write_text(json.dumps(names))
    assert source_classes(source).classes == tuple(names.values())
    np.testing.assert_array_equal(labels_of(source), [3 - ids for ids in IDS])
    np.testing.assert_array_equal(labels_of(source, read_classes("a,b,c,d")), IDS)
    stream = load_source(f"hf-stream:{tmp_path / 'set'}", RUN)
    seen = {stream.image(position, 0).read()[1].tobytes() for position in range(4)}
    assert seen == {(3 - ids).tobytes() for ids in IDS}


def test_an_image_folder_with_masks(tmp_path):
    """ImageFolder: a metadata file names the mask of every image."""
    for index, ids in enumerate(IDS):
        save(tmp_path / "set" / "train" / f"{index}.png", np.zeros((12, 10, 3), np.uint8))
        save(tmp_path / "set" / "train" / "masks" / f"{index}.png", ids)
    lines = [
        {"file_name": f"{index}.png", "mask_file_name": f"masks/{index}.png"} for index in range(4)
    ]
    (tmp_path / "set" / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    np.testing.assert_array_equal(labels_of(f"hf:{tmp_path / 'set'}"), IDS)


def test_classes_that_the_type_of_the_labels_names(tmp_path):
    label = datasets.Sequence(
        datasets.Sequence(datasets.ClassLabel(names=["palm", "street", "roof", "bare"]))
    )
    kinds = datasets.Features({"image": datasets.Image(), "label": label})
    rows = {"image": [Image.new("RGB", (10, 12))] * 2, "label": [ids.tolist() for ids in IDS[:2]]}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(tmp_path / "set")
    source = f"hf:{tmp_path / 'set'}"
    assert source_classes(source).classes == ("palm", "street", "roof", "bare")
    np.testing.assert_array_equal(labels_of(source), [3 - ids for ids in IDS[:2]])
