"""What CrossEarth's authors have cut and relabeled, and folders that are named by a flag."""

import datasets
import miniature_processed
import numpy as np
import pytest
from miniature_others import blob, picture, save

from crossearth_hf.cli import main
from crossearth_hf.errors import InputError
from crossearth_hf.scenarios.build import build_dataset
from crossearth_hf.scenarios.build.archives import RawFolder
from crossearth_hf.scenarios.build.processed import first_id, folder_keys, id_table, named_folders
from crossearth_hf.scenarios.build.readers import READERS
from crossearth_hf.scenarios.domains import DOMAINS, domains_of

ARCHIVES = {
    "potsdam": miniature_processed.potsdam_res,
    "rescuenet": miniature_processed.rescuenet,
    "loveda": miniature_processed.loveda,
    "whu-building": miniature_processed.whu,
    "massachusetts-roads": miniature_processed.massachusetts,
    "deepglobe-roads": miniature_processed.deepglobe,
    "casid": miniature_processed.casid,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_processed_archives_are_recognized(tmp_path, name):
    truth = ARCHIVES[name](tmp_path)
    raw, found = RawFolder.open(tmp_path), {}
    for domain in domains_of(name):
        source = READERS[name].read(raw, domain, {})
        for pair in source.pairs:
            found[domain.name, pair.split, pair.name] = source.labels(pair)
        assert not source.unpaired or (name, domain.label_set) == ("potsdam", "isprs")
    assert found.keys() == truth.keys()
    for key in truth:
        np.testing.assert_array_equal(found[key], truth[key], err_msg=str(key))


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        ({"potsdam_rgb_res": "data"}, "no folder above img_dir is called RGB"),
        ({"potsdam_rgb_res": "potsdam-IRRG"}, "no folder above img_dir is called RGB"),
    ],
)
def test_bands_are_never_guessed(tmp_path, folders, sentence):
    miniature_processed.potsdam_res(tmp_path, folders)
    with pytest.raises(InputError, match=sentence):
        build_dataset("potsdam", tmp_path, tmp_path / "out", domains=["potsdam_rgb_res"])


def test_a_processed_archive_is_built_and_loads(tmp_path):
    truth = miniature_processed.rescuenet(tmp_path / "raw")
    report = build_dataset(
        "rescuenet", tmp_path / "raw", tmp_path / "out", allow_incomplete=True, workers=1
    )
    rows = datasets.load_dataset(
        str(tmp_path / "out"), "rescuenet", split="test", cache_dir=str(tmp_path / "cache")
    )
    for row in rows:
        np.testing.assert_array_equal(
            np.asarray(row["label"]), truth["rescuenet", "test", row["name"]]
        )
    assert report.builds["rescuenet"]["layout"] == "assumed"
    assert "labels start at 1" in " ".join(report.builds["rescuenet"]["notes"])


def test_splits_that_an_archive_lacks_are_no_fault(tmp_path):
    miniature_processed.rescuenet(tmp_path)
    with pytest.raises(InputError) as caught:
        build_dataset("rescuenet", tmp_path, tmp_path / "out")
    assert "test has 2 images where the benchmark has 449" in str(caught.value)
    assert "train has" not in str(caught.value)


def test_folders_are_named_by_flags(tmp_path, capsys):
    for index, kind in enumerate(("images", "labels")):
        for number in range(2):
            values = picture(number) if index == 0 else blob(number)
            save(tmp_path / kind / f"{number}{'_sat.jpg' if index == 0 else '_label.png'}", values)
    (tmp_path / "raw").mkdir()
    flags = [f"whu_aerial.test.{kind}={tmp_path / kind}" for kind in ("images", "labels")]
    command = [
        "build-dataset",
        "whu-building",
        str(tmp_path / "raw"),
        str(tmp_path / "out"),
        "--allow-incomplete",
    ]
    command += ["--domains", "whu_aerial", "--workers", "1"]
    assert main([*command, "--path", flags[0], "--path", flags[1]]) == 0
    assert "whu_aerial: test 2 images" in capsys.readouterr().out
    rows = datasets.load_dataset(
        str(tmp_path / "out"), "whu_aerial", split="test", cache_dir=str(tmp_path / "cache")
    )
    for row in rows:
        np.testing.assert_array_equal(np.asarray(row["label"]), blob(int(row["name"])))
    assert main([*command, "--path", flags[0]]) == 2
    assert "--path whu_aerial.test.labels=FOLDER is missing" in capsys.readouterr().err
    assert main(command) == 2
    error = capsys.readouterr().err
    assert (
        "WHU-Building.zip from https://huggingface.co/datasets/Cusyoung/CrossEarth-Benchmark"
        in error
    )
    assert "--path whu_aerial.test.images=FOLDER" in error


def test_no_flag_no_folders():
    assert named_folders(DOMAINS["casid_sub"], {}) is None
    assert list(folder_keys(DOMAINS["vaihingen"])) == [
        f"vaihingen.{split}.{kind}" for split in ("train", "test") for kind in ("images", "labels")
    ]


@pytest.mark.parametrize(
    ("name", "values", "first"),
    [
        ("vaihingen", [0, 1, 6], 1),
        ("vaihingen", [1, 6, 255], 1),
        ("casid_sub", [0, 1, 2, 3, 4], 0),
        ("casid_sub", [1, 2, 5], 1),
        ("vaihingen", [0, 1, 5], None),  # 1..6 without clutter, or 0..5
        ("vaihingen", [1, 2], None),
        ("vaihingen", [1, 6, 7], None),
        ("loveda_urban", [0, 3], None),
    ],
)
def test_where_labels_start(name, values, first):
    if first is None:
        with pytest.raises(InputError, match=f"the label files of {name} hold the values "):
            first_id(values, DOMAINS[name])
    else:
        assert first_id(values, DOMAINS[name]) == first


def test_numbers_become_ids():
    assert id_table(1, 2) == {0: 255, 1: 0, 2: 1, 255: 255}
    assert id_table(0, 2) == {0: 0, 1: 1, 255: 255}
