"""Report folders are read faithfully, and anything else is refused in one sentence."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from report_folders import SIDE, entry, pictures, region_features, scenario_entry, write_report

from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.report_file import class_key, read_report

EXAMPLES = pictures("casid", 0.7, 0)
CLASSES = 5


@pytest.fixture
def folder(tmp_path):
    entries = {"Sub2Tem": scenario_entry("Sub2Tem", EXAMPLES)}
    features = {"Sub2Tem": region_features(CLASSES, 1.0, 0)}
    return write_report(tmp_path / "r", entries, examples={"Sub2Tem": EXAMPLES}, features=features)


def changed(folder, *keys, to):
    """Sets a value deep in the report."""
    content = json.loads((folder / "report.json").read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    (folder / "report.json").write_text(json.dumps(content))
    return folder


def test_what_was_written_is_read(folder):
    report = read_report(folder)
    found = report.entries["Sub2Tem"]
    written = json.loads((folder / "report.json").read_text())["entries"]["Sub2Tem"]
    assert (report.name, report.parameters, report.selection) == (
        "model",
        7_012_345,
        "last checkpoint",
    )
    assert (found.source, found.target, found.unseen, found.binary) == (
        "casid_sub",
        "casid_tem",
        True,
        False,
    )
    assert found.scores["mean_iou"] == written["scores"]["mean_iou"]
    assert found.scores[class_key("forest")] == written["scores"]["iou"]["forest"]
    assert list(found.intervals["mean_iou"]) == written["intervals"]["mean_iou"]
    assert found.published == {"CrossEarth": 48.1, "Rein": 46.4}
    assert np.isnan(found.reliability.accuracy[0])
    assert found.reliability.count.sum() == sum(written["reliability"]["count"])


def test_pictures_and_features_are_read(folder):
    report = read_report(folder)
    kept = list(report.examples("Sub2Tem"))
    assert [example.truth.shape for example in kept] == [(SIDE, SIDE)] * 2
    for example, written in zip(kept, EXAMPLES, strict=True):
        np.testing.assert_array_equal(example.image, written[0])
        np.testing.assert_array_equal(example.truth, written[1])
        np.testing.assert_array_equal(example.prediction, written[2])
    features = report.features("Sub2Tem")
    assert features.source.shape == features.target.shape == (40, 16)
    (folder / "features" / "Sub2Tem.npz").unlink()
    assert report.features("Sub2Tem") is None


def test_a_source_that_is_its_own_target_is_never_unseen(tmp_path):
    claimed = scenario_entry("Sub2Sub", EXAMPLES, unseen=True)
    assert (
        not read_report(write_report(tmp_path / "r", {"Sub2Sub": claimed}))
        .entries["Sub2Sub"]
        .unseen
    )


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("format",), "crossearth-report/2", "format 'crossearth-report/2'"),
        (("entries",), {}, "no finished entry"),
        (("entries",), [], "not a JSON object"),
        (("entries", "Sub2Tem", "data", "images"), 1.5, "a whole number from 0 on"),
        (("model", "name"), "a\nb", "printable text"),
        (("entries", "Sub2Tem", "benchmark_version"), "0", "version 0 of the scenarios"),
        (("entries", "Sub2Tem", "slug"), "../../etc", "not a plain file name"),
        (("entries", "Sub2Tem", "scores", "mean_iou"), 55.3, "in 0..1"),
        (("entries", "Sub2Tem", "scores", "iou", "road"), float("nan"), "in 0..1"),
        (("entries", "Sub2Tem", "scores", "accuracy"), True, "in 0..1"),
        (("entries", "Sub2Tem", "intervals", "mean_iou"), [0.1], "pair of numbers"),
        (("entries", "Sub2Tem", "classes"), ["a", "a"], "different texts"),
        (("entries", "Sub2Tem", "colors"), [[0, 0, 0]], "do not fit together"),
        (("entries", "Sub2Tem", "reliability", "count"), [1], "different lengths"),
        (("entries", "Sub2Tem", "published"), {"Rein": 460}, "in 0..100"),
        (("entries", "Sub2Tem", "data", "incomplete"), "no", "true or false"),
    ],
)
def test_other_contents_are_refused(folder, keys, value, sentence):
    with pytest.raises(InputError, match=sentence):
        read_report(changed(folder, *keys, to=value))


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no report\.json; name a folder"):
        read_report(tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match=r"cannot be read|not a JSON object"):
            read_report(tmp_path)


def test_damaged_arrays_are_refused(folder):
    report = read_report(folder)
    path = folder / "examples" / "Sub2Tem" / "000.npz"
    image, truth, prediction = EXAMPLES[0]
    bad = {
        "truncated": path.read_bytes()[:-40],
        "no archive": b"hello",
        "a pickle": pickle.dumps({"image": image}),
    }
    for content in bad.values():
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            list(report.examples("Sub2Tem"))
    np.savez(path, image=image, truth=truth[1:], prediction=prediction)
    with pytest.raises(InputError, match="different sizes"):
        list(report.examples("Sub2Tem"))
    np.savez(path, image=np.array([{}]), truth=truth, prediction=prediction)
    with pytest.raises(InputError, match="cannot be read"):
        list(report.examples("Sub2Tem"))


def test_a_bomb_is_not_unpacked(folder, monkeypatch):
    monkeypatch.setattr("crossearth_hf.evaluation.report_file._LARGEST_ARRAY", 2**20)
    path = folder / "examples" / "Sub2Tem" / "000.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", bytes(2**20 + 1))
    with pytest.raises(InputError, match="unpacks to more than 1 MiB"):
        list(read_report(folder).examples("Sub2Tem"))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("target_classes", np.full(40, CLASSES, np.uint8), "do not fit"),
        ("target_classes", np.zeros(39, np.uint8), "do not fit"),
        ("source", np.zeros((40, 15), np.float16), "do not fit"),
        ("target", np.full((40, 16), np.inf, np.float16), "not finite"),
    ],
)
def test_features_that_do_not_fit_are_refused(folder, key, value, sentence):
    arrays = region_features(CLASSES, 1.0, 0) | {key: value}
    np.savez(folder / "features" / "Sub2Tem.npz", **arrays)
    with pytest.raises(InputError, match=sentence):
        read_report(folder).features("Sub2Tem")


def test_a_target_without_source_features(folder):
    empty = {"source": np.zeros((0, 16), np.float16), "source_classes": np.zeros(0, np.uint8)}
    np.savez(folder / "features" / "Sub2Tem.npz", **(region_features(CLASSES, 1.0, 0) | empty))
    assert len(read_report(folder).features("Sub2Tem").source) == 0


def test_folders_need_no_version(tmp_path):
    report = read_report(write_report(tmp_path / "r", {"mine": entry("casid", EXAMPLES)}))
    assert (report.entries["mine"].scenario, report.entries["mine"].published) == (None, {})
