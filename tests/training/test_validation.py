"""Runs that hold out images, stop early, or count in epochs."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from training_runs import log_lines, losses, make_workplace, settings

from crossearth_hf.errors import InputError
from crossearth_hf.training import trainer as training
from crossearth_hf.training.config import MAX_STEPS


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("validation"))


def test_held_out_images_are_scored_listed_and_the_same_after_a_resume(workplace, tmp_path, capsys):
    changes = {"train_data": str(workplace / "data"), "validation_fraction": 0.3, "eval_steps": 2}
    training.train(settings(workplace, tmp_path / "whole", **changes))
    told = capsys.readouterr().err
    assert "2 of 6 images are held out for validation" in told
    assert "labels of train_data, in 4 images:" in told
    assert "labels of validation data, in 2 images:" in told
    split = json.loads((tmp_path / "whole" / "split.json").read_text())
    held = {entry["image"] for entry in split["validation"]}
    assert held | {entry["image"] for entry in split["train"]} == set("012345")
    assert [line["eval"]["pixels"] for line in log_lines(tmp_path / "whole") if "eval" in line] == [
        2 * 6400
    ] * 2
    training.train(
        settings(workplace, tmp_path / "parts", **changes, max_steps=2, schedule_steps=4)
    )
    training.train(settings(workplace, tmp_path / "parts", **changes, resume_from_checkpoint=True))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert json.loads((tmp_path / "parts" / "split.json").read_text()) == split


def test_partly_labeled_images_are_scored_over_their_classes(workplace, tmp_path):
    described = workplace / "data" / "roads.yaml"
    fields = {"images": "images", "masks": "roads", "labeled": ["road"], "complete": True}
    described.write_text(yaml.safe_dump(fields))
    (workplace / "data" / "roads").mkdir()
    for path in (workplace / "data" / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        roads = np.where(labels == 2, 2, 255).astype(np.uint8)
        Image.fromarray(roads).save(workplace / "data" / "roads" / path.name)
    training.train(settings(workplace, tmp_path, eval_data=str(described), eval_steps=4))
    (scores,) = (line["eval"] for line in log_lines(tmp_path) if "eval" in line)
    confusion = np.array(scores["confusion_matrix"])
    hits, found, there = confusion[2, 2], confusion[:, 2].sum(), confusion[2].sum()
    assert scores["mean_iou"] == pytest.approx(hits / (found + there - hits))
    assert confusion[:, [1, 3, 4]].sum() == confusion[[1, 3, 4]].sum() == 0
    assert confusion.sum() == 6 * 6400


def test_a_run_ends_early_and_stays_ended(workplace, tmp_path, capsys, monkeypatch):
    wrong = iter([40, 10, 20, 10, 0])  # pixels of every class that are taken for each other one
    monkeypatch.setattr(
        training,
        "confusion_of_all",
        lambda *_, **__: np.full((5, 5), next(wrong)) + 100 * np.eye(5, dtype=int),
    )
    changes = {
        "train_data": str(workplace / "data"),
        "validation_fraction": 0.3,
        "eval_steps": 1,
        "save_steps": 100,
    }
    changes |= {"max_steps": 20, "early_stopping_patience": 2}
    training.train(settings(workplace, tmp_path, **changes))
    assert "stopped at step 4: 2 evaluations without a higher mean IoU" in capsys.readouterr().err
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"] == 4
    assert (tmp_path / "config.json").is_file()
    training.train(settings(workplace, tmp_path, **changes, resume_from_checkpoint=True))
    assert json.loads((tmp_path / "checkpoint" / "run.json").read_text())["step"] == 4


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"num_train_epochs": 1}, 3),  # 5 images of one crop, 2 crops a step
        ({"num_train_epochs": 0.5}, 2),
        ({"num_train_epochs": 1, "gradient_accumulation_steps": 2}, 2),
        (
            {"num_train_epochs": 1, "relative_to_crop": False, "crop_size": 32, "eval_scale": 1.0},
            15,
        ),  # 6.25 crops
    ],
)
def test_epochs_become_steps(workplace, tmp_path, changes, steps):
    config = settings(workplace, tmp_path, max_steps=MAX_STEPS, warmup_steps=0, **changes)
    assert training.Trainer(config).config.max_steps == steps


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"validation_fraction": 1.0}, "must be 0 or more and below 1"),
        ({"validation_fraction": -0.1}, "must be 0 or more and below 1"),
        ({"validation_fraction": 0.1, "eval_data": ["x"]}, "must be 0 with eval_data"),
        ({"validation_fraction": 0.1, "objective": "reconstruct"}, "it reads no labels"),
        ({"early_stopping_patience": 2}, "needs eval_data or validation_fraction"),
        ({"early_stopping_patience": 0, "validation_fraction": 0.1}, "must be positive"),
        ({"num_train_epochs": 2}, r"must be left out, or max_steps \(4\) must be"),
    ],
)
def test_settings_that_are_refused(workplace, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        settings(workplace, "unused", **changes)
