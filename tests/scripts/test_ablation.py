"""Protocol, gains and table of the ablation, on counts worked by hand, and small runs from start to end."""

import dataclasses
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import run_ablation
import torch
from ablation import cells, protocol
from ablation.cells import Places, cell_config, execute, weigh_mim
from ablation.gains import holm, paired_gain
from ablation.protocol import BASE, BOTH, LEFT_OUT, ROWS, SOURCES, UNSEEN, Cell, plan
from ablation.report import summarize, write_ablation
from score_targets import TARGETS
from training_runs import make_workplace

from crossearth_hf.data import load_source
from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.numbers import ABSENT
from crossearth_hf.labels import get_label_set

LABELS = get_label_set("land-cover")
PLACES = Places(Path("data"), Path("out"), (Path("first"), Path("second")), Path("peer"))


# --- the protocol


def test_the_frozen_regime_is_primary_and_its_seeds_come_from_two_starts():
    runs = plan(["frozen", "trained"], list(ROWS))
    counts = {(regime, row): 0 for regime in ("frozen", "trained") for row in ROWS}
    for run in runs:
        counts[run.regime, run.row] += 1
    assert [
        counts["frozen", row] for row in (BASE, BOTH, "esi", "esi-low", "mim", "rendering")
    ] == [5, 5, 5, 5, 3, 3]
    assert {row for row in ROWS if counts["trained", row]} == {BASE, BOTH}
    assert [run.seed for run in runs if run.regime == "frozen"] == sorted(
        r.seed for r in runs if r.regime == "frozen"
    )
    starts = [Cell("frozen", BASE, seed).start(PLACES.starts).name for seed in range(5)]
    assert starts == ["first", "first", "first", "second", "second"]
    assert Cell("frozen", BASE, 4).start(PLACES.starts[:1]).name == "first"


@pytest.mark.parametrize(("regimes", "rows"), [(["paris"], [BASE]), (["frozen"], ["full"])])
def test_unknown_names_are_refused(regimes, rows):
    with pytest.raises(InputError, match="the known ones are"):
        plan(regimes, rows)


def test_rows_differ_in_their_own_settings_alone():
    configs = {row: cell_config(Cell("frozen", row, 1), PLACES, 300, 0.5) for row in ROWS}
    base = configs[BASE]
    for row, config in configs.items():
        differing = {
            field for field in vars(config) if getattr(config, field) != getattr(base, field)
        }
        allowed = set(ROWS[row]) | {"output_dir", "style_bank", "mim_weight"}
        if row == "peer":
            allowed.add("model")
        assert differing <= allowed, row
    both = configs[BOTH]
    assert (both.style_low_pass, both.mim_weight, both.style_bank) == (
        4.0,
        0.5,
        "out/style_bank.safetensors",
    )
    assert configs["rendering"].style_alpha == 0
    assert configs["peer"].model == "peer"


def test_nothing_left_out_and_no_target_is_learned_from(shared):
    data = shared / "data"

    def images(source):
        text = source if source.startswith("synth:") else str(data / source)
        return {image.name for image in load_source(text, LABELS)}

    learned = set().union(
        *(images(source) for source, _ in SOURCES if not source.startswith("synth:"))
    )
    for source in LEFT_OUT.values():
        if not source.startswith("synth:"):
            assert images(source)
            assert not images(source) & learned
    assert LEFT_OUT["temperate winter"] not in dict(SOURCES)
    folders = {
        source.partition(":")[2].partition("@")[0]
        for source, _ in SOURCES
        if source.startswith("manifest")
    }
    for name in UNSEEN:
        folder, _, part = TARGETS[name]["path"].partition(":")
        assert part not in folders if folder == "manifest.json" else folder != "dubai"
    dubai = [source.partition(":")[2] for source, _ in SOURCES if source.startswith("dubai:")]
    assert dubai
    assert not any(
        fnmatch(f"tile{tile}_part001", pattern) for tile in (1, 7, 8) for pattern in dubai
    )


# --- gains


def counts(hits, misses):
    """(K, K) of one image: pixels of class 1 that are found and missed."""
    matrix = np.zeros((5, 5), int)
    matrix[1, 1], matrix[1, 0] = hits, misses
    return matrix


def test_a_gain_is_the_mean_of_paired_differences():
    labeled = {"a": [1], "b": [1]}
    base = {seed: {"a": counts(4, 6)[None], "b": counts(5, 5)[None]} for seed in (0, 1)}
    row = {
        0: {"a": counts(5, 5)[None], "b": counts(5, 5)[None]},
        1: {"a": counts(8, 2)[None], "b": counts(6, 4)[None]},
        7: {"a": counts(9, 1)[None], "b": counts(9, 1)[None]},  # no base to compare it with
    }
    gain = paired_gain(row, base, labeled)
    assert gain.mean == pytest.approx((0.1 + 0.0 + 0.4 + 0.1) / 4)
    assert gain.seeds == 2
    # One image a domain: what is drawn are seeds and domains, and a draw of (seed 0, domain b) alone gains nothing.
    assert (gain.low, gain.high) == (pytest.approx(0), pytest.approx(0.4))
    assert paired_gain({9: row[0]}, base, labeled) is None


def test_a_gain_of_every_draw_is_significant_and_none_is_not():
    labeled = {name: [1] for name in "abcdef"}
    base = {seed: {name: np.stack([counts(4, 6)] * 3) for name in labeled} for seed in range(5)}
    better = {seed: {name: np.stack([counts(5, 5)] * 3) for name in labeled} for seed in range(5)}
    gain = paired_gain(better, base, labeled)
    assert (gain.mean, gain.low, gain.high) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
        pytest.approx(0.1),
    )
    assert gain.p == pytest.approx(2 / 2001)
    same = paired_gain(base, base, labeled)
    assert (same.mean, same.p) == (0, 1)


def test_holm_corrects_as_worked_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


# --- table


def result(row, seed, share, *, regime="frozen"):
    """A run that finds a share of the labeled pixels, in every target."""
    matrix = counts(round(100 * share), 100 - round(100 * share)).tolist()
    target = {"classes": ["building"], "top": [matrix, matrix], "factors": [matrix, matrix]}
    return {
        "regime": regime, "row": row, "seed": seed, "start": None, "config": {}, "training_seconds": 60.0,
        "factors": [1.0] * 5, "left_out": {"Dubai 1": {"top": 0.1, "factors": 0.5}},
        "targets": dict.fromkeys(("Dubai 7-8", *UNSEEN), target),
    }  # fmt: skip


def test_the_table_has_gains_intervals_and_both_regimes(tmp_path):
    results = [result(BASE, seed, share) for seed, share in enumerate((0.30, 0.20, 0.10))]
    results += [result("mim", seed, share) for seed, share in enumerate((0.33, 0.23, 0.16))]
    results += [result(BASE, 0, 0.5, regime="trained"), result("fourier", 9, 0.4)]
    rows = summarize(results)["frozen"]
    assert rows["mim"]["gain"]["mean"] == pytest.approx((0.03 + 0.03 + 0.06) / 3)
    assert rows["fourier"]["gain"] is None
    assert rows[BASE]["unseen"] == (pytest.approx(0.2), pytest.approx(0.1))
    written = write_ablation(results, tmp_path)
    assert [path.name for path in written] == ["ablation.json", "ablation.md", "ablation.png"]
    table = written[1].read_text()
    assert f"| {BASE} | 3 | 20.0 ± 10.0 | {ABSENT} | {ABSENT} |" in table
    assert "| mim | 3 | 24.0 ± 8.5 | +4.0 [+3.0, +6.0] |" in table
    assert "**trained**" in table
    assert len(json.loads(written[0].read_text())["runs"]) == len(results)
    assert written[2].read_bytes().startswith(b"\x89PNG")


# --- runs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Places of a small ablation: one source, one region left out, two targets."""
    make_workplace(tmp_path)
    monkeypatch.setattr(cells, "SOURCES", (("data:[0-3]", 1.0),))
    monkeypatch.setattr(cells, "LEFT_OUT", {"inside": "data:4"})
    targets = {
        "outside": {"path": "data:5"},
        "houses": {"path": "data:5", "labeled": ("building",), "scale": 0.5},
    }
    monkeypatch.setattr(cells, "TARGETS", targets)
    monkeypatch.setattr(cells, "SCORED", tuple(targets))
    monkeypatch.setattr(
        protocol, "SETTINGS", {"classes": ["land-cover"], "per_device_train_batch_size": 2}
    )
    return Places(tmp_path, tmp_path / "out", (tmp_path / "tiny.json",), tmp_path / "tiny.json")


def test_a_cell_is_trained_scored_and_not_repeated(small, monkeypatch):
    cell = Cell("trained", BASE, 1)
    config = cell_config(cell, small, 4, 1.0)
    found = execute(cell, config, small.data)
    assert set(found["targets"]) == {"outside", "houses"}
    assert np.array(found["targets"]["outside"]["factors"]).shape == (1, 5, 5)
    assert np.array(found["targets"]["houses"]["top"]).sum() == 80 * 80
    # what has no label counts as land
    assert np.array(found["targets"]["houses"]["top"])[:, 2:].sum() == 0
    assert 0 <= found["left_out"]["inside"]["top"] <= found["left_out"]["inside"]["factors"] <= 1
    monkeypatch.setattr(cells, "train", None)
    assert execute(cell, config, small.data) == json.loads(json.dumps(found))
    with pytest.raises(
        InputError, match=r"result\.json is a finished run with max_steps 4 where 6 is asked for"
    ):
        execute(cell, dataclasses.replace(config, max_steps=6), small.data)


def test_masked_modeling_gets_the_share_of_the_gradient(small, monkeypatch):
    monkeypatch.setattr(cells, "BATCHES_WEIGHED", 2)
    small.out.mkdir()
    torch.manual_seed(0)
    weight = weigh_mim(small, "trained")
    assert weight > 0
    assert weigh_mim(small, "trained") == weight  # read again
    (small.out / "mim_weight_trained.json").unlink()
    monkeypatch.setattr(cells, "GRADIENT_SHARE", 0.3)
    torch.manual_seed(0)
    assert weigh_mim(small, "trained") == pytest.approx(2 * weight, rel=1e-4)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Runs the script in threads; a cell is trained by writing its result down, unless `failing` says what happens."""
    monkeypatch.setattr(run_ablation, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(run_ablation, "start_worker", lambda threads: None)
    monkeypatch.setattr(run_ablation, "prepare_bank", lambda places: None)
    monkeypatch.setattr(run_ablation, "weigh_mim", lambda places, regime: 0.25)
    configs = {}

    def start(*flags, failing=None):
        def execute(cell, config, data):
            if failing and cell.row == "mim":
                raise failing
            configs[cell.row] = config
            folder = Path(config.output_dir)
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps(result(cell.row, cell.seed, 0.5)))

        monkeypatch.setattr(run_ablation, "execute", execute)
        places = ["--data", "data", "--start", "start", "--peer", "peer", "--out", str(tmp_path)]
        monkeypatch.setattr(
            sys, "argv", ["run", *places, "--regimes", "frozen", "--seeds", "0", *flags]
        )
        return run_ablation.main()

    start.configs = configs
    return start


def rows_of(folder):
    return [
        line.split(" | ")[0].strip("| ")
        for line in (folder / "ablation.md").read_text().splitlines()[4:-2]
    ]


def test_each_row_is_run_with_its_own_settings(start, tmp_path):
    assert start("--rows", BASE, BOTH, "esi", "esi-low", "peer", "--peer_steps", "70") == 0
    both = start.configs[BOTH]
    assert (both.style_low_pass, both.mim_weight, both.mim_block_size) == (4.0, 0.25, 16)
    assert (start.configs["peer"].max_steps, both.max_steps) == (70, 1500)
    assert rows_of(tmp_path) == [BASE, "esi", "esi-low", "peer", BOTH]


def test_a_cell_that_fails_is_named_and_the_others_are_written(start, tmp_path, capsys):
    assert (
        start(
            "--rows",
            BASE,
            "mim",
            "fourier",
            failing=FloatingPointError("the loss of step 3 is nan"),
        )
        == 2
    )
    assert (
        f"error: {tmp_path / 'frozen' / 'mim' / 'seed0'}: the loss of step 3 is nan"
        in capsys.readouterr().err
    )
    assert rows_of(tmp_path) == [BASE, "fourier"]
    assert start("--table") == 0
    assert f"wrote {tmp_path / 'ablation.json'}, " in capsys.readouterr().out


def test_ctrl_c_ends_it(start, tmp_path, capsys):
    assert start("--rows", "mim", failing=KeyboardInterrupt()) == 130
    assert "finished runs are kept, the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "ablation.md").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--workers", "0"), "--workers 0 cannot run anything"),
        (("--rows", "paris"), "unknown row 'paris'"),
        (("--start", "a", "b", "c"), "--start names 3 models"),
        (("--table",), "holds no finished run"),
    ],
)
def test_mistakes(start, capsys, flags, sentence):
    assert start(*flags) == 2
    assert sentence in capsys.readouterr().err
