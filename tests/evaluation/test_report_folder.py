"""Names for files, means, and the identity of a model."""

import hashlib
import json

import numpy as np
import pytest
import torch
from benchmark_data import as_entry
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.report_folder import (
    SELECTIONS,
    Protocol,
    ReportFolder,
    identify,
    means,
)
from crossearth_hf.files import outputs
from crossearth_hf.files.working_folders import move_into_place

MODEL = {
    "name": "m",
    "sha256": "a" * 64,
    "config_sha256": "b" * 64,
    "classes": ["x"],
    "parameters": 1,
    "training": None,
}
PROTOCOL = Protocol(SELECTIONS["last"], "float32", "cpu")


def test_every_entry_has_a_file_name_of_its_own(tmp_path):
    folder = ReportFolder(tmp_path / "report", MODEL, PROTOCOL)
    for name in ("P(i)2V", "P-i-2V", "p i 2v", "..", "Dübendorf/Süd", ".hidden"):
        folder.add(name, as_entry(0.5), [], None)
    slugs = {name: each["slug"] for name, each in folder.entries().items()}
    assert slugs == {
        "P(i)2V": "P-i-2V", "P-i-2V": "P-i-2V-2", "p i 2v": "p-i-2v-3", "..": "entry", "Dübendorf/Süd": "D-bendorf-S-d",
        ".hidden": "hidden",
    }  # fmt: skip
    folder.add("p i 2v", as_entry(0.7), [], None)
    assert folder.entries()["p i 2v"]["slug"] == "p-i-2v-3"


def test_the_time_of_the_first_entry_is_kept(tmp_path):
    folder = ReportFolder(tmp_path / "report", MODEL, PROTOCOL)
    folder.add("a", as_entry(0.5), [], None)
    path = tmp_path / "report" / "report.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"created": "2020-01-01T00:00:00+00:00"})
    )
    ReportFolder(tmp_path / "report", MODEL, PROTOCOL).add("b", as_entry(0.1), [], None)
    assert json.loads(path.read_text())["created"] == "2020-01-01T00:00:00+00:00"


def test_means_leave_out_what_has_no_score():
    scored = {
        "a": as_entry(0.2),
        "b": as_entry(0.6),
        "c": as_entry(None),
        "d": as_entry(0.9, unseen=False),
    }
    assert means(scored) == {
        "unseen": {"mean_iou": pytest.approx(0.4), "targets": ["a", "b"]},
        "in_domain": {"mean_iou": 0.9, "targets": ["d"]},
    }
    assert means({})["unseen"] == {"mean_iou": None, "targets": []}


def test_a_model_is_known_by_its_weights(tmp_path):
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config())
    model.save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "train.yaml").write_text("steps: 7\n")
    whole = identify(f"{tmp_path / 'whole'}/", model)
    assert whole["name"] == "whole"
    assert (
        whole["sha256"]
        == hashlib.sha256((tmp_path / "whole" / "model.safetensors").read_bytes()).hexdigest()
    )
    assert (
        whole["config_sha256"]
        == hashlib.sha256((tmp_path / "whole" / "config.json").read_bytes()).hexdigest()
    )
    assert whole["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert whole["training"] == {"steps": 7}
    model.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
    parts = identify(str(tmp_path / "parts"), model)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    assert parts["training"] is None
    last = max((tmp_path / "parts").glob("model-*.safetensors"))
    last.write_bytes(last.read_bytes() + b" ")
    assert identify(str(tmp_path / "parts"), model)["sha256"] != parts["sha256"]


def test_a_report_needs_a_place(tmp_path):
    ReportFolder(tmp_path / "made" / "report", MODEL, PROTOCOL)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="does not exist; create it first"):
        ReportFolder(tmp_path / "file" / "report", MODEL, PROTOCOL)


@pytest.mark.parametrize(
    "place", ["examples/Town/20200101.npz", "examples/Town", "features/Town.npz"]
)
def test_files_that_no_report_lists_are_refused(tmp_path, place):
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("mine")
    folder = ReportFolder(tmp_path, MODEL, PROTOCOL)
    for call in (
        lambda: folder.check_free(["Town"]),
        lambda: folder.add("Town", as_entry(0.5), [], None),
    ):
        with pytest.raises(InputError, match="in the place of files of Town, but the report in "):
            call()
    assert (tmp_path / place).read_text() == "mine"
    folder.add("Village", as_entry(0.5), [], None)
    assert not (tmp_path / "examples" / "Village" / "000.npz").exists()


def test_an_entry_that_keeps_fewer_examples_removes_its_own_only(tmp_path):
    folder = ReportFolder(tmp_path, MODEL, PROTOCOL)
    examples = [{"image": np.zeros(1)}] * 3
    folder.add("a", as_entry(0.5), examples, None)
    for name in ("003.npz", "20200101.npz"):
        (tmp_path / "examples" / "a" / name).write_text("mine")
    folder.add("a", as_entry(0.5), examples[:1], None)
    kept = sorted(path.name for path in (tmp_path / "examples" / "a").iterdir())
    assert kept == ["000.npz", "003.npz", "20200101.npz"]


@pytest.mark.parametrize("moves", range(5))
def test_an_addition_that_is_killed_at_any_move_is_repeated(tmp_path, monkeypatch, moves):
    """Files come into place in the order: note, two examples, features, report."""
    examples = [{"image": np.zeros(1)}, {"image": np.ones(1)}]
    features = {"features": np.zeros(2)}
    folder = ReportFolder(tmp_path, MODEL, PROTOCOL)
    folder.add("Village", as_entry(0.5), examples[:1], None)
    done = []

    def killed(stage, target):
        if len(done) == moves:
            raise SystemExit  # unlike an exception of the file system, no handler tidies up after it
        done.append(target)
        move_into_place(stage, target)

    remove = ReportFolder._remove_unfinished
    monkeypatch.setattr(ReportFolder, "_remove_unfinished", lambda _: None)  # nor does a kill
    monkeypatch.setattr(outputs, "move_into_place", killed)
    with pytest.raises(SystemExit):
        folder.add("Town", as_entry(0.5), examples, features)
    monkeypatch.setattr(outputs, "move_into_place", move_into_place)
    monkeypatch.setattr(ReportFolder, "_remove_unfinished", remove)
    town = tmp_path / "examples" / "Town"
    assert (town / "000.npz").exists() == (moves > 1)
    again = ReportFolder(tmp_path, MODEL, PROTOCOL)
    again.check_free(["Town"])
    again.add("Town", as_entry(0.5), examples, features)
    assert list(again.entries()) == ["Village", "Town"]
    kept = sorted(path.name for path in town.iterdir())
    assert kept == ["000.npz", "001.npz"]
    assert not list(tmp_path.glob(".adding*"))
    assert (tmp_path / "examples" / "Village" / "000.npz").exists()


def test_files_that_a_person_adds_after_a_kill_stay(tmp_path):
    folder = tmp_path / "examples" / "Town"
    folder.mkdir(parents=True)
    for name in ("000.npz", "20200101.npz"):
        (folder / name).write_text("x")
    (tmp_path / ".adding.txt").write_text("1 Town")
    ReportFolder(tmp_path, MODEL, PROTOCOL)
    assert [path.name for path in folder.iterdir()] == ["20200101.npz"]
