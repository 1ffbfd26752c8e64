"""`crossearth evaluate`: a run, and one sentence per mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from benchmark_data import write_domain, write_pair
from conftest import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.labels import get_label_set

LAND_COVER = get_label_set("land-cover")
MAP = "land=impervious_surface,road=impervious_surface,water=clutter,vegetation=tree"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(tiny_config(num_labels=5, id2label=LAND_COVER.id2label)).save_pretrained(
        folder / "model"
    )
    CrossEarthImageProcessor().save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 256, (40, 48, 3), np.uint8), rng.integers(0, 5, (40, 48), np.uint8)) for _ in range(3)]
    for index, pair in enumerate(pairs):
        write_pair(folder / "town", f"{index}", *pair)
    write_domain(folder / "data", "vaihingen", pairs)
    return folder


def run(folder, *arguments):
    return main(["evaluate", str(folder / "model"), "--device", "cpu", "--bootstrap", "20", *map(str, arguments)])


def test_folders_and_scenarios_join_one_report(workplace, tmp_path, capsys):
    out = tmp_path / "report"
    town = ["--folder", f"{workplace / 'town'}:[01]", "--name", "Town", "--classes", "building,road", "--scale", "0.5"]
    assert run(workplace, *town, "--out", out, "--examples", "1") == 0
    output = capsys.readouterr().out
    assert "Town is scored over building, road only" in output
    assert output.splitlines()[-1] == f"the report is in {out}: report.json, examples"
    built = ["--scenarios", "P(i)2V", "--data", workplace / "data", "--class-map", MAP, "--window", "48"]
    assert run(workplace, *built, "--out", out) == 0
    assert "CrossEarth 67.5" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert [entry["data"]["images"] for entry in report["entries"].values()] == [2, 3]
    assert report["entries"]["P(i)2V"]["intervals"]["resamples"] == 20
    assert report["means"]["unseen"]["targets"] == ["Town", "P(i)2V"]
    assert len(list((out / "examples" / "Town").iterdir())) == 1
    assert str(workplace) not in (out / "report.json").read_text()


FOLDER = ["--folder", "{}/town", "--name", "Town"]
SCENARIO = ["--scenarios", "P(i)2V", "--data", "{}/data"]
MISTAKES = {
    "nothing to score": ([], "one of the arguments --scenarios --folder is required"),
    "both": ([*FOLDER, *SCENARIO], "not allowed with argument"),
    "no data": (["--scenarios", "P(i)2V"], "--scenarios needs --data"),
    "no name": (["--folder", "{}/town"], "--folder needs --name"),
    "data of a folder": ([*FOLDER, "--data", "{}/data"], "--data does not go with --folder"),
    "scale of a scenario": ([*SCENARIO, "--scale", "0.5"], "--scale does not go with --scenarios"),
    "in-domain scenario": ([*SCENARIO, "--in-domain"], "--in-domain does not go with --scenarios"),
    "unknown scenario": (["--scenarios", "P(i)2W", "--data", "{}/data"], "the closest are P(i)2V"),
    "empty name in a list": (["--scenarios", "P(i)2V,,U2R", "--data", "{}/data"], "is no list of names"),
    "not built": (["--scenarios", "U2R", "--data", "{}/data", "--class-map", "a=b"], "loveda_rural is no built domain"),
    "other classes": (SCENARIO, "the model's classes are land, building"),
    "half a map": ([*SCENARIO, "--class-map", "road=impervious_surface"], "leaves out land, water, vegetation"),
    "no map": ([*SCENARIO, "--class-map", "road"], "is no map such as"),
    "a class twice": ([*SCENARIO, "--class-map", "road=car,road=tree"], "is no map such as"),
    "unknown class": ([*FOLDER, "--classes", "house"], "'house' is no class of 'land-cover'"),
    "unknown set": ([*FOLDER, "--label-set", "moon"], "'moon' is no label set"),
    "no image": (["--folder", "{}/town:x*", "--name", "Town"], "holds no image"),
    "no folder": (["--folder", "{}/none", "--name", "Town"], "holds no folder 'images'"),
    "scale 0": ([*FOLDER, "--scale", "0"], "scale 0.0 is not above 0"),
    "no resample": ([*FOLDER, "--bootstrap", "0"], "resamples 0 must be at least 1"),
    "selection": ([*FOLDER, "--selection", "best"], "invalid choice"),
    "no device": ([*FOLDER, "--device", "quantum"], "not available here"),
    "no window": ([*FOLDER, "--window", "0"], "window 0 must be at least 1"),
    "misspelt": ([*FOLDER, "--exampels", "3"], "unrecognized arguments"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_sentence_and_code_2(workplace, tmp_path, capsys, name):
    arguments, sentence = MISTAKES[name]
    try:
        code = run(workplace, *(argument.format(workplace) for argument in arguments), "--out", tmp_path / "report")
    except SystemExit as error:  # argparse's own way
        code = error.code
    assert code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in last
    assert last.startswith("crossearth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_launched_processes_write_the_report_of_one(workplace, tmp_path):
    """About half a minute: three interpreters start."""
    arguments = ["--folder", str(workplace / "town"), "--name", "Town", "--out"]
    assert run(workplace, *arguments, tmp_path / "one") == 0
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "crossearth_hf.cli"]
    command = ["evaluate", str(workplace / "model"), "--bootstrap", "20", *arguments, str(tmp_path / "two")]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *command], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("the report is in") == 1
    one, two = (json.loads((tmp_path / run / "report.json").read_text())["entries"]["Town"] for run in ("one", "two"))
    for key in one.keys() - {"created", "seconds"}:
        assert one[key] == two[key], key
