"""The script for a published checkpoint, on stand-ins: a random checkpoint of that format and miniature archives."""

import importlib.util
import json
import re
from pathlib import Path

import miniature_archives
import pytest
import torch
from published import tiny_tensors, write_config

from crossearth_hf.scenarios.scenarios import BENCHMARKS

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reproduce_published.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reproduce_published", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(tmp_path):
    """A checkpoint, the archives of two areas, and a folder to work in."""
    (tmp_path / "raw").mkdir()
    miniature_archives.vaihingen(tmp_path / "raw", {"area1": (96, 96), "area2": (96, 80)})
    torch.save({"state_dict": tiny_tensors()}, tmp_path / "Potsdam(i)-source.pth")
    checkpoint = str(tmp_path / "Potsdam(i)-source.pth")
    work = [str(tmp_path / "raw"), str(tmp_path / "work"), "--checkpoint", checkpoint]
    work += ["--config", str(write_config(tmp_path))]
    return [*work, "--device", "cpu", "--workers", "1", "--allow-incomplete"]


def written(folder):
    """When weights, shards and report were written."""
    paths = [*folder.rglob("*.safetensors"), *folder.rglob("*.parquet"), folder / "report" / "report.json"]
    assert len(paths) >= 3
    return {path: path.stat().st_mtime_ns for path in paths}


def test_all_steps_and_then_none_again(script, arguments, tmp_path, capsys):
    assert script.main(arguments) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "work" / "report" / "report.json").read_text())
    mean_iou = report["entries"]["P(i)2V"]["scores"]["mean_iou"]
    assert re.search(rf"this harness +{100 * mean_iou:.1f} \[", printed)
    assert re.search(r"paper's harness +67\.5\n", printed)
    assert "do not compare" in printed, "miniature archives are incomplete"
    assert report["model"]["classes"][0] == "impervious_surface"
    files = written(tmp_path / "work")
    assert script.main(arguments) == 0
    assert capsys.readouterr().out.endswith(printed[printed.index("P(i)2V, mean IoU") :])
    assert written(tmp_path / "work") == files


def test_another_checkpoint_is_not_mixed_in(script, arguments, tmp_path, capsys):
    assert script.main(arguments) == 0
    arguments[3] = "Cusyoung/CrossEarth:Potsdam(r)-source.pth"
    assert script.main(arguments) == 2
    assert "was converted from Potsdam(i)-source.pth" in capsys.readouterr().err


def test_a_mistake_is_one_sentence(script, arguments, tmp_path, capsys):
    arguments[0] = str(tmp_path / "nowhere")
    assert script.main(arguments) == 2
    assert re.fullmatch(r"error: .*nowhere.*\n", capsys.readouterr().err.splitlines(keepends=True)[-1])


def test_the_published_score_is_the_benchmarks(script):
    assert script.SCENARIO is BENCHMARKS["P(i)2V"]
    assert script.parse(["raw", "work"]).checkpoint == "Cusyoung/CrossEarth:Potsdam(i)-source.pth"
