"""The checkpoint that comes with a clone: its size, its card, and the scores that the card states."""

import re

import pytest
import yaml
from model_code import write_model_code
from paths import ROOT
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

from crossearth_hf.data import load_source
from crossearth_hf.evaluation import image_scores as evaluation
from crossearth_hf.labels import get_label_set
from crossearth_hf.training.recipe import build_train_config, read_yaml

FOLDERS = [ROOT / "hub_cards" / name for name in ("crossearth-small", "crossearth-tiny")]


def code(folder):
    return {path.name: path.read_text() for path in folder.glob("*.py")}


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def card(folder):
    text = (folder / "README.md").read_text()
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, flags=re.S)[1])


@pytest.fixture(scope="module")
def shipped(folder):
    return AutoModelForSemanticSegmentation.from_pretrained(folder).eval()


def test_it_is_small_and_names_its_classes(folder, shipped):
    assert sum(parameter.numel() for parameter in shipped.parameters()) <= 40e6
    assert (folder / "model.safetensors").stat().st_size <= 60e6
    assert tuple(shipped.config.id2label.values()) == get_label_set("land-cover").classes


def test_its_recipes_are_valid(folder):
    recipes = list(folder.glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert build_train_config(read_yaml(recipe)).model


@pytest.mark.slow
def test_the_scores_of_the_card(folder, card, shipped, shared):
    """Some minutes on two cores."""
    label_set = get_label_set("land-cover")
    confusion = evaluation.predict_confusion(
        shipped,
        AutoImageProcessor.from_pretrained(folder),
        load_source(f"{shared / 'data' / 'dubai'}:tile[78]_*", label_set),
        label_set,
        window=256,
        stride=shipped.config.window_stride,
    )
    report = evaluation.confusion_scores(confusion, label_set)
    stated = {
        metric["name"]: metric["value"]
        for metric in card["model-index"][0]["results"][0]["metrics"]
    }
    assert stated["mean IoU"] == pytest.approx(report["mean_iou"], abs=2e-3)
    for name, value in report["iou"].items():
        assert stated[f"IoU {name}"] == pytest.approx(value, abs=2e-3)


def test_its_code_is_that_of_the_package(folder, tmp_path):
    write_model_code(tmp_path)
    assert code(folder) == code(tmp_path), "run: make model-code"
