"""`crossearth evaluate`: a run, and one sentence per mistake."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from benchmark_data import write_domain, write_pair
from rasters import write_raster
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.data.image_files import read_image
from crossearth_hf.evaluation.report_file import read_report
from crossearth_hf.labels import get_label_set
from crossearth_hf.raster.scene import Reading

LAND_COVER = get_label_set("land-cover")
MAP = "land=impervious_surface,road=impervious_surface,water=clutter,vegetation=tree"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(
        tiny_config(num_labels=5, id2label=LAND_COVER.id2label)
    ).save_pretrained(folder / "model")
    CrossEarthImageProcessor().save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 256, (40, 48, 3), np.uint8), rng.integers(0, 5, (40, 48), np.uint8))
        for _ in range(3)
    ]
    for index, pair in enumerate(pairs):
        write_pair(folder / "town", f"{index}", *pair)
    write_domain(folder / "data", "vaihingen", pairs)
    return folder


def run(folder, *arguments):
    return main(
        [
            "evaluate",
            str(folder / "model"),
            "--device",
            "cpu",
            "--bootstrap",
            "20",
            *map(str, arguments),
        ]
    )


def test_folders_and_scenarios_join_one_report(workplace, tmp_path, capsys):
    out = tmp_path / "report"
    town = [
        "--folder",
        f"{workplace / 'town'}:[01]",
        "--name",
        "Town",
        "--labeled",
        "building,road",
        "--scale",
        "0.5",
    ]
    assert run(workplace, *town, "--out", out, "--examples", "1") == 0
    output = capsys.readouterr().out
    assert "Town is scored over building, road only" in output
    assert output.splitlines()[-1] == f"the report is in {out}: report.json, examples"
    built = [
        "--scenarios",
        "P(i)2V",
        "--data",
        workplace / "data",
        "--class-map",
        MAP,
        "--window",
        "48",
    ]
    assert run(workplace, *built, "--out", out) == 0
    assert "CrossEarth 67.5" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert [entry["data"]["images"] for entry in report["entries"].values()] == [2, 3]
    assert report["entries"]["P(i)2V"]["intervals"]["resamples"] == 20
    assert report["means"]["unseen"]["targets"] == ["Town", "P(i)2V"]
    assert len(list((out / "examples" / "Town").iterdir())) == 1
    assert str(workplace) not in (out / "report.json").read_text()


PLACES = {
    "model": "is an input",
    "town/report": "is an input",
    "data/report": "is an input",
    "": "the folder of the results",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_report_is_not_written_among_inputs(workplace, capsys, place):
    before = sorted(workplace.rglob("*"))
    built = ["--scenarios", "P(i)2V", "--data", workplace / "data", "--class-map", MAP]
    data = ["--folder", f"{workplace / 'town'}:*", "--name", "Town"] if "town" in place else built
    assert run(workplace, *data, "--out", workplace / place) == 2
    assert PLACES[place] in capsys.readouterr().err.splitlines()[-1]
    assert sorted(workplace.rglob("*")) == before


def test_black_and_white_masks_of_more_classes_are_told_the_remedy(workplace, tmp_path, capsys):
    white = np.kron([[0, 255]], np.ones((32, 16))).astype(np.uint8)
    town = [
        "--folder",
        binary_folder(tmp_path / "town", [white]),
        "--name",
        "Town",
        "--labeled",
        "building",
    ]
    assert run(workplace, *town, "--out", tmp_path / "report") == 2
    assert (
        "such as --classes background,building, and add --mask-values 0,255"
        in capsys.readouterr().err
    )


def binary_folder(folder, masks):
    """A data folder of black-and-white masks."""
    for index, mask in enumerate(masks):
        write_pair(folder, f"{index}", np.zeros((*mask.shape, 3), np.uint8), mask)
    return folder


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """A model of the classes background and building."""
    folder, building = tmp_path_factory.mktemp("two"), get_label_set("building")
    torch.manual_seed(0)
    config = tiny_config(num_labels=2, id2label=building.id2label)
    CrossEarthForSemanticSegmentation(config).save_pretrained(folder / "model")
    CrossEarthImageProcessor().save_pretrained(folder / "model")
    return folder


def test_black_and_white_masks_are_scored_as_asked_or_not_at_all(two_classes, tmp_path, capsys):
    white = np.kron([[0, 255]], np.ones((32, 16))).astype(np.uint8)
    town = ["--folder", binary_folder(tmp_path / "town", [white, white * 0]), "--name", "Town"]
    assert run(two_classes, *town, "--out", tmp_path / "report") == 2
    assert (
        "add --mask-values 0,255, and if no pixel is 'building', --mask-values 0,1"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "report").exists()
    assert run(two_classes, *town, "--mask-values", "0,255", "--out", tmp_path / "report") == 0
    table = capsys.readouterr().err
    assert "labels of Town, in 2 images:\n" in table
    assert "    1  building     25.00 %       1\n" in table
    entry = json.loads((tmp_path / "report" / "report.json").read_text())["entries"]["Town"]
    assert np.sum(entry["confusion_matrix"], axis=1).tolist() == [1536, 512]
    assert entry["mask_values"] == [0, 255]
    assert run(two_classes, *town, "--mask-values", "255,0", "--out", tmp_path / "report") == 2
    assert "has mask_values [0, 255], now it is [255, 0]" in capsys.readouterr().err
    assert run(two_classes, *town, "--mask-values", "0,1", "--out", tmp_path / "as_ids") == 0
    assert "no pixel of building" in capsys.readouterr().err


def test_where_nothing_can_be_scored_no_entry_is_written(two_classes, tmp_path, capsys):
    mask = np.kron([[0, 1]], np.ones((32, 16))).astype(np.uint8)
    only = [
        "--folder",
        binary_folder(tmp_path / "none", [mask * 0]),
        "--name",
        "None",
        "--labeled",
        "building",
    ]
    assert run(two_classes, *only, "--out", tmp_path / "report") == 2
    assert "None holds no pixel with data of building in 1 image" in capsys.readouterr().err
    image = np.full((3, 32, 32), np.nan, np.float32)  # labeled, but nowhere with data
    image[:, :, :16] = 7
    for part in ("images", "masks"):
        (tmp_path / "nan" / part).mkdir(parents=True)
    write_raster(tmp_path / "nan" / "images" / "0.tif", image)
    write_raster(tmp_path / "nan" / "masks" / "0.tif", mask[None])
    nan = ["--folder", tmp_path / "nan", "--name", "NaN", "--labeled", "building"]
    assert run(two_classes, *nan, "--out", tmp_path / "report") == 2
    assert (
        "NaN has no pixel with data of building in 1 images, so there is nothing to score"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "report").exists()


def write_float_pair(folder, fill):
    """An image of five bands that holds `fill` in its upper half, and a mask of buildings."""
    image = np.random.default_rng(0).normal(1000, 90, (5, 40, 48)).astype(np.float32)
    image[:, :20] = fill
    for part, values in (("images", image), ("masks", np.ones((1, 40, 48), np.uint8))):
        (folder / part).mkdir(parents=True)
        write_raster(folder / part / "0.tif", values)
    return folder


def test_a_person_decides_which_values_of_a_folder_are_no_data(workplace, tmp_path, capsys):
    town = ["--folder", write_float_pair(tmp_path / "town", -9999), "--name", "Town"]
    pixels = {}
    for name, extra in (
        ("found", []),
        ("none", ["--nodata", "none"]),
        ("named", ["--nodata", "-9999,0"]),
    ):
        assert run(workplace, *town, *extra, "--out", tmp_path / name) == 0
        entry = json.loads((tmp_path / name / "report.json").read_text())["entries"]["Town"]
        pixels[name] = (entry["data"]["pixels"], entry["nodata"])
        told = (
            "Town: -9999 is held by 1 of 1 images, in up to 50.0% of their pixels"
            in capsys.readouterr().err
        )
        assert told == (name == "found")
    assert pixels == {"found": (960, None), "none": (1920, []), "named": (960, [-9999, 0])}
    capsys.readouterr()
    assert run(workplace, *town, "--nodata", "7", "--out", tmp_path / "named") == 2
    assert "has nodata [-9999.0, 0.0], now it is [7.0]" in capsys.readouterr().err


def test_the_bands_of_a_folder_are_chosen(workplace, tmp_path, capsys):
    town = [
        "--folder",
        write_float_pair(tmp_path / "town", -9999),
        "--name",
        "Town",
        "--out",
        tmp_path / "report",
    ]
    assert run(workplace, *town, "--bands", "5,1,2") == 0
    (example,) = (tmp_path / "report" / "examples" / "Town").iterdir()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["entries"]["Town"][
        "bands"
    ] == [5, 1, 2]
    chosen = read_image(tmp_path / "town" / "images" / "0.tif", "0", Reading((5, 1, 2)))[0]
    np.testing.assert_array_equal(np.load(example)["image"], chosen)
    capsys.readouterr()
    assert run(workplace, *town, "--bands", "4,6,1", "--overwrite") == 2
    assert "0.tif; give one or three numbers from 1 to 5, such as 1,2,3" in capsys.readouterr().err


def test_a_model_of_four_channels_is_scored_on_four_bands(tmp_path, capsys):
    torch.manual_seed(0)
    config = tiny_config(num_labels=5, id2label=LAND_COVER.id2label)
    config.num_channels = 4
    CrossEarthForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    four = {"image_mean": [0.5] * 4, "image_std": [0.25] * 4}
    CrossEarthImageProcessor(**four).save_pretrained(tmp_path / "model")
    town = ["--folder", write_float_pair(tmp_path / "town", -9999), "--name", "Town"]
    for name, extra in (
        ("first", []),
        ("same", ["--bands", "1,2,3,4"]),
        ("others", ["--bands", "5,4,3,2"]),
    ):
        assert run(tmp_path, *town, *extra, "--out", tmp_path / name) == 0
    first, same, others = (
        json.loads((tmp_path / name / "report.json").read_text())["entries"]["Town"]["scores"]
        for name in ("first", "same", "others")
    )
    assert first == same != others
    (example,) = read_report(tmp_path / "first").examples("Town")
    assert example.image.shape == (40, 48, 3)


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
    "a scenario twice": (
        ["--scenarios", "P(i)2V,P(i)2V", "--data", "{}/data"],
        "names P(i)2V twice; once is enough",
    ),
    "unknown scenario": (["--scenarios", "P(i)2W", "--data", "{}/data"], "did you mean P(i)2V"),
    "empty name in a list": (
        ["--scenarios", "P(i)2V,,U2R", "--data", "{}/data"],
        "is not a list of names",
    ),
    "not built": (
        ["--scenarios", "U2R", "--data", "{}/data", "--class-map", "a=b"],
        "loveda_rural is not a built domain",
    ),
    "other classes": (SCENARIO, "the model's classes are land, building"),
    "half a map": (
        [*SCENARIO, "--class-map", "road=impervious_surface"],
        "leaves out land, water, vegetation",
    ),
    "no map": ([*SCENARIO, "--class-map", "road"], "is not a map such as"),
    "a class twice": ([*SCENARIO, "--class-map", "road=car,road=tree"], "is not a map such as"),
    "unknown class": (
        [*FOLDER, "--labeled", "house"],
        "'house' is not a class of the label set 'land-cover'",
    ),
    "unknown set": ([*FOLDER, "--classes", "moon"], "'moon' is not a label set"),
    "no image": (["--folder", "{}/town:x*", "--name", "Town"], "holds no image"),
    "no folder": (["--folder", "{}/none", "--name", "Town"], "holds no folder 'images'"),
    "values of a scenario": (
        [*SCENARIO, "--mask-values", "0,255"],
        "--mask-values does not go with --scenarios",
    ),
    "no values": ([*FOLDER, "--mask-values", "0,x"], "'0,x' is not a list of values such as 0,255"),
    "too few values": (
        [*FOLDER, "--mask-values", "0,255"],
        "names 2 values and the label set 'land-cover' has 5",
    ),
    "bands of a scenario": (
        [*SCENARIO, "--bands", "3,2,1"],
        "--bands does not go with --scenarios",
    ),
    "no data of a scenario": (
        [*SCENARIO, "--nodata", "none"],
        "--nodata does not go with --scenarios",
    ),
    "a value that is none": (
        [*FOLDER, "--nodata", "black"],
        "'black' is neither a value such as 0 or -9999",
    ),
    "a value that is not finite": (
        [*FOLDER, "--nodata", "nan"],
        "no-data value nan is not finite, and such pixels never count as data",
    ),
    "a value of no image": ([*FOLDER, "--nodata", "-1"], "no-data value -1 does not fit"),
    "scale 0": ([*FOLDER, "--scale", "0"], "scale 0.0 must be above 0"),
    "no resample": ([*FOLDER, "--bootstrap", "0"], "resamples 0 must be at least 1"),
    "selection": ([*FOLDER, "--selection", "best"], "invalid choice"),
    "no device": ([*FOLDER, "--device", "quantum"], "not available here"),
    "no window": ([*FOLDER, "--window", "0"], "window 0 must be at least 1"),
    "misspelled": ([*FOLDER, "--exampels", "3"], "unrecognized arguments"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_sentence_and_code_2(workplace, tmp_path, capsys, name):
    arguments, sentence = MISTAKES[name]
    try:
        code = run(
            workplace,
            *(argument.format(workplace) for argument in arguments),
            "--out",
            tmp_path / "report",
        )
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
    command = [
        "evaluate",
        str(workplace / "model"),
        "--bootstrap",
        "20",
        *arguments,
        str(tmp_path / "two"),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("the report is in") == 1
    one, two = (
        json.loads((tmp_path / run / "report.json").read_text())["entries"]["Town"]
        for run in ("one", "two")
    )
    for key in one.keys() - {"created", "seconds"}:
        assert one[key] == two[key], key
