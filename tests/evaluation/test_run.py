"""Reports of a model that is known pixel by pixel; resuming, refusing, several processes."""

import json
import os
import socket

import numpy as np
import pytest
import torch
import yaml
from accelerate import debug_launcher
from accelerate.state import PartialState
from benchmark_data import (
    COLORS,
    SURE,
    ScoredModel,
    painted,
    write_domain,
    write_halves,
    write_pair,
)
from PIL import Image
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.data import all_images, load_source
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation import run as benchmark_evaluation
from crossearth_hf.evaluation.image_scores import labeled_scores, predict_confusion
from crossearth_hf.evaluation.run import evaluate
from crossearth_hf.evaluation.targets import FolderTarget, ScenarioTarget
from crossearth_hf.labels import get_label_set
from crossearth_hf.scenarios.scenarios import SCENARIOS

SETTINGS = {"device": "cpu", "resamples": 50}
ISPRS = get_label_set("isprs")
SHARED_COLORS = {"red": "impervious_surface", "green": "building", "blue": "tree"}


@pytest.fixture
def stub(monkeypatch):
    """Stands in for every model; its passes are counted."""
    model = ScoredModel()
    identity = {
        "name": "stub",
        "sha256": "a" * 64,
        "config_sha256": "b" * 64,
        "classes": [],
        "parameters": 1,
    }
    monkeypatch.setattr(
        benchmark_evaluation, "load_model", lambda *a, **k: (model, CrossEarthImageProcessor())
    )
    monkeypatch.setattr(benchmark_evaluation, "identify", lambda *a: identity | {"training": None})
    model.identity = identity
    return model


def towns(folder, *names, **options):
    """A target per name, all of one folder."""
    options = {"window": 32, "stride": 32} | options
    return {name: FolderTarget(folder, **options) for name in names}


def entries(out):
    return json.loads((out / "report.json").read_text())["entries"]


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_every_number_of_an_entry_by_hand(stub, tmp_path):
    folder = write_halves(tmp_path / "town")
    report = evaluate("stub", towns(folder, "Town"), tmp_path / "report", **SETTINGS)
    entry = entries(tmp_path / "report")["Town"]
    # Two images of 31 labeled rows: 16 red columns right, 16 green ones; 8 rows of the second are blue.
    half, wrong = 31 * 16, 8 * 16
    assert entry["confusion_matrix"] == [[2 * half, 0, 0], [0, 2 * half - wrong, 0], [0, wrong, 0]]
    green = 1 - wrong / (2 * half)
    assert entry["scores"]["iou"] == pytest.approx({"red": 1, "green": green, "blue": 0})
    assert entry["scores"]["f1"] == pytest.approx(
        {"red": 1, "green": 2 * green / (1 + green), "blue": 0}
    )
    assert entry["scores"]["mean_iou"] == pytest.approx((1 + green) / 3)
    assert entry["scores"]["accuracy"] == pytest.approx(1 - wrong / (4 * half))
    assert entry["scores"]["foreground_iou"] is None
    assert entry["scores"]["expected_calibration_error"] == pytest.approx(
        abs(SURE - (1 - wrong / (4 * half)))
    )
    assert sum(entry["reliability"]["count"]) == entry["data"]["pixels"] == 4 * half
    assert entry["reliability"]["confidence"][-1] == pytest.approx(SURE)
    assert entry["images"][0] == {"name": "a", "mean_iou": 1.0, "accuracy": 1.0}
    second = 1 - wrong / half
    assert entry["images"][1]["mean_iou"] == pytest.approx((1 + second) / 3)
    low, high = entry["intervals"]["iou"]["green"]
    assert second <= low <= green <= high <= 1
    # Bands of one pixel: blue has 8 x 16 pixels, none found; the prediction's bands of red and green are the truth's.
    assert 0 < entry["scores"]["boundary_iou"] < 2 / 3
    assert (entry["kind"], entry["target"], entry["unseen"], entry["published"]) == (
        "folder",
        "town",
        True,
        {},
    )
    assert report.entries["Town"].scores["mean_iou"] == entry["scores"]["mean_iou"]
    assert "/" not in json.dumps(entry).replace("Town/", ""), (
        "no path of this machine enters a report"
    )


def test_without_a_folder_the_same_scores_and_nothing_written(stub, tmp_path):
    targets = towns(write_halves(tmp_path / "town"), "Town", "Town (again)")
    written = evaluate("stub", targets, tmp_path / "report", **SETTINGS)
    before = files(tmp_path)
    report = evaluate("stub", targets, **SETTINGS)
    assert files(tmp_path) == before
    assert list(report) == list(written) == ["Town", "Town (again)"]
    for name in report:
        assert report[name].scores == written[name].scores
        assert report[name].intervals == written[name].intervals
    assert report["Town"]["mean_iou"] == written.entries["Town"].scores["mean_iou"]
    assert "Town (again)" in repr(report)
    assert "mean of 2" in repr(report)
    with pytest.raises(InputError, match="the report of stub was not written"):
        list(report.examples("Town"))


def test_a_scenario_keeps_its_name(stub, tmp_path):
    data = scenario_data(tmp_path / "data")
    target = ScenarioTarget("P(i)2V", data, class_map=SHARED_COLORS)
    with pytest.raises(InputError, match=r"call the entry 'Mine' P\(i\)2V"):
        evaluate("stub", {"Mine": target}, **SETTINGS)


def test_examples_show_images_spread_over_the_set(stub, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(10):
        ids = rng.integers(0, 3, (32, 32))
        write_pair(tmp_path / "town", f"{index}", painted(ids), ids.astype(np.uint8))
    settings = SETTINGS | {"examples": 3}
    evaluate("stub", towns(tmp_path / "town", "Town (1/4)"), tmp_path / "report", **settings)
    kept = sorted((tmp_path / "report" / "examples" / "Town-1-4").glob("*"))
    assert [path.name for path in kept] == ["000.npz", "001.npz", "002.npz"]
    with np.load(kept[1], allow_pickle=False) as example:
        assert (example["truth"] == example["prediction"]).all()
        assert (COLORS[example["truth"]] == example["image"]).all()
        assert {example[name].dtype for name in example} == {np.dtype("uint8")}


def test_only_labeled_classes_are_scored(stub, tmp_path):
    """Red stands for all that has no label: what the model calls green counts as red there."""
    folder = write_halves(tmp_path / "town")
    evaluate("stub", towns(folder, "Town", labeled=["blue"]), tmp_path / "report", **SETTINGS)
    entry = entries(tmp_path / "report")["Town"]
    assert entry["scored_classes"] == ["blue"]
    assert entry["scores"]["iou"] == {"red": None, "green": None, "blue": 0}
    assert entry["scores"]["mean_iou"] == 0
    wrong = 8 * 16
    assert entry["confusion_matrix"] == [[4 * 31 * 16 - wrong, 0, 0], [0, 0, 0], [wrong, 0, 0]]
    with np.load(tmp_path / "report" / "examples" / "Town" / "001.npz") as example:
        assert set(np.unique(example["prediction"])) == {0}
        assert set(np.unique(example["truth"])) == {0, 2, 255}


def test_data_that_label_some_classes_are_scored_over_these(stub, tmp_path):
    """As with `labeled`: the description of the data says it."""
    folder = write_halves(tmp_path / "town")
    for path in (folder / "masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels == 2, 2, 255).astype(np.uint8)).save(path)
    described = folder / "town.yaml"
    fields = {"images": "images", "masks": "masks", "labeled": ["blue"], "complete": True}
    described.write_text(yaml.safe_dump(fields))
    evaluate("stub", towns(described, "Town"), tmp_path / "report", **SETTINGS)
    entry = entries(tmp_path / "report")["Town"]
    assert entry["scored_classes"] == ["blue"]
    assert entry["scores"]["mean_iou"] == 0
    wrong = 8 * 16
    assert entry["confusion_matrix"] == [[2 * 32 * 32 - wrong, 0, 0], [0, 0, 0], [wrong, 0, 0]]
    before = files(tmp_path / "report")
    evaluate("stub", towns(described, "Town"), tmp_path / "report", **SETTINGS)
    assert files(tmp_path / "report") == before


def test_scores_are_those_of_the_whole_set_at_once(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        write_pair(tmp_path / "town", name, pixels, rng.integers(0, 5, (60, 72)).astype(np.uint8))
    of_five = tiny_config(num_labels=5, id2label=get_label_set("land-cover").id2label)
    torch.manual_seed(1)
    CrossEarthForSemanticSegmentation(of_five).save_pretrained(tmp_path / "model")
    CrossEarthImageProcessor().save_pretrained(tmp_path / "model")
    classes = ("building", "road", "vegetation")
    plan = towns(tmp_path / "town", "Town", labeled=classes, scale=1.5, window=64, stride=64)
    report = evaluate(tmp_path / "model", plan, tmp_path / "report", **SETTINGS)
    network = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "model").eval()
    label_set = get_label_set("land-cover")
    images = all_images([load_source(str(tmp_path / "town"), label_set)])
    confusion = predict_confusion(
        network,
        CrossEarthImageProcessor(),
        images,
        label_set,
        window=64,
        stride=64,
        scale=1.5,
        progress=False,
    )
    expected = labeled_scores(confusion, label_set, classes)
    assert report.entries["Town"].scores["mean_iou"] == expected["mean_iou"]
    assert {
        name: report.entries["Town"].scores[f"iou/{name}"] for name in expected["iou"]
    } == expected["iou"]


def scenario_data(folder):
    """Vaihingen and its source in two tiles: seen red, green and blue; the first row without label."""
    ids = np.repeat(np.arange(3), 16)[None].repeat(48, axis=0)
    labels = np.array([0, 1, 3])[ids].astype(np.uint8)
    labels[0] = 255
    for name in ("vaihingen", "potsdam_irrg"):
        write_domain(folder, name, [(painted(ids), labels), (painted(ids.T), labels.T)])
    return folder


def scenarios(data, *codes, **options):
    options = {"class_map": SHARED_COLORS, "window": 48, "stride": 48} | options
    return {code: ScenarioTarget(code, data, **options) for code in codes}


def test_a_scenario_with_a_class_map(stub, tmp_path):
    data = scenario_data(tmp_path / "data")
    evaluate("stub", scenarios(data, "P(i)2V", "V2P(i)"), tmp_path / "report", **SETTINGS)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    entry = report["entries"]["P(i)2V"]
    assert entry["class_map"] == SHARED_COLORS
    assert entry["classes"] == list(ISPRS.classes)
    assert entry["scores"]["iou"] == {
        "impervious_surface": 1, "building": 1, "low_vegetation": None, "tree": 1, "car": None, "clutter": None,
    }  # fmt: skip
    assert (entry["source"], entry["target"], entry["slug"]) == (
        "potsdam_irrg",
        "vaihingen",
        "P-i-2V",
    )
    assert entry["published"] == SCENARIOS["P(i)2V"].published
    assert entry["data"]["build"] == "f" * 64
    assert entry["data"]["incomplete"] is True
    assert report["means"]["unseen"] == {"mean_iou": 1.0, "targets": ["P(i)2V", "V2P(i)"]}
    assert [image["name"] for image in entry["images"]] == ["vaihingen[0]", "vaihingen[1]"]


def test_means_are_over_unseen_targets_alone(stub, tmp_path):
    out = tmp_path / "report"
    good, bad = write_halves(tmp_path / "good"), tmp_path / "bad"
    write_pair(bad, "x", painted(np.zeros((32, 32), int)), np.ones((32, 32), np.uint8))
    evaluate("stub", towns(good, "Good"), out, **SETTINGS)
    evaluate("stub", towns(bad, "Home", in_domain=True), out, **SETTINGS)
    means = json.loads((out / "report.json").read_text())["means"]
    assert means["unseen"]["targets"] == ["Good"]
    assert means["unseen"]["mean_iou"] == entries(out)["Good"]["scores"]["mean_iou"]
    assert means["in_domain"] == {"mean_iou": 0.0, "targets": ["Home"]}


def test_finished_entries_are_not_scored_again(stub, tmp_path):
    folder, out = write_halves(tmp_path / "town"), tmp_path / "report"
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    before, passes = files(out), len(stub.batches)
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    assert files(out) == before
    evaluate("stub", towns(folder, "A", "B"), out, **SETTINGS)
    assert len(stub.batches) == 2 * passes
    assert list(entries(out)) == ["A", "B"]
    evaluate("stub", towns(folder, "A"), out, **SETTINGS, overwrite=True, examples=1)
    assert len(stub.batches) == 3 * passes
    assert [path.name for path in (out / "examples" / "A").iterdir()] == ["000.npz"]
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    assert len(stub.batches) == 4 * passes, "more examples were asked for than there are"


def test_a_killed_call_keeps_what_is_finished(stub, tmp_path, monkeypatch):
    folder, out = write_halves(tmp_path / "town"), tmp_path / "report"
    forward = stub.forward

    def dies_in_the_second_entry(pixel_values):
        if len(stub.batches) == 2:
            raise KeyboardInterrupt
        return forward(pixel_values)

    monkeypatch.setattr(stub, "forward", dies_in_the_second_entry)
    with pytest.raises(KeyboardInterrupt):
        evaluate("stub", towns(folder, "A", "B"), out, **SETTINGS)
    assert list(entries(out)) == ["A"]
    monkeypatch.setattr(stub, "forward", forward)
    evaluate("stub", towns(folder, "A", "B"), out, **SETTINGS)
    assert list(entries(out)) == ["A", "B"]
    assert len(stub.batches) == 4


def test_a_write_that_fails_leaves_the_old_report(stub, tmp_path, monkeypatch):
    folder, out = write_halves(tmp_path / "town"), tmp_path / "report"
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    before = files(out)

    def full(*arguments, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(InputError, match="No space left"):
        evaluate("stub", towns(folder, "A"), out, **SETTINGS, overwrite=True)
    assert files(out) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"window": 16, "stride": 16}, "has window 32, now it is 16"),
        ({"scale": 2.0}, "has scale 1.0, now it is 2.0"),
        ({"labeled": ["blue"]}, "has scored_classes"),
        ({"in_domain": True}, "has unseen True"),
    ],
)
def test_an_entry_that_was_scored_in_another_way_is_refused(stub, tmp_path, change, sentence):
    folder, out = write_halves(tmp_path / "town"), tmp_path / "report"
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    before, passes = files(out), len(stub.batches)
    with pytest.raises(InputError, match=sentence):
        evaluate("stub", towns(folder, "A", **change), out, **SETTINGS)
    assert files(out) == before
    assert len(stub.batches) == passes
    evaluate("stub", towns(folder, "A", **change), out, **SETTINGS, overwrite=True)


def test_changed_labels_are_noticed(stub, tmp_path):
    folder, out = write_halves(tmp_path / "town"), tmp_path / "report"
    evaluate("stub", towns(folder, "A"), out, **SETTINGS)
    write_pair(folder, "a", painted(np.zeros((32, 32), int)), np.zeros((32, 32), np.uint8))
    with pytest.raises(InputError, match="have changed since it was scored"):
        evaluate("stub", towns(folder, "A"), out, **SETTINGS)


def test_reports_of_another_model_protocol_or_benchmark_are_refused(stub, tmp_path, monkeypatch):
    data, out = scenario_data(tmp_path / "data"), tmp_path / "report"
    evaluate("stub", scenarios(data, "P(i)2V"), out, **SETTINGS)
    before = files(out)
    with pytest.raises(
        InputError, match="was scored with selection 'last checkpoint', not 'chosen on the target"
    ):
        evaluate("stub", scenarios(data, "P(i)2V"), out, **SETTINGS, selection="oracle")
    stub.identity["sha256"] = "c" * 64
    with pytest.raises(InputError, match="is the report of the model stub with sha256 aaa"):
        evaluate("stub", scenarios(data, "P(i)2V"), out, **SETTINGS)
    stub.identity["sha256"] = "a" * 64
    content = json.loads((out / "report.json").read_text())
    content["entries"]["P(i)2V"]["benchmark_version"] = "0"
    (out / "report.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="version 0 of the scenarios"):
        evaluate("stub", scenarios(data, "P(i)2V"), out, **SETTINGS)
    (out / "report.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        evaluate("stub", scenarios(data, "P(i)2V"), out, **SETTINGS)
    assert files(out).keys() == before.keys()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"batch_size": 0}, "batch size 0"), ({"examples": -1}, "examples -1"), ({"resamples": 0}, "resamples 0"),
     ({"selection": "best"}, "unknown selection 'best'; choose one of last"),
     ({"out": None, "features": True}, "features are kept in the folder of the report"),
     ({"targets": {}}, "targets is empty")],
)  # fmt: skip
def test_settings_that_are_none(stub, tmp_path, change, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate(
            **(
                {"model": "stub", "targets": towns(tmp_path, "A"), "out": tmp_path / "report"}
                | change
            )
        )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"model": 5}, "model is 5; give a path"), ({"targets": ["x"]}, "targets is \\['x'\\]; give a dict"),
     ({"targets": {"A": "x"}}, "targets holds 'A': 'x'"), ({"batch_size": "4"}, "batch_size is .4."),
     ({"overwrite": 1}, "overwrite is 1; give True or False"), ({"selection": ["last"]}, "selection is .*; give text")],
)  # fmt: skip
def test_arguments_of_other_types(stub, tmp_path, change, sentence):
    with pytest.raises(TypeError, match=sentence):
        evaluate(
            **(
                {"model": "stub", "targets": towns(tmp_path, "A"), "out": tmp_path / "report"}
                | change
            )
        )


def test_mistakes_of_data_leave_nothing(stub, tmp_path):
    empty = tmp_path / "town"
    write_pair(empty, "a", painted(np.zeros((32, 32), int)), np.full((32, 32), 255, np.uint8))
    (tmp_path / "file").touch()
    for folder, out, sentence in (
        (empty, "report", "every pixel of the masks of .* is 255, which is ignored"),
        (f"{empty}:z*", "report", "holds no image"),
        (tmp_path / "none", "report", "holds no folder 'images'"),
        (empty, "file/report", "does not exist"),
        (empty, "file", "is a file; name a folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            evaluate("stub", towns(folder, "A"), tmp_path / out, **SETTINGS)
    assert not (tmp_path / "report").exists()


def test_features_of_source_and_target(tmp_path):
    data, out = scenario_data(tmp_path / "data"), tmp_path / "report"
    torch.manual_seed(0)
    config = tiny_config(id2label=ISPRS.id2label)
    CrossEarthForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    CrossEarthImageProcessor().save_pretrained(tmp_path / "model")
    plan = scenarios(data, "P(i)2V", class_map=None)
    report = evaluate(tmp_path / "model", plan, out, **SETTINGS, features=True)
    features = report.features("P(i)2V")
    assert features.source.shape == features.target.shape == (6, config.mask_feature_size)
    assert features.target_classes.tolist() == [0, 1, 3, 0, 1, 3]
    np.testing.assert_array_equal(features.source, features.target)  # the same two tiles
    assert np.abs(features.target[0] - features.target[1]).max() > 0


def run_in_two(child):
    """Runs `child` in two forked processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def with_port():
        PartialState._reset_state()
        os.environ["MASTER_PORT"] = str(port)
        child()

    debug_launcher(with_port, num_processes=2)


def test_two_processes_give_the_numbers_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        write_pair(
            tmp_path / "town", f"{index}", pixels, rng.integers(0, 5, (72, 72)).astype(np.uint8)
        )
    torch.manual_seed(1)
    of_five = tiny_config(num_labels=5, id2label=get_label_set("land-cover").id2label)
    CrossEarthForSemanticSegmentation(of_five).save_pretrained(tmp_path / "model")
    CrossEarthImageProcessor().save_pretrained(tmp_path / "model")
    plan = towns(tmp_path / "town", "A", "B", window=64, stride=40)
    settings = SETTINGS | {"features": True, "examples": 3}
    evaluate(tmp_path / "model", plan, tmp_path / "one", **settings)
    run_in_two(lambda: evaluate(tmp_path / "model", plan, tmp_path / "two", **settings))
    one, two = entries(tmp_path / "one"), entries(tmp_path / "two")
    assert one.keys() == two.keys() == {"A", "B"}
    for name, entry in one.items():
        for key in entry.keys() - {"seconds", "created"}:
            assert two[name][key] == entry[key], key
    arrays = [files(tmp_path / run) for run in ("one", "two")]
    assert arrays[0].keys() == arrays[1].keys()
    for path in arrays[0]:
        if path.suffix == ".npz":
            with (
                np.load(tmp_path / "one" / path) as ours,
                np.load(tmp_path / "two" / path) as theirs,
            ):
                for key in ours:
                    np.testing.assert_array_equal(ours[key], theirs[key])
