"""The table of a report, line by line."""

from benchmark_data import as_entry

from crossearth_hf.evaluation.report_file import read_report
from crossearth_hf.evaluation.report_folder import SELECTIONS, Protocol, ReportFolder
from crossearth_hf.evaluation.table import terminal_table

MODEL = {
    "name": "tiny",
    "sha256": "a" * 64,
    "config_sha256": "b" * 64,
    "classes": [],
    "parameters": 1,
}


def table(tmp_path, selection="last", **entries):
    folder = ReportFolder(
        tmp_path / "report", MODEL, Protocol(SELECTIONS[selection], "float32", "cpu")
    )
    for name, entry in entries.items():
        folder.add(name, entry, [], None)
    return terminal_table(read_report(folder.path))


def test_unseen_targets_have_a_mean_and_others_stand_apart(tmp_path):
    lines = table(
        tmp_path,
        Vaihingen=as_entry(0.5, published={"CrossEarth": 67.5, "Rein": 60.3}),
        Home=as_entry(0.9, unseen=False),
        Town=as_entry(0.4, scored_classes=["b"]),
    ).splitlines()
    assert lines[0] == "tiny, last checkpoint, float32"
    assert lines[2].startswith("target ")
    assert lines[2].endswith("published (other harness)")
    assert lines[4] == "unseen"
    assert " ".join(lines[5].split()).startswith("Vaihingen 3 50.0 [40.0, 60.0] ")
    assert " ".join(lines[5].split()).endswith(" 20.0 60.0 90.0 5.0 CrossEarth 67.5, Rein 60.3")
    assert lines[7].split() == ["mean", "of", "2", "45.0"]
    assert lines[8] == "in-domain, in no mean"
    assert lines[9].split()[0] == "Home"
    assert lines[5].index("60.0]") + 5 == lines[6].index("60.0]") + 5 == lines[7].index("45.0") + 4
    assert lines[11] == "Town is scored over b only; the rest counts as one class."


def test_what_a_reader_must_know_is_said(tmp_path):
    built = {
        "images": 3,
        "pixels": 9,
        "fingerprint": "f",
        "incomplete": True,
        "layout": "assumed",
        "build": "x",
    }
    text = table(
        tmp_path, "oracle", D2S=as_entry(None, ours=True, data=built, class_map={"land": "a"})
    )
    for sentence in (
        "D2S is a scenario of this package, not of the paper.",
        "D2S was scored on a part of its images.",
        "layout is assumed, not confirmed.",
        "D2S has other classes than the model",
        "an oracle, no result.",
        "mean of 0",
    ):
        assert sentence in text
