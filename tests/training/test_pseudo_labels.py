"""Labels by the moving average: a case worked by hand, what the loss makes of them, and whole runs."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_runs import losses, make_workplace, settings

from crossearth_hf.errors import InputError
from crossearth_hf.model.loss_crossearth import UNLABELED_INDEX
from crossearth_hf.training import trainer as training
from crossearth_hf.training.pseudo_labels import pseudo_labeled

IGNORED = 255


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("pseudo"))


def buildings_alone(folder, workplace, complete):
    """The first four images in a manifest that labels buildings only."""
    pairs = []
    folder = folder / "data"
    folder.mkdir()
    for index in range(4):
        mask = np.asarray(Image.open(workplace / "data" / "masks" / f"{index}.png"))
        Image.fromarray(np.where(mask == 1, mask, 255).astype(np.uint8)).save(
            folder / f"{index}.png"
        )
        image = str(workplace / "data" / "images" / f"{index}.png")
        pairs.append(
            {"set": "s", "name": str(index), "image": image, "mask": f"{index}.png"}
            | {"labeled": [1], "complete": complete}
        )
    path = folder / "manifest.json"
    path.write_text(json.dumps({"pairs": pairs}))
    return path


def test_a_label_needs_a_pixel_that_is_open_a_possible_class_and_a_large_share():
    pixels = torch.tensor([[8.0, 1.0, 1.0], [4.0, 95.0, 1.0], [5.0, 1.0, 4.0]])
    scores = pixels.T[:, None].expand(3, 4, 3)[None].repeat(3, 1, 1, 1)  # three images of four rows
    labels = torch.full((3, 4, 3), IGNORED)
    labels[:2, 1] = UNLABELED_INDEX
    labels[:, 2] = 2
    valid = torch.ones(3, 4, 3, dtype=torch.bool)
    valid[:, 3] = False
    possible = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    batch = {"labels": labels, "valid": valid, "unlabeled_classes": possible}
    found = pseudo_labeled(batch, scores, 0.75)
    assert found[0, 0].tolist() == [IGNORED] * 3, "these pixels are excluded"
    # The second pixel looks like class 1, which it cannot have: 4 % are too little for class 0.
    assert found[0, 1].tolist() == [0, UNLABELED_INDEX, UNLABELED_INDEX]
    assert found[0, 2].tolist() == [2] * 3, "labels of the data stay"
    assert found[0, 3].tolist() == [IGNORED] * 3, "there is no image"
    assert found[1].equal(labels[1]), "this image is labeled completely"
    assert found[2, 0].tolist() == [0, 1, IGNORED], "an image without labels has any class"
    at_once = pseudo_labeled(batch, scores, 0.0)
    assert at_once[0, 1].tolist() == [0, 0, 0], "class 1 stays impossible"


def test_scores_of_zero_label_nothing():
    batch = {
        "labels": torch.full((1, 1, 1), IGNORED),
        "valid": torch.ones(1, 1, 1, dtype=torch.bool),
        "unlabeled_classes": torch.ones(1, 3, dtype=torch.bool),
    }
    assert pseudo_labeled(batch, torch.zeros(1, 3, 1, 1), 0.5).item() == IGNORED


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_labels_what_its_data_leave_open(workplace, tmp_path, monkeypatch, complete):
    manifest = buildings_alone(tmp_path, workplace, complete)
    seen = []

    def watching(batch, scores, threshold):
        found = pseudo_labeled(batch, scores, threshold)
        seen.append((batch, found))
        return found

    monkeypatch.setattr(training, "pseudo_labeled", watching)
    run = settings(
        workplace,
        tmp_path / "run",
        train_data=[str(manifest)],
        unlabeled_data=[f"{workplace / 'data'}:[45]"],
        train_weights=[1, 1],
        ema_decay=0.9,
        pseudo_label_threshold=0.0,
    )
    training.train(run)
    assert len(seen) == run.max_steps
    labels = torch.cat([found[batch["valid"]] for batch, found in seen])
    assert set(labels.tolist()) <= set(range(5)), "a threshold of 0 leaves no pixel open"
    for batch, found in seen:
        given = batch["labels"] < UNLABELED_INDEX
        assert found[given].equal(batch["labels"][given])
        none_of_these = batch["labels"] == UNLABELED_INDEX
        assert not (found[none_of_these] == 1).any()
        assert none_of_these.any() or not complete or batch["unlabeled_classes"].all()
    of_unlabeled = [batch["unlabeled_classes"].all(dim=1) for batch, _ in seen]
    assert torch.cat(of_unlabeled).any()


def test_the_teacher_is_the_moving_average_and_training_goes_on_with_the_weights(
    workplace, tmp_path, monkeypatch
):
    manifest = buildings_alone(tmp_path, workplace, complete=True)
    blocks = []
    applied = training.WeightAverage.applied

    def copied(weights):
        return {name: weight.detach().clone() for name, weight in weights.items()}

    @contextmanager
    def watching(average):
        trained, averages = copied(average.trained), copied(average.averages)
        with applied(average):
            within = copied(average.trained)
            yield
        blocks.append((trained, averages, within, copied(average.trained)))

    monkeypatch.setattr(training.WeightAverage, "applied", watching)
    options = {
        "train_data": [str(manifest)],
        "ema_decay": 0.9,
        "pseudo_label_threshold": 0.2,
        "save_steps": 2,
    }
    training.train(settings(workplace, tmp_path / "run", **options))
    assert len(blocks) == 6  # four steps, the evaluation at their end, and the saved model
    for trained, averages, within, after in blocks:
        for name, weight in trained.items():
            assert within[name].equal(averages[name])
            assert after[name].equal(weight)
    trained, averages = blocks[3][:2]
    assert any(not averages[name].equal(weight) for name, weight in trained.items())

    # A run that goes on from its checkpoint repeats this one.
    original = training.Trainer._forward_backward

    def interrupted(self, batch, forward_pass):
        if forward_pass == 3:
            raise KeyboardInterrupt
        return original(self, batch, forward_pass)

    monkeypatch.setattr(training.Trainer, "_forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings(workplace, tmp_path / "again", **options))
    monkeypatch.setattr(training.Trainer, "_forward_backward", original)
    again = settings(workplace, tmp_path / "again", resume_from_checkpoint=True, **options)
    training.train(again)
    assert losses(tmp_path / "again") == losses(tmp_path / "run")
    ours = load_file(tmp_path / "again" / "model.safetensors")
    theirs = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_without_a_class_above_the_threshold_nothing_changes(workplace, tmp_path):
    manifest = buildings_alone(tmp_path, workplace, complete=True)
    options = {"train_data": [str(manifest)], "ema_decay": 0.9}
    training.train(settings(workplace, tmp_path / "plain", **options))
    training.train(settings(workplace, tmp_path / "sure", pseudo_label_threshold=1.0, **options))
    assert losses(tmp_path / "sure") == losses(tmp_path / "plain")


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"pseudo_label_threshold": 0.9}, "needs ema_decay"),
        ({"pseudo_label_threshold": 1.2, "ema_decay": 0.9}, "between 0 and 1"),
        ({"unlabeled_data": ["x"]}, "needs pseudo_label_threshold"),
        (
            {"pseudo_label_threshold": 0.9, "ema_decay": 0.9, "objective": "reconstruct"},
            "reads no labels",
        ),
        ({"ignore_unlabelled_pixels": True, "objective": "reconstruct"}, "reads no labels"),
        (
            {
                "pseudo_label_threshold": 0.9,
                "ema_decay": 0.9,
                "unlabeled_data": ["x"],
                "train_weights": [1],
            },
            "for each of train_data and unlabeled_data",
        ),
    ],
)
def test_settings_that_do_not_fit(workplace, tmp_path, changes, rule):
    with pytest.raises(InputError, match=rule):
        settings(workplace, tmp_path, **changes)
