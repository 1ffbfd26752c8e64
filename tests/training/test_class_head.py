"""Other classes: a new head that keeps what keeps its name, the person's colors, and the question for classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_runs import make_workplace, settings

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set, label_set_of
from crossearth_hf.training.baseline import FeaturePyramidSegmenter
from crossearth_hf.training.run_classes import run_classes
from crossearth_hf.training.starting_model import build_model
from crossearth_hf.training.trainer import train

KEPT = {"Building": 1, "water": 3}
"""Classes of land-cover that the tests keep, and their rows."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("classes"))


def saved_model(workplace, folder, model_class):
    land_cover = get_label_set("land-cover")
    config = json.loads((workplace / "tiny.json").read_text())
    config |= {"id2label": land_cover.id2label, "label2id": land_cover.label2id}
    torch.manual_seed(5)
    model = model_class(CrossEarthForSemanticSegmentation.config_class(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("model_class", "name"),
    [
        (CrossEarthForSemanticSegmentation, "class_predictor"),
        (FeaturePyramidSegmenter, "classifier"),
    ],
)
@pytest.mark.parametrize("names", ["roof,water,palm,Building,street", "palm,Building,water"])
def test_rows_of_classes_that_keep_their_names_are_kept(
    workplace, tmp_path, model_class, name, names
):
    folder = saved_model(workplace, tmp_path / "start", model_class)
    config = settings(workplace, "unused", model=folder, classes=names, adaptation="full")
    told = []
    model = build_model(config, config.label_set, tell=told.append)
    old = load_file(tmp_path / "start" / "model.safetensors")
    for key, new in getattr(model, name).named_parameters():
        before, rows = old[f"{name}.{key}"], names.split(",")
        for row, each in enumerate(rows):
            same = [index for index in range(5) if torch.equal(new[row], before[index])]
            assert same == ([KEPT[each]] if each in KEPT else []) or key == "bias"
            if each in KEPT:
                assert torch.equal(new[row], before[KEPT[each]])
        if name == "class_predictor":
            assert torch.equal(new[-1], before[-1])  # "no object"
    assert told == [
        f"'{folder}' gets a new class head for {', '.join(names.split(','))}; what it knows of "
        f"{', '.join(each for each in names.split(',') if each in KEPT)} is kept"
    ]
    others = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, old.get(key, value + 1))
    }
    assert others <= {f"{name}.weight", f"{name}.bias"}


def test_a_run_is_not_resumed_with_other_names_in_its_file_of_classes(workplace, tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("classes: [bare, roof, street, palm, pond]")
    run = {
        "classes": [str(path)],
        "max_steps": 1,
        "warmup_steps": 0,
        "output_dir": str(tmp_path / "run"),
    }
    train(settings(workplace, "unused", **run))
    path.write_text("classes: [bare, street, roof, palm, pond]")
    with pytest.raises(
        InputError, match=r"with the classes .*'roof', 'street'.*, not bare, street, roof"
    ):
        train(settings(workplace, "unused", **run, resume_from_checkpoint=True))


def test_the_same_classes_keep_the_head_and_say_nothing(workplace, tmp_path):
    folder = saved_model(workplace, tmp_path / "start", CrossEarthForSemanticSegmentation)
    told = []
    model = build_model(
        settings(workplace, "unused", model=folder), get_label_set("land-cover"), tell=told.append
    )
    assert torch.equal(
        model.class_predictor.weight,
        load_file(tmp_path / "start" / "model.safetensors")["class_predictor.weight"],
    )
    assert not told


def test_factors_of_the_old_classes_are_dropped(workplace, tmp_path):
    folder = saved_model(workplace, tmp_path / "start", CrossEarthForSemanticSegmentation)
    values = json.loads((tmp_path / "start" / "config.json").read_text()) | {
        "class_factors": [1, 0.5, 0.5, 1, 1]
    }
    (tmp_path / "start" / "config.json").write_text(json.dumps(values))
    config = settings(workplace, "unused", model=folder, classes="a,b")
    assert build_model(config, config.label_set).config.class_factors is None


def test_names_and_colors_reach_the_model_and_the_next_run(workplace, tmp_path):
    lines = "".join(f"  c{index}: [{index}, 100, 9]\n" for index in range(5))
    (tmp_path / "classes.yaml").write_text(f"classes:\n{lines}")
    given = str(tmp_path / "classes.yaml")
    run = train(settings(workplace, tmp_path / "run", classes=given, max_steps=1, warmup_steps=0))
    config = CrossEarthForSemanticSegmentation.from_pretrained(run).config
    assert label_set_of(config).classes == ("c0", "c1", "c2", "c3", "c4")
    assert label_set_of(config).colors[2] == (2, 100, 9)
    again = settings(workplace, tmp_path / "next", model=str(run), classes=[])
    assert run_classes(again) == label_set_of(config)
    assert build_model(again, run_classes(again)).config.class_colors == config.class_colors


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ([0, 1, 2], "the values 0, 1, 2: add --classes NAME_OF_0,NAME_OF_1,NAME_OF_2 in"),
        (
            [1, 2, 255],
            "the values 1, 2 and 255: add --classes NAME_OF_1,NAME_OF_2 --mask-offset 1 in",
        ),
        ([10, 20], "--classes NAME_OF_10,NAME_OF_20 --mask-values 10,20 in"),
        ([0, 255], "--classes background,NAME --mask-values 0,255 in"),
    ],
)
def test_where_nobody_names_the_classes_the_run_says_what_it_found_and_asks(
    workplace, tmp_path, values, remedy
):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "images" / "a.png")
    mask = np.resize(np.array(values, np.uint8), (20, 30))
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError) as error:
        run_classes(settings(workplace, "unused", train_data=str(tmp_path), classes=[]))
    assert remedy in str(error.value)


def test_drawings_name_their_classes(workplace):
    found = run_classes(settings(workplace, "unused", train_data="synth:desert-city:1", classes=[]))
    assert found == get_label_set("land-cover")


def test_training_masks_that_count_from_one_are_refused_where_a_class_would_be_left_over(
    workplace, tmp_path
):
    for part in ("images", "masks"):
        (tmp_path / "data" / part).mkdir(parents=True)
    Image.new("RGB", (80, 80)).save(tmp_path / "data" / "images" / "a.png")
    Image.fromarray(np.resize(np.array([1, 2, 3], np.uint8), (80, 80))).save(
        tmp_path / "data" / "masks" / "a.png"
    )
    changes = {"train_data": str(tmp_path / "data"), "max_steps": 1, "warmup_steps": 0}
    with pytest.raises(
        InputError, match=r"the ids 1 to 3 but never 0.*--mask-offset 1.*--mask-values 0,1,2,3,4"
    ):
        train(settings(workplace, tmp_path / "a", **changes))
    for name, remedy in (("b", {"mask_offset": 1}), ("c", {"mask_values": [0, 1, 2, 3, 4]})):
        train(settings(workplace, tmp_path / name, **changes, **remedy))
