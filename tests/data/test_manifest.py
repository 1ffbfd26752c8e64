"""Manifests: pairs of several sets that label some classes each, read, cropped and scored."""

import json

import numpy as np
import pytest
from PIL import Image

from crossearth_hf.data import load_source, source_folder
from crossearth_hf.data.class_list import read_classes
from crossearth_hf.data.labeled_images import PartialLabels
from crossearth_hf.data.manifest import read_manifest
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.training.augmentation import CropSettings, TrainingCrops

LAND_COVER = get_label_set("land-cover")
PAIRS = [
    {
        "set": "towns",
        "name": "a",
        "region": "Kampala",
        "gsd_m": 0.3,
        "labelled": [1],
        "complete": True,
    },
    {
        "set": "towns",
        "name": "b",
        "region": "Banepa",
        "gsd_m": None,
        "labeled": [1],
        "complete": False,
    },
    {"set": "fields", "name": "c", "region": "Kampala"},
]


@pytest.fixture
def manifest(tmp_path):
    """A manifest of three pairs of 32 pixels, the left half of each a building, the rest 255."""
    pairs = []
    mask = np.full((32, 32), 255, np.uint8)
    mask[:, :16] = 1
    for pair in PAIRS:
        image_path, mask_path = (
            tmp_path / f"{pair['name']}_{part}.png" for part in ("image", "mask")
        )
        Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(image_path)
        Image.fromarray(mask).save(mask_path)
        pairs.append(pair | {"image": image_path.name, "mask": mask_path.name})
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"pairs": pairs}))
    return path


def test_patterns_choose_sets_and_regions(manifest):
    for tail, names in (
        ("", ["towns/a", "towns/b", "fields/c"]),
        (":towns", ["towns/a", "towns/b"]),
        (":t*@Kam*", ["towns/a"]),
        (":*@Kampala", ["towns/a", "fields/c"]),
    ):
        assert [entry.name for entry in read_manifest(f"{manifest}{tail}")] == names
    assert source_folder(f"{manifest}:towns") == manifest.parent


def test_pairs_know_what_they_label_and_their_scale(manifest):
    first, second, third = load_source(str(manifest), LAND_COVER)
    assert (first.partial, first.pixel_size) == (PartialLabels((1,), True), 0.3)
    assert (second.partial, second.pixel_size) == (PartialLabels((1,), False), None)
    assert third.partial is None
    assert first.label_counts() == second.label_counts() == {1: 512, 255: 512}


def test_all_classes_labeled_completely_are_no_part(manifest):
    (first, *_) = load_source(f"{manifest}:towns", read_classes("land,building"))
    assert first.partial == PartialLabels((1,), True)
    content = json.loads(manifest.read_text())
    content["pairs"][0]["labelled"] = [0, 1]
    manifest.write_text(json.dumps(content))
    assert load_source(str(manifest), read_classes("land,building"))[0].partial is None
    content["pairs"][0]["labelled"] = [0, 9]
    manifest.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"labels the ids \[9\]; the label set 'land-cover' knows 0 to 4"
    ):
        load_source(str(manifest), LAND_COVER)


def test_masks_hold_no_class_that_is_not_listed(manifest):
    content = json.loads(manifest.read_text())
    content["pairs"][1]["labeled"] = [2, 3]
    manifest.write_text(json.dumps(content))
    with pytest.raises(
        InputError,
        match=r"b_mask.png holds the ids \[1\], and its manifest says .* labels \[2, 3\]",
    ):
        load_source(str(manifest), LAND_COVER)


def test_ignored_values_stay_ignored_in_complete_images(manifest):
    for name in "abc":
        path = manifest.parent / f"{name}_mask.png"
        mask = np.array(Image.open(path))
        mask[0] = 9
        Image.fromarray(mask).save(path)
    (manifest.parent / "classes.yaml").write_text("classes: [land, building]\nignored: [9]\n")
    run = read_classes(str(manifest.parent / "classes.yaml"))
    first, second, third = load_source(str(manifest), run)
    trained = first.partial.for_training(first.decode().labels)
    assert (trained[0] == 255).all()
    assert (trained[1:, 16:] == 254).all()
    assert (first.read()[1][0] == 255).all()
    assert first.label_counts() == {1: 496, 254: 496, 255: 32}
    assert second.label_counts() == third.label_counts() == {1: 496, 255: 528}


def test_scores_count_complete_images_whole(manifest):
    first, second, third = load_source(str(manifest), LAND_COVER)
    assert np.unique(first.read()[1]).tolist() == [0, 1]
    assert np.unique(second.read()[1]).tolist() == np.unique(third.read()[1]).tolist() == [1, 255]
    assert first.decode().label_counts() == {1: 512, 255: 512}


@pytest.mark.parametrize(
    ("tail", "rest", "unlabeled"),
    [
        (":towns@Kampala", 254, [True, False, True, True, True]),
        (":towns@Banepa", 255, [True, True, True, True, True]),
    ],
)
def test_crops_say_what_unlabeled_pixels_may_be(manifest, tail, rest, unlabeled):
    sources = [
        load_source(f"{manifest}{tail}", LAND_COVER),
        load_source(f"{manifest}:fields", LAND_COVER),
    ]
    settings = CropSettings(48, relative_to_crop=False, scale_range=(1, 1))
    crops = TrainingCrops(sources, [1, 1e-9], settings, 0, 10, num_classes=5)
    item = crops[0]
    assert item["labels"][:32, :32].unique().tolist() == [1, rest]
    assert item["labels"][32:].unique().tolist() == [255]  # beyond the image
    assert item["unlabeled_classes"].tolist() == unlabeled
    complete = TrainingCrops(sources[1:], None, settings, 0, 10, num_classes=5)
    assert "unlabeled_classes" not in complete[0]
    mixed = TrainingCrops(sources, [1e-9, 1], settings, 0, 10, num_classes=5)
    assert not mixed[0]["unlabeled_classes"].any()


@pytest.mark.parametrize(
    ("content", "tail", "message"),
    [
        ("{}", "", "holds no list of pairs"),
        ('{"pairs": [3]}', "", "holds no list of pairs"),
        ('{"pairs": [{"mask": "m.png"}]}', "", "has a pair whose image is None"),
        (
            '{"pairs": [{"image": "i", "mask": "m", "labeled": 1}]}',
            "",
            "labeled 1 and complete False; write a list",
        ),
        (
            '{"pairs": [{"image": "i", "mask": "m", "labeled": []}]}',
            "",
            r"labeled \[\] and complete False; write a list",
        ),
        ('{"pairs": [{"image": "i", "mask": "m", "gsd_m": -1}]}', "", "the gsd_m -1; write meters"),
        (
            '{"pairs": [{"image": "i", "mask": "m", "set": "towns"}]}',
            ":cities",
            "matches no pair; .* sets are towns",
        ),
        (
            '{"pairs": [{"image": "i", "mask": "m", "set": "towns", "region": "Chico"}]}',
            ":t*@Kampala",
            "matches no pair; .* the regions of 't\\*' are Chico",
        ),
        ('{"pairs": []}', "", "matches no pair; .* the file holds none"),
    ],
)
def test_wrong_manifests_are_refused(tmp_path, content, tail, message):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_source(f"{path}{tail}", LAND_COVER)
