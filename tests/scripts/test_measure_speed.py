"""scripts/measure_speed.py: the baseline computes what the model computes, and the harness tells the truth."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_model import tiny_config

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)

ROOT = Path(__file__).resolve().parents[2]

import measure_speed  # noqa: E402
from speed import baseline, cases, materials, package, peers  # noqa: E402
from speed.jobs import Case, Setup  # noqa: E402
from speed.measure import Entry, agreement, race, summary  # noqa: E402
from speed.plain_inference import slide  # noqa: E402
from speed.process import Contestant, ContestantError  # noqa: E402
from speed.table import table  # noqa: E402

CROP = Case("crop", "scores", "test", size=160, window=64, stride=43)


@pytest.fixture(autouse=True)
def own_accelerator():
    """Contestants own their process; here the next test must not inherit the state of one that trains."""
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a tiny random model."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = CrossEarthForSemanticSegmentation(tiny_config())
    materials.spread_queries(network)
    network.save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def setup(saved, tmp_path):
    return Setup(
        "ours", "float32", CROP, saved, None, None, tmp_path / "own", threads=1, device="cpu"
    )


@pytest.mark.parametrize("size", [64, 96, 160])
def test_baseline_has_the_models_scores(setup, size):
    job = replace(setup, case=replace(CROP, size=size))
    ours, plain = package.build(job).run(), baseline.build(job).run()
    assert plain.shape == (1, 6, size, size)
    assert plain.std(dim=(2, 3)).min() > 0
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4 * plain.max().item())


def test_baseline_has_the_scores_of_the_small_preset(setup, tmp_path):
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(CrossEarthConfig.from_preset("tiny")).save_pretrained(
        tmp_path
    )
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    job = replace(setup, model=tmp_path, case=replace(CROP, size=256, window=256, stride=256))
    ours, plain = package.build(job).run(), baseline.build(job).run()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-4 * plain.max().item())


def test_baseline_learns_as_the_trainer_does(setup, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    setup = replace(setup, case=replace(CROP, kind="training", size=128))
    plain = baseline.build(setup)
    plain.warm_up()
    for option in ("fast", "lean"):
        job = package.build(replace(setup, option=option, folder=setup.folder / option))
        job.warm_up()
        assert len(job.run()) == 2
    assert job.run()[:2] == pytest.approx(plain.run(), rel=1e-4)


def test_predict_maps_what_the_baseline_maps(setup, tmp_path):
    scene = materials.make_scene(300, tmp_path)
    bundled = materials.make_model(materials.BUNDLED, tmp_path, ROOT)
    case = Case("scene", "predict", materials.BUNDLED, size=300, window=256, stride=171)
    job = replace(setup, case=case, model=bundled, scene=scene, corner=scene)
    job.folder.mkdir()
    ours, plain = package.build(job).run(), baseline.build(job).run()
    assert ours.shape == plain.shape == (300, 300)
    assert (ours != plain).float().mean() < 0.03, "they only blend windows differently"
    assert package.build_forward(replace(job, option="scores")).run() == []


def test_peers_give_scores_and_learn(setup, monkeypatch):
    monkeypatch.setitem(peers.NETWORKS, "segformer-b5", small_segformer)
    job = peers.build(replace(setup, family="segformer-b5"))
    assert job.warm_up().shape == (1, 6, 64, 64)
    assert job.run().shape == (1, 6, 160, 160)
    training = replace(setup, family="segformer-b5", case=replace(CROP, kind="training", size=64))
    assert peers.build(training).run() == []


def small_segformer():
    config = peers.SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=8, num_labels=6
    )
    return peers.SegformerForSemanticSegmentation(config)


def test_windows_cover_the_image_and_average():
    seen = []

    def score(crop):
        seen.append(crop[0, 0, 0, 0].item())
        return crop[:, :1] * 2 + len(seen)

    pixels = torch.arange(100.0).reshape(1, 1, 10, 10).expand(-1, 3, -1, -1)
    scores = slide(score, pixels, window=6, stride=3)
    assert seen == [
        0,
        3,
        4,
        30,
        33,
        34,
        40,
        43,
        44,
    ]  # starts 0, 3 and, shifted back inside, 4 on both axes
    assert scores[0, 0, 0, 0] == 1
    assert scores[0, 0, 9, 9] == 2 * 99 + 9
    assert scores[0, 0, 0, 3] == 2 * 3 + 1.5


@pytest.mark.slow
def test_whole_run(monkeypatch, tmp_path, capfd):
    case = Case("mini", "scores", "tiny", size=64, window=64, stride=64)
    monkeypatch.setitem(measure_speed.KNOWN, "mini", case)
    out = tmp_path / "report.json"
    arguments = ["--cases", "mini", "--contestants", "baseline", "ours:float32", "--rounds", "2"]
    assert measure_speed.main([*arguments, "--threads", "1", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    plain, ours = report["cases"][0]["contestants"]
    assert len(plain["seconds"]) == len(ours["seconds"]) == 2
    against = ours["against"]["baseline"]
    assert against["difference"] < 1e-4
    assert against["changed"] == 0
    assert against["ratio_least"] <= against["ratio"] <= against["ratio_most"]
    assert 2**27 < ours["peak_bytes"] < 2**33
    assert report["machine"]["threads"] == 1
    assert "| mini | ours:float32 |" in capfd.readouterr().out


@pytest.fixture
def release(tmp_path):
    """Folder with a stand-in of the package, whose third run finds no memory."""
    folder = tmp_path / "release"
    (folder / "crossearth_hf").mkdir(parents=True)
    (folder / "crossearth_hf" / "__init__.py").write_text("")
    (folder / "crossearth_hf" / "inference.py").write_text(STUB)
    return folder


STUB = """
import torch
calls = []

def load_model(*args, **options):
    return None, None

def sliding_window_scores(*args):
    calls.append(1)
    if len(calls) == 3:
        raise torch.OutOfMemoryError("too much")
    return torch.tensor([1.0, 2.0])
"""


def test_release_is_imported_from_its_folder(setup, release):
    with Contestant(setup, release, timeout=60) as contestant:
        contestant.run("warm_up")
        assert contestant.run("run")["seconds"] > 0
        assert contestant.outcome().tolist() == [1.0, 2.0]
        with pytest.raises(ContestantError, match="out of memory"):
            contestant.run("run")


def test_a_package_from_elsewhere_is_refused(setup, release, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(release))
    with pytest.raises(ContestantError, match="was imported where"):
        Contestant(setup, tmp_path / "nothing", timeout=60)


def test_who_takes_too_long_is_ended(setup, release):
    with pytest.raises(ContestantError, match="no answer within"):
        Contestant(setup, release, timeout=0.001)


def test_a_contestant_without_memory_or_time_is_recorded():
    waits = Scripted({"slow": ContestantError("no answer within 1 s")})
    entries = [Entry("baseline"), Entry("slow"), Entry("ours", "float32")]
    race(CROP, entries, 3, waits.start, lambda text: None)
    assert waits.turns == [
        "baseline",
        "slow",
        "ours:float32",
        "baseline",
        "ours:float32",
        "baseline",
        "ours:float32",
    ]
    assert entries[1].error == "no answer within 1 s"
    report = {
        "cases": [{"name": "crop", "contestants": [summary(entry, entries) for entry in entries]}]
    }
    assert "| crop | slow | no answer within 1 s |" in table(report)
    assert "| crop | ours:float32 | 3 (2 to 4) | 1.00 (1.00 to 1.00) |" in table(report)


class Scripted:
    """Contestants that take 2, 3 and 4 seconds, or fail in their first turn."""

    def __init__(self, failures):
        self.failures, self.turns = failures, []

    def start(self, entry):
        return ScriptedContestant(self, entry)


class ScriptedContestant:
    def __init__(self, script, entry):
        self.script, self.entry = script, entry

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, command):
        if command == "warm_up":
            return {}
        self.script.turns.append(self.entry.name)
        if self.entry.name in self.script.failures:
            raise self.script.failures[self.entry.name]
        seconds = 1.0 + self.script.turns.count(self.entry.name)
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": 2**30}

    def outcome(self):
        return np.ones(2)


def test_agreement():
    reference = np.zeros((1, 2, 1, 4), np.float32)
    reference[0, 0] = 2
    other = reference.copy()
    other[0, 1, 0, 0] = 3
    assert agreement(other, reference) == {"difference": 1.5, "changed": 0.25}
    assert agreement(np.array([[1, 2]]), np.array([[1, 3]])) == {"changed": 0.5}
    assert agreement(np.array([1.0]), reference) == {}


def test_unknown_release_is_told_before_anything_runs(capsys):
    assert measure_speed.main(["--cases", "crop512", "--previous", "no-such-revision"]) == 2
    assert "'no-such-revision' cannot be read from git" in capsys.readouterr().err


def test_previous_release_is_the_package_of_that_time(tmp_path):
    known = ["git", "cat-file", "-e", f"{cases.PREVIOUS_RELEASE}^{{commit}}"]
    if (
        shutil.which("git") is None
        or subprocess.run(known, cwd=ROOT, capture_output=True, check=False).returncode
    ):
        pytest.skip("this copy has no history")
    materials.extract_release(ROOT, cases.PREVIOUS_RELEASE, tmp_path)
    assert "def sliding_window_scores" in (tmp_path / "crossearth_hf" / "inference.py").read_text()


def test_contestants_of_a_case():
    usual = cases.usual_contestants(cases.CASES["crop512"], ("float32", "auto"))
    assert usual[:4] == ["baseline", "ours:float32", "ours:auto", "previous:float32"]
    chosen = cases.chosen_contestants(
        cases.CASES["training512"], ("float32",), ["baseline", "ours", "ours:lean-bf16"]
    )
    assert chosen == ["baseline", "ours:fast", "ours:lean", "ours:lean-bf16"]
    with pytest.raises(SystemExit):
        measure_speed.parse(["--contestants", "nobody"])
