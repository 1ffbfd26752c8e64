"""The script for published checkpoints, on stand-ins: random checkpoints of that format and miniature archives."""

import importlib.util
import json
import re
from pathlib import Path

import miniature_archives
import miniature_others
import miniature_processed
import pytest
from published import write_config
from published_miniatures import SIZES, write_miniature

from crossearth_hf.conversion.published_files import ANNOUNCED, PUBLISHED_FILES
from crossearth_hf.scenarios.scenarios import SCENARIOS

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
    """A checkpoint, the archives of two areas, and a folder to work in; the scenario goes before them."""
    (tmp_path / "raw").mkdir()
    miniature_archives.vaihingen(tmp_path / "raw", {"area1": (96, 96), "area2": (96, 80)})
    (tmp_path / "files").mkdir()
    write_miniature(tmp_path / "files" / "Potsdam(i)-source.pth", "isprs", 512)
    work = [str(tmp_path / "raw"), str(tmp_path / "work"), "--checkpoints", str(tmp_path / "files")]
    work += ["--config", str(write_config(tmp_path, SIZES))]
    return [*work, "--device", "cpu", "--workers", "1", "--allow-incomplete"]


def written(folder):
    """When weights, shards and report were written."""
    paths = [
        *folder.rglob("*.safetensors"),
        *folder.rglob("*.parquet"),
        *folder.rglob("report.json"),
    ]
    assert len(paths) >= 3
    return {path: path.stat().st_mtime_ns for path in paths}


def test_all_steps_and_then_none_again(script, arguments, tmp_path, capsys):
    assert script.main(["P(i)2V", *arguments]) == 0
    printed = capsys.readouterr().out
    report = json.loads(
        (tmp_path / "work" / "reports" / "Potsdam(i)-source" / "report.json").read_text()
    )
    mean_iou = report["entries"]["P(i)2V"]["scores"]["mean_iou"]
    assert re.search(rf"this harness +{100 * mean_iou:.1f} \[", printed)
    assert re.search(r"paper's harness +67\.5\n", printed)
    assert "do not compare" in printed, "miniature archives are incomplete"
    assert report["model"]["classes"][0] == "impervious_surface"
    files = written(tmp_path / "work")
    assert script.main(["P(i)2V", *arguments]) == 0
    assert capsys.readouterr().out.endswith(printed[printed.index("P(i)2V, mean IoU") :])
    assert written(tmp_path / "work") == files


def test_another_checkpoint_is_not_mixed_in(script, arguments, tmp_path, capsys):
    assert script.main(["P(i)2V", *arguments]) == 0
    models = tmp_path / "work" / "models"
    (models / "Potsdam(i)-source").rename(models / "Vaihingen-source")
    miniature_archives.potsdam(tmp_path / "raw" / "potsdam", size=(60, 70))
    assert script.main(["V2P(i)", *arguments]) == 2
    assert (
        "was converted from Potsdam(i)-source.pth, not from Vaihingen-source.pth"
        in capsys.readouterr().err
    )


def test_a_scenario_that_fails_does_not_end_the_others(
    script, arguments, tmp_path, capsys, monkeypatch
):
    """WHU from an archive of its authors in a folder of its own, RescueNet as processed; no CASID, no DeepGlobe."""
    raw, files = tmp_path / "raw", tmp_path / "files"
    for name, write in (
        ("whu-building", miniature_others.whu),
        ("rescuenet", miniature_processed.rescuenet),
    ):
        (raw / name).mkdir()
        write(raw / name)
    for file in PUBLISHED_FILES:
        if file.source in ("whu_satellite", "potsdam_rgb_res", "casid_sub"):
            write_miniature(files / file.name, file.label_set, file.crop)
    codes = ("P(i)2V", "P(r)2Res", "S2A", "Sub2Tem")
    monkeypatch.setattr(script, "FILES", {code: script.FILES[code] for code in codes})
    assert script.main(["all", *arguments]) == 2
    output = capsys.readouterr()
    assert re.findall(r"^(\S+), mean IoU of (\d+) images", output.out, re.MULTILINE) == [
        ("P(i)2V", "1"),
        ("P(r)2Res", "2"),
        ("S2A", "2"),
    ]
    assert re.search(r"S2A.*\n.*\n  paper's harness   no number found", output.out)
    assert re.search(r"error: Sub2Tem: no pair of image and label for casid_tem", output.err)


def test_mistakes_are_one_sentence(script, arguments, tmp_path, capsys):
    for scenario, words in (
        ("U2R", "no checkpoint is published for U2R"),
        ("P(i)2W", "unknown scenario 'P(i)2W'"),
    ):
        assert script.main([scenario, *arguments]) == 2
        assert re.fullmatch(rf"error: {re.escape(words)}.*\n", capsys.readouterr().err)
    arguments[0] = str(tmp_path / "nowhere")
    assert script.main(["P(i)2V", *arguments]) == 2
    assert re.fullmatch(
        r"error: P\(i\)2V: .*nowhere.*\n", capsys.readouterr().err.splitlines(keepends=True)[-1]
    )


def test_every_documented_scenario_but_the_announced_ones_has_a_checkpoint(script, capsys):
    documented = {code for code, scenario in SCENARIOS.items() if not scenario.ours}
    announced = {code for code in documented if SCENARIOS[code].source in ANNOUNCED}
    assert announced == {"U2R", "R2U"}
    assert script.FILES.keys() == documented - announced
    assert script.FILES["P(i)2Res"].name == "Potsdam(i)2RescueNet.pth"
    assert script.FILES["A2S"].name == "WHU-Building-A2S.pth"
    assert script.FILES["D2M"].name == "D2M-Rein.pth"
    assert script.main(["list", "raw", "work"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 27
    assert lines[0].split() == ["P(i)2V", "Potsdam(i)-source.pth", "vaihingen", "67.5"]
