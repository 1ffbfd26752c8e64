"""The command: exit codes, one sentence per mistake, and one real run."""

import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasters import read_shares, with_legend
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.data.image_files import IMAGE_SUFFIXES
from crossearth_hf.inference import loading
from crossearth_hf.raster.writing import write_geotiff

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    CrossEarthForSemanticSegmentation(tiny_config(ground_sampling_distance=0.25)).save_pretrained(
        folder / "model"
    )
    CrossEarthImageProcessor().save_pretrained(folder / "model")
    pixels = np.random.default_rng(0).integers(1, 256, (3, 90, 115), dtype=np.uint8)
    write_geotiff(
        folder / "scene.tif", pixels, crs="EPSG:32632", transform=Affine(1, 0, 5e5, 0, -1, 5e6)
    )
    write_geotiff(
        folder / "existing.tif", pixels, crs=None, transform=Affine(1, 0, 5e5, 0, -1, 5e6)
    )
    (folder / "text.tif").write_text("no raster")
    (folder / "link.tif").symlink_to(folder / "scene.tif")
    (folder / "folder").mkdir()
    return folder


def predict(folder, *arguments, scene="scene.tif", target="map.tif", model="model"):
    return main(
        [
            "predict",
            str(folder / scene),
            str(folder / target),
            "--model",
            str(folder / model),
            *arguments,
        ]
    )


def test_a_scene_becomes_a_map(workplace, tmp_path, capsys):
    extra = [
        "--confidence",
        str(tmp_path / "c.tif"),
        "--preview",
        str(tmp_path / "p.png"),
        "--window",
        "50",
    ]
    assert predict(workplace, *extra, "--device", "cpu", target=tmp_path / "map.tif") == 0
    output = capsys.readouterr()
    assert "window 50 is not a multiple of 16: 64 is used" in output.err
    assert "--resolution 0.25 may give a better map" in output.err
    assert re.search(r"class +pixels +share +hectares", output.out)
    pixels = sum(
        int(n.replace(",", ""))
        for n in re.findall(r"^LABEL_\d +([\d,]+) ", output.out, re.MULTILINE)
    )
    assert pixels == 90 * 115
    assert {path.name for path in tmp_path.iterdir()} == {*with_legend("map.tif"), "c.tif", "p.png"}
    with (
        rasterio.open(tmp_path / "map.tif") as result,
        rasterio.open(workplace / "scene.tif") as source,
    ):
        assert (result.shape, result.crs, result.transform) == (
            source.shape,
            source.crs,
            source.transform,
        )


MISTAKES = {
    "missing": ({"scene": "none.tif"}, [], "does not exist"),
    "folder as scene": ({"scene": "folder"}, [], "is a folder"),
    "text as scene": ({"scene": "text.tif"}, [], "not a raster that GDAL can read"),
    "no such band": ({}, ["--bands", "1,2,4"], "numbers from 1 to 3"),
    "bands in words": ({}, ["--bands", "red"], "is not a list of band numbers"),
    "output is input": ({"target": "scene.tif"}, ["--overwrite"], "same file"),
    "output is a link to the input": ({"target": "link.tif"}, ["--overwrite"], "same file"),
    "output is input, spelt otherwise": (
        {"target": "folder/../scene.tif"},
        ["--overwrite"],
        "same file",
    ),
    "output exists": ({"target": "existing.tif"}, [], "exists already"),
    "no folder": ({"target": "none/map.tif"}, [], "does not exist"),
    "output is a folder": ({"target": "folder"}, [], "is a folder"),
    "not a TIFF": ({"target": "map.jpg"}, [], "must end in .tif"),
    "unknown folder": ({"model": "./none"}, [], "does not exist"),
    "folder without config": ({"model": "folder"}, [], "no config.json"),
    "wrong device": ({}, ["--device", "quantum"], "not available here"),
    "wrong type": ({}, ["--dtype", "int4"], "invalid choice"),
    "no stride": ({}, ["--stride", "0"], "must be between"),
    "wide stride": ({}, ["--window", "32", "--stride", "33"], "must be between"),
    "no batch": ({}, ["--batch-size", "0"], "at least 1"),
    "resolution 0": ({}, ["--resolution", "0"], "does not suit"),
    "fast and stride": ({}, ["--fast", "--stride", "20"], "not allowed with"),
    "workers and scheduler": (
        {},
        ["--workers", "2", "--scheduler", "tcp://x:1"],
        "not allowed with",
    ),
    "no workers": ({}, ["--workers", "0"], "must be 1 or more"),
    "workers on no device": ({}, ["--workers", "2", "--device", "quantum"], "not available here"),
    "no scheduler": ({}, ["--scheduler", "nonsense"], "no Dask scheduler answers at nonsense"),
    "asset of a raster": ({}, ["--asset", "visual"], "name an output folder"),
    "many in a file": ({"scene": "folder", "target": "text.tif/maps"}, [], "has no raster"),
    "no CRS": ({"scene": "existing.tif"}, ["--resolution", "2"], "known CRS"),
    "misspelled flag": ({}, ["--strides", "3"], "unrecognized arguments"),
    "abbreviated flag": ({}, ["--over"], "unrecognized arguments"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_with_a_sentence_and_code_2(workplace, capsys, name):
    places, arguments, sentence = MISTAKES[name]
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    try:
        code = predict(workplace, *arguments, **places)
    except SystemExit as error:  # argparse's own way
        code = error.code
    assert code == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert sentence in errors[-1]
    assert errors[-1].startswith("crossearth")
    assert "Traceback" not in "".join(errors)
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


def test_two_outputs_with_one_name(workplace, tmp_path, capsys):
    assert (
        predict(workplace, "--confidence", str(tmp_path / "a.tif"), target=tmp_path / "a.tif") == 2
    )
    assert "same file" in capsys.readouterr().err


def test_interrupt(workplace, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("crossearth_hf.prediction.mapper.predict_map", interrupted)
    assert predict(workplace, target=tmp_path / "map.tif") == 130
    assert (
        capsys.readouterr().err.strip().splitlines()[-1]
        == "crossearth: interrupted; no unfinished file is left behind"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def scenes(workplace, tmp_path):
    """A folder of two scenes, one below it, and a file that is none."""
    root = tmp_path / "scenes"
    (root / "south").mkdir(parents=True)
    for name in ("a.tif", "south/b.tif"):
        (root / name).write_bytes((workplace / "scene.tif").read_bytes())
    (root / "bad.tif").write_text("no raster")
    return root


def predict_many(workplace, *arguments):
    return main(
        ["predict", *map(str, arguments), "--model", str(workplace / "model"), "--device", "cpu"]
    )


def test_a_folder_becomes_a_folder_of_maps(workplace, scenes, tmp_path, capsys):
    maps, sure = tmp_path / "maps", tmp_path / "new" / "sure"
    assert predict_many(workplace, scenes, maps, "--confidence", sure, "--fast") == 2
    output = capsys.readouterr()
    lines = output.out.splitlines()[::2]
    assert [line.split()[0] for line in lines] == [str(maps / "a.tif"), str(maps / "south/b.tif")]
    assert all(re.search(r"LABEL_\d \d+\.\d%.*\(\d+\.\d s\)$", line) for line in lines)
    assert all(
        line.startswith("  ") and " as RGB, uint8, " in line
        for line in output.out.splitlines()[1::2]
    )
    *_, advice, problem, summary = output.err.strip().splitlines()
    assert "--resolution 0.25 may give a better map" in advice
    assert "and another scene: the scene has pixels of" in advice
    assert "bad.tif is damaged or is not a raster" in problem
    assert "1 of 3 scenes failed" in summary
    assert {path.name for path in sure.rglob("*.tif")} == {"a.tif", "b.tif"}

    (scenes / "bad.tif").unlink()
    assert predict_many(workplace, scenes, maps, "--confidence", sure, "--fast") == 0
    output = capsys.readouterr()
    assert output.err.strip() == "crossearth: 2 of 2 maps already exist and are skipped"
    assert output.out == ""
    assert predict_many(workplace, scenes, maps, "--confidence", sure, "--fast", "--tta") == 2
    assert "a.tif and another map were made with another model" in capsys.readouterr().err
    assert predict_many(workplace, scenes, maps, "--confidence", sure, "--fast", "--stac") == 0
    assert (maps / "south/b.json").exists()


def test_several_scenes_lists_and_items(workplace, scenes, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("scenes/south/b.tif")
    assets = {"visual": {"href": "scenes/a.tif"}, "nir": {"href": "scenes/south/b.tif"}}
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "Feature", "id": "one", "assets": assets})
    )
    sources = [scenes / "a.tif", tmp_path / "list.txt", tmp_path / "items.json"]
    assert (
        predict_many(
            workplace, *sources, tmp_path / "maps", "--asset", "nir", "--preview", tmp_path / "maps"
        )
        == 0
    )
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {
        f"{name}.{ending}"
        for name in ("a", "b", "one")
        for ending in ("tif", "tif.aux.xml", "qml", "png")
    }
    capsys.readouterr()
    assert predict_many(workplace, scenes / "a.tif", scenes / "south/b.tif", scenes / "a.tif") == 2
    assert "is a file; several scenes need a folder" in capsys.readouterr().err
    assert predict_many(workplace, scenes, scenes) == 2
    assert "choose another folder for the results" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert predict_many(workplace, tmp_path / "none.txt", tmp_path / "none") == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    "arguments", [["a.tif", "bad.tif"], ["list.txt"], ["../other", "south/b.tif"]]
)
def test_maps_do_not_take_the_place_of_scenes(
    workplace, scenes, tmp_path, monkeypatch, capsys, arguments, flags
):
    monkeypatch.chdir(scenes)
    (scenes / "list.txt").write_text("a.tif\nbad.tif\n")
    (tmp_path / "other/south").mkdir(parents=True)
    (tmp_path / "other/south/b.tif").write_bytes((scenes / "a.tif").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert predict_many(workplace, *arguments, ".", *flags) == 2
    assert "is the same file as" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_help_names_what_a_folder_is_searched_for(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    assert set(IMAGE_SUFFIXES) <= set(re.findall(r"\.\w+", capsys.readouterr().out))


def test_every_option_of_one_scene(workplace, tmp_path):
    files = {"--confidence": "c.tif", "--probabilities": "p.tif", "--preview": "v.png"}
    extras = [text for flag, name in files.items() for text in (flag, str(tmp_path / name))]
    assert (
        predict(
            workplace,
            *extras,
            "--tta",
            "--bands",
            "3",
            "--batch-size",
            "1",
            target=tmp_path / "map.tif",
        )
        == 0
    )
    shares = read_shares(tmp_path / "p.tif")
    assert len(shares) == 6
    with rasterio.open(tmp_path / "map.tif") as labels:
        of_label = np.take_along_axis(shares, labels.read(1)[None].astype(int), axis=0)[0]
        # which they are rounded to
        np.testing.assert_allclose(of_label, shares.max(axis=0), atol=0.004)


def test_a_bank_and_a_preview_of_it(workplace, tmp_path, capsys):
    bank, picture = tmp_path / "bank.safetensors", tmp_path / "styles.png"
    scenes = f"{workplace}:[se][cx]*"  # scene.tif and existing.tif
    assert main(["style-bank", scenes, str(bank), "--bands", "3,2,1"]) == 0
    output = capsys.readouterr()
    assert output.out == f"wrote {bank}: 2 tiles of {workplace.name} (2 images)\n"
    assert "2 tiles are too few to cover the 100 dimensions of a style" in output.err
    options = [
        "--bank",
        str(bank),
        "--alpha",
        "1",
        "--mask-ratio",
        "0.5",
        "--block-size",
        "16",
        "--draws",
        "2",
    ]
    assert main(["style-preview", str(workplace / "scene.tif"), str(picture), *options]) == 0
    assert capsys.readouterr().out == f"wrote {picture}\n"
    assert Image.open(picture).size == (3 * (384 + 12) + 12, 44 + 2 * (round(384 * 90 / 115) + 12))
    assert {path.name for path in tmp_path.iterdir()} == {bank.name, picture.name}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["style-bank", "{}/folder", "{}/b.safetensors"], "holds no raster"),
        (["style-bank", "{}/scene.tif", "{}/b.safetensors"], "is not a folder"),
        (["style-bank", "{}:text", "{}/b.safetensors"], "not a raster that GDAL can read"),
        (["style-bank", "{}:scene", "{}/b.npz"], "must end in .safetensors"),
        (["style-bank", "{}:scene", "{}/b.safetensors"], "gives 1 tiles with data"),
        (
            ["style-preview", "{}/scene.tif", "{}/p.png", "--alpha", "1.5"],
            "alpha 1.5 is not a number from 0 to 1",
        ),
        (["style-preview", "{}/scene.tif", "{}/p.png", "--mask-ratio", "nan"], "mask_ratio nan"),
        (
            ["style-preview", "{}/scene.tif", "{}/p.png", "--block-size", "91"],
            "larger than an image of 90 x 115",
        ),
        (
            ["style-preview", "{}/scene.tif", "{}/p.png", "--bank", "{}/scene.tif"],
            "is not a safetensors file",
        ),
        (["style-preview", "{}/scene.tif", "{}/p.jpg"], "must end in .png"),
        (["style-preview", "{}/none.tif", "{}/p.png"], "does not exist"),
        (["style-preview", "{}/scene.tif", "{}/p.png", "--drawss", "2"], "unrecognized arguments"),
    ],
)
def test_mistakes_with_styles(workplace, capsys, arguments, sentence):
    before = {path: path.stat().st_mtime_ns for path in workplace.rglob("*")}
    try:
        code = main([argument.format(workplace) for argument in arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert sentence in capsys.readouterr().err.strip().splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in workplace.rglob("*")} == before


def test_a_map_does_not_depend_on_what_the_machine_is_fast_in(workplace, tmp_path, monkeypatch):
    def asked(device):
        raise AssertionError("the type depends on the machine")

    monkeypatch.setattr(loading, "fastest_dtype", asked)
    assert predict(workplace, "--device", "cpu", target=tmp_path / "map.tif") == 0
    with pytest.raises(AssertionError, match="depends on the machine"):
        predict(workplace, "--device", "cpu", "--dtype", "auto", target=tmp_path / "auto.tif")


def test_the_apps_flags_are_its_own(capsys):
    pytest.importorskip("gradio")
    for flags, code in ((["--help"], 0), (["--max-queue", "0"], 2), (["--prot", "1"], 2)):
        with pytest.raises(SystemExit) as stop:
            main(["app", *flags])
        assert stop.value.code == code
    output = capsys.readouterr()
    assert "--max-megapixels" in output.out
    assert "crossearth app: error" in output.err


def test_the_app_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("crossearth_hf.cli.app.find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert "pip install 'crossearth-hf[app]'" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, capsys):
    def closed(*_args, **_kwargs):
        raise BrokenPipeError

    monkeypatch.setattr("crossearth_hf.scenarios.table.scenario_table", closed)
    monkeypatch.setattr("sys.stdout", sys.stdout)
    assert main(["scenarios"]) == 0


WORDS = {
    "nothing a command knows": (
        ["predct"],
        "crossearth COMMAND ...",
        "invalid choice: 'predct'; did you mean predict?",
    ),
    "bands in words": (
        ["predict", "a", "b", "--bands", "red,green,blue"],
        "crossearth predict SCENE",
        "1,2,3",
    ),
    "unknown flag": (
        ["predict", "a", "b", "--windows", "3"],
        "crossearth predict SCENE",
        "did you mean --window?",
    ),
    "flag of an earlier version": (
        ["evaluate", "m", "--label-set", "isprs"],
        "crossearth evaluate --out REPORT (",
        "unrecognized arguments: --label-set isprs; did you mean --classes?",
    ),
    "unknown flag of nothing like it": (
        ["publish", "a", "b", "--zzz"],
        "crossearth publish FOLDER REPO",
        "see crossearth",
    ),
    "unknown before missing": (
        ["evaluate", "m", "--otu", "r"],
        "crossearth evaluate --out REPORT (",
        "did you mean --out?",
    ),
    "abbreviated": (
        ["predict", "a", "b", "--overwr"],
        "crossearth predict",
        "did you mean --overwrite?",
    ),
    "no value": (
        ["predict", "a", "b", "--model"],
        "crossearth predict",
        "--model: expected one argument",
    ),
    "wrong choice": (
        ["predict", "a", "b", "--dtype", "float23"],
        "crossearth predict",
        "did you mean float32?",
    ),
    "missing": (["publish", "a"], "crossearth publish", "required: REPO"),
    "escape codes": (["publish", "a", "b", "--\x1b[31m\n"], "crossearth publish", r"\x1b[31m\n"),
}


@pytest.mark.parametrize("name", WORDS)
def test_wrong_arguments_are_one_sentence_with_the_commands_own_usage(capsys, name):
    arguments, usage, sentence = WORDS[name]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"usage: {usage}")
    assert sentence in lines[1]


def test_the_command_alone_shows_its_help(capsys):
    assert main([]) == 0
    assert "predict" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "sentence"),
    [(["nope.py"], "there is no script nope.py"), (["--module", "nope"], "there is no module nope"),
     (["--module", "nope.sub"], "there is no module nope.sub"), (["--module", "json.nope"], "no module json.nope")],
)  # fmt: skip
def test_what_cannot_be_launched_is_told_once(capsys, script, sentence):
    assert main(["launch", *script]) == 2
    assert sentence in capsys.readouterr().err


def launch_arguments(processes):
    several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
    machine = ["--num_machines", "1", "--num_processes", str(processes), "--mixed_precision", "no"]
    return ["launch", *machine, "--dynamo_backend", "no", *several]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("code", [0, 2, 130])
def test_a_launched_script_ends_with_its_own_exit_code_and_words_alone(
    tmp_path, capfd, monkeypatch, processes, code
):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time\n"
        "if os.environ.get('RANK', '0') != '0':\n    time.sleep(30 * (sys.argv[1] != '0'))\n    sys.exit()\n"
        "print('words', file=sys.stderr)\nsys.exit(int(sys.argv[1]))\n"
    )
    with nullcontext() if code == 0 else pytest.raises(SystemExit, match=f"^{code}$"):
        assert main([*launch_arguments(processes), str(script), str(code)]) == 0
    assert capfd.readouterr().err == "words\n"


def test_of_several_processes_the_first_speaks(monkeypatch, capsys):
    waited = []
    # in place of the module: other threads sleep too
    monkeypatch.setattr("crossearth_hf.command_line.time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr("crossearth_hf.command_line.signal.signal", lambda *_: None)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert main(["publish", "absent", "a b"]) == 2
        assert len(waited) == int(rank)
    # where nobody ends the second
    assert capsys.readouterr().err.count("is not a name of a repository") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "launch needs a script to run"),
        (["--num_processes", "x", "a.py"], "invalid int value: 'x'"),
    ],
)
def test_a_wrong_launch_is_one_sentence(capsys, arguments, message):
    assert main(["launch", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("crossearth: error: ")
    assert message in said[0]


def launched(processes, *arguments):
    """`crossearth launch` on CPUs, in a process of its own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
    }
    command = [
        sys.executable,
        "-m",
        "crossearth_hf.cli",
        *launch_arguments(processes),
        *map(str, arguments),
    ]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=300
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([ROOT / "scripts/train.py", "--stepz", "3"], "did you mean 'steps'?"),
        (["--module", "crossearth_hf.cli", "train", "--stepz", "3"], "did you mean 'steps'?"),
        (["--module", "crossearth_hf.cli", "evaluate", "m", "--otu", "r"], "did you mean --out?"),
        (
            [
                "--module",
                "crossearth_hf.cli",
                "evaluate",
                "./m",
                "--out",
                "r",
                "--folder",
                "f",
                "--name",
                "n",
            ],
            "./m",
        ),
    ],
)
def test_launched_training_and_evaluation(arguments, sentence, processes):
    result = launched(processes, *arguments)
    assert result.returncode == 2
    assert result.stderr.count(sentence) == 1
    assert "Traceback" not in result.stderr


def test_a_name_that_is_too_long_is_one_sentence(tmp_path, capsys):
    assert main(["predict", str(tmp_path / "a.tif"), str(tmp_path / ("a" * 252 + ".tif"))]) == 2
    words = capsys.readouterr().err
    assert "File name too long; check the path" in words
    assert "Traceback" not in words
