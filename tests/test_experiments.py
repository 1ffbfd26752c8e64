"""Plan, scores and table of the ablation, on counts worked by hand, and a small cell from start to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import make_workplace

from crossearth_hf.ablation_report import summarize, write_ablation
from crossearth_hf.errors import InputError
from crossearth_hf.experiments import (
    ALL_EXPERIMENTS,
    EXPERIMENTS,
    VARIANTS,
    Experiment,
    Run,
    Target,
    Variant,
    execute,
    finished_results,
    labelled_scores,
    plan,
    run_config,
    score,
)
from crossearth_hf.labels import get_label_set
from crossearth_hf.reporting.numbers import ABSENT

LAND_COVER = get_label_set("land-cover")


def test_plan_goes_through_whole_rounds_of_seeds():
    runs = plan(["epfl", "cil"], ["rein", "crossearth"], [3, 4])
    assert [(run.seed, run.experiment.name, run.variant.name) for run in runs[:5]] == [
        (3, "epfl", "rein"), (3, "epfl", "crossearth"), (3, "cil", "rein"), (3, "cil", "crossearth"),
        (4, "epfl", "rein"),
    ]  # fmt: skip


@pytest.mark.parametrize(("experiments", "variants"), [(["paris"], ["rein"]), (["epfl"], ["esi"])])
def test_plan_refuses_unknown_names(experiments, variants):
    with pytest.raises(InputError, match="the known ones are"):
        plan(experiments, variants, [0])


def test_variants_of_a_seed_differ_in_their_own_settings_alone():
    configs = {
        run.variant.name: run_config(
            run, data=Path("data"), output=Path("out"), start=Path("start"), peer=Path("peer"), steps=300
        )
        for run in plan(["dubai"], list(VARIANTS), [7])
    }
    rein = configs["rein"]
    for name, config in configs.items():
        differing = {f for f in vars(config) if getattr(config, f) != getattr(rein, f)}
        own = set(VARIANTS[name].settings) | ({"style_bank"} if config.style_probability else set())
        assert differing <= own | {"output_dir"} | ({"model"} if VARIANTS[name].peer else set())
    assert configs["crossearth"].style_bank == "out/dubai/style_bank.safetensors"


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, "bf16"), (torch.float32, "no")])
def test_runs_compute_in_what_the_machine_does_well(monkeypatch, dtype, expected):
    monkeypatch.setattr("crossearth_hf.experiments.fastest_dtype", lambda device: dtype)
    config = run_config(plan(["cil"], ["full"], [0])[0], data=Path(), output=Path(), start=Path(), peer=Path())
    assert config.mixed_precision == expected


def test_no_experiment_trains_on_its_targets():
    for experiment in ALL_EXPERIMENTS.values():
        folders = {source.partition(":")[0] for source, _ in experiment.train}
        for target in experiment.targets:
            assert target.source.partition(":")[0] not in folders - {"dubai"}
        assert set(experiment.headline) <= {target.name for target in experiment.targets}
        assert experiment.validation.name not in experiment.headline
    assert EXPERIMENTS["dubai"].train[0][0] == "dubai:tile[1-6]_part00[1-8]"
    assert EXPERIMENTS["dubai"].targets[0].source == "dubai:tile[78]_*"


SMALL = Experiment(
    name="small",
    train=(("data:[0-3]", 1.0),),
    validation=Target("inside", "data:4", LAND_COVER.classes),
    targets=(Target("outside", "data:5", LAND_COVER.classes),),
    headline=("outside",),
    steps=24,
    settings={"batch_size": 2, "learning_rate": 1e-3},
)


def test_a_cell_goes_on_where_it_was_interrupted_and_is_not_repeated(tmp_path, monkeypatch):
    make_workplace(tmp_path)

    def cell(name, steps=None):
        run = Run(SMALL, Variant("full", {"adaptation": "full"}), 1)
        places = {"output": tmp_path / name, "start": tmp_path / "tiny.json", "peer": Path()}
        return execute(run, run_config(run, data=tmp_path, steps=steps, **places), tmp_path)

    whole = cell("whole")
    scored = []

    def interrupting(*args):
        scored.append(args[2].name)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr("crossearth_hf.experiments.score", interrupting)
    with pytest.raises(KeyboardInterrupt):
        cell("killed")
    resumed = cell("killed")
    assert scored == ["inside", "outside"] * 3, "the first checkpoint's scores are kept"
    assert [checkpoint["step"] for checkpoint in whole["checkpoints"]] == [12, 24]
    assert resumed["checkpoints"] == whole["checkpoints"]
    monkeypatch.setattr("crossearth_hf.experiments.train", None)
    assert cell("killed") == resumed
    with pytest.raises(InputError, match=r"result\.json is a finished run with steps 24 where 20 is asked for"):
        cell("killed", steps=20)


def test_unlabelled_classes_count_as_the_first_and_enter_no_mean():
    confusion = np.zeros((5, 5), dtype=np.int64)
    confusion[0] = [5, 1, 4, 0, 2]  # 4 of the land as road: no error where roads are not labelled
    confusion[1] = [1, 6, 3, 0, 0]  # 3 of the building as road: missed
    confusion[4] = [2, 0, 0, 0, 8]
    scores = labelled_scores(confusion, LAND_COVER, ("building", "vegetation"))
    assert scores["iou"] == pytest.approx({"building": 6 / (10 + 1), "vegetation": 8 / (10 + 2)})
    assert scores["mean_iou"] == pytest.approx((6 / 11 + 8 / 12) / 2)


def result(variant, seed, *checkpoints, precision="bf16"):
    """A run on EPFL whose checkpoints scored (validation, target)."""
    scores = [{"EPFL 90-99": {"mean_iou": inside}, "CIL": {"mean_iou": target}} for inside, target in checkpoints]
    return {
        "experiment": "epfl",
        "variant": variant,
        "seed": seed,
        "config": {"mixed_precision": precision},
        "checkpoints": [{"step": step, "scores": score} for step, score in enumerate(scores)],
    }


def test_checkpoints_are_chosen_by_rule_and_spread_over_seeds(tmp_path):
    results = [
        result("rein", 0, (0.5, 0.1), (0.9, 0.2), (0.6, 0.3)),
        result("rein", 1, (0.8, 0.6), (0.5, 0.4), (0.6, 0.5)),
        result("crossearth", 0, (0.5, 0.4)),
    ]
    row = summarize(results)["epfl"]["rein"]
    assert row["last"]["unseen"] == pytest.approx([0.4, 0.02**0.5])
    assert row["source"]["CIL"][0] == pytest.approx((0.2 + 0.6) / 2)
    assert row["oracle"]["CIL"][0] == pytest.approx((0.3 + 0.6) / 2)
    assert summarize(results)["epfl"]["crossearth"]["last"]["CIL"] == [0.4, None]
    written = write_ablation(results, tmp_path)
    assert [path.name for path in written] == ["ablation.json", "ablation.md", "ablation.png"]
    assert json.loads(written[0].read_text())["runs"] == results
    assert f"| rein | 2 | 40.0 ± 14.1 | {ABSENT} | 40.0 ± 14.1 |" in written[1].read_text()
    assert written[2].read_bytes().startswith(b"\x89PNG")


def test_gains_are_taken_seed_by_seed(tmp_path):
    results = [
        *(result("full", seed, (0.5, score)) for seed, score in enumerate((0.30, 0.20, 0.10))),
        *(result("crossearth", seed, (0.5, score)) for seed, score in enumerate((0.33, 0.23, 0.16))),
        result("full+mim", 7, (0.5, 0.4)),
        result("full+esi", 1, (0.5, 0.1)),
    ]
    rows = summarize(results)["epfl"]
    assert rows["crossearth"]["gain"] == pytest.approx([0.04, 0.03 / 3**0.5])  # of 0.03, 0.03 and 0.06
    assert rows["full+mim"]["gain"] is None  # no seed in common
    assert rows["full+esi"]["gain"] == [pytest.approx(-0.1), None]
    write_ablation(results, tmp_path)
    table = (tmp_path / "ablation.md").read_text()
    assert f"| full | 3 | 20.0 ± 10.0 | {ABSENT} |" in table
    assert "| crossearth | 3 | 24.0 ± 8.5 | +4.0 ± 1.7 |" in table
    assert "Precision" not in table
    assert "| full+esi | 1 | 10.0 | -10.0 |" in table


def test_mixed_precisions_are_told(tmp_path):
    write_ablation([result("rein", 0, (0.5, 0.3), precision="no"), result("full", 0, (0.5, 0.3))], tmp_path)
    table = (tmp_path / "ablation.md").read_text()
    assert "Precision: rein in float32; full in bfloat16." in table


def test_the_table_is_of_all_that_is_finished(tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        finished_results(tmp_path)
    wanted = [result("full", 0, (0.5, 0.3)), result("full", 1, (0.5, 0.2))]
    for run in wanted:
        folder = tmp_path / "epfl" / "full" / f"seed{run['seed']}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(run))
    (tmp_path / "epfl" / "full" / "seed2").mkdir()  # under way
    assert finished_results(tmp_path) == wanted
