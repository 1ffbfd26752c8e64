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

CARD_FOLDER = ROOT / "hub_cards" / "crossearth-tiny"


def code(folder):
    return {path.name: path.read_text() for path in folder.glob("*.py")}


@pytest.fixture(scope="module")
def card():
    text = (CARD_FOLDER / "README.md").read_text()
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, flags=re.S)[1])


@pytest.fixture(scope="module")
def shipped():
    return AutoModelForSemanticSegmentation.from_pretrained(CARD_FOLDER).eval()


def test_it_is_small_and_names_its_classes(shipped):
    assert sum(parameter.numel() for parameter in shipped.parameters()) <= 10e6
    assert (CARD_FOLDER / "model.safetensors").stat().st_size <= 20e6
    assert tuple(shipped.config.id2label.values()) == get_label_set("land-cover").classes


@pytest.mark.parametrize("recipe", ["warm_start.yaml", "train.yaml"])
def test_its_recipes_are_valid(recipe):
    assert build_train_config(read_yaml(CARD_FOLDER / recipe)).model


@pytest.mark.slow
def test_the_scores_of_the_card(card, shipped, shared):
    """Some three minutes on two cores."""
    label_set = get_label_set("land-cover")
    confusion = evaluation.predict_confusion(
        shipped,
        AutoImageProcessor.from_pretrained(CARD_FOLDER),
        load_source(f"{shared / 'data' / 'dubai'}:tile[78]_*", label_set),
        label_set,
        window=256,
        stride=171,
    )
    report = evaluation.report(confusion, label_set)
    stated = {metric["name"]: metric["value"] for metric in card["model-index"][0]["results"][0]["metrics"]}
    assert stated["mean IoU"] == pytest.approx(report["mean_iou"], abs=2e-3)
    for name, value in report["iou"].items():
        assert stated[f"IoU {name}"] == pytest.approx(value, abs=2e-3)


def test_its_code_is_that_of_the_package(tmp_path):
    write_model_code(tmp_path)
    assert code(CARD_FOLDER) == code(tmp_path), "run: make model-code"
