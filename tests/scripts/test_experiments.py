"""Plan, scores and table of the ablation, on counts worked by hand, and a small cell from start to end."""

import dataclasses
import json
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from ablation.experiments import (
    ALL_EXPERIMENTS,
    VARIANTS,
    Experiment,
    Run,
    Target,
    Variant,
    execute,
    finished_results,
    labeled_scores,
    plan,
    prepare_banks,
    run_config,
    score,
)
from ablation.report import summarize, write_ablation
from PIL import Image
from training_runs import make_workplace

from crossearth_hf.errors import InputError
from crossearth_hf.evaluation.numbers import ABSENT
from crossearth_hf.labels import get_label_set
from crossearth_hf.model.earth_style import EarthStyle, StyleBank

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
            run, data=Path("data"), output=Path("out"), start=Path("start"), peer=Path("peer"), max_steps=300
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
    monkeypatch.setattr("ablation.experiments.fastest_dtype", lambda device: dtype)
    config = run_config(plan(["cil"], ["full"], [0])[0], data=Path(), output=Path(), start=Path(), peer=Path())
    assert config.mixed_precision == expected


NAMES = {
    "dubai": [f"tile{tile}_part{part:03}" for tile in range(1, 9) for part in range(1, 10)],
    "epfl_roads": [f"{number:03}" for number in range(1, 101)],
    "cil_roads": [f"{number:03}" for number in range(144)],
    "harvey_uav": ["any"],
    "indonesia_bt": ["any"],
}


def images_of(source):
    """(folder, name) of the images that a source of an experiment stands for."""
    folder, _, pattern = source.partition(":")
    return {(folder, name) for name in NAMES.get(folder, []) if fnmatch(name, pattern or "*")}


@pytest.mark.parametrize("experiment", ALL_EXPERIMENTS.values(), ids=lambda each: each.name)
def test_no_experiment_trains_on_its_targets(experiment):
    trained = {image for source, _ in experiment.train for image in images_of(source)}
    validation = images_of(experiment.validation.source)
    assert trained
    assert validation
    assert not trained & validation
    for target in experiment.targets:
        assert images_of(target.source)
        assert not images_of(target.source) & (trained | validation)
    assert set(experiment.headline) <= {target.name for target in experiment.targets}
    assert experiment.validation.name not in experiment.headline


def test_the_names_of_the_images_are_those_of_the_data(shared):
    for folder in ("dubai", "epfl_roads", "cil_roads"):
        assert {path.stem for path in (shared / "data" / folder / "images").iterdir()} == set(NAMES[folder]), folder


def test_the_bank_of_a_run_is_of_its_imagery_alone(tmp_path, monkeypatch):
    make_workplace(tmp_path)
    small = dataclasses.replace(SMALL, train=(*SMALL.train, ("synth:desert-city:2", 0.5)))
    monkeypatch.setitem(ALL_EXPERIMENTS, "small", small)
    prepare_banks(["small"], tmp_path, tmp_path / "out")
    bank = StyleBank.from_file(tmp_path / "out" / "small" / "style_bank.safetensors")
    assert (bank.count, bank.sources) == (4, ("data:[0-3]",))
    images = [np.asarray(Image.open(tmp_path / "data" / "images" / f"{index}.png")) for index in range(4)]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        embeddings = EarthStyle.from_file().predictor(pixels)
    torch.testing.assert_close(bank.mean, embeddings.mean(0), rtol=1e-4, atol=1e-4)


SMALL = Experiment(
    name="small",
    train=(("data:[0-3]", 1.0),),
    validation=Target("inside", "data:4", LAND_COVER.classes),
    targets=(Target("outside", "data:5", LAND_COVER.classes),),
    headline=("outside",),
    max_steps=24,
    settings={"per_device_train_batch_size": 2, "learning_rate": 1e-3},
)


def test_a_cell_goes_on_where_it_was_interrupted_and_is_not_repeated(tmp_path, monkeypatch):
    make_workplace(tmp_path)

    def cell(name, max_steps=None, start="tiny.json"):
        run = Run(SMALL, Variant("full", {"adaptation": "full"}), 1)
        places = {"output": tmp_path / name, "start": tmp_path / start, "peer": Path()}
        return execute(run, run_config(run, data=tmp_path, max_steps=max_steps, **places), tmp_path)

    whole = cell("whole")
    scored = []

    def interrupting(*args):
        scored.append(args[2].name)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return score(*args)

    monkeypatch.setattr("ablation.experiments.score", interrupting)
    with pytest.raises(KeyboardInterrupt):
        cell("killed")
    resumed = cell("killed")
    assert scored == ["inside", "outside"] * 3, "the first checkpoint's scores are kept"
    assert [checkpoint["step"] for checkpoint in whole["checkpoints"]] == [12, 24]
    assert resumed["checkpoints"] == whole["checkpoints"]
    monkeypatch.setattr("ablation.experiments.train", None)
    assert cell("killed") == resumed
    with pytest.raises(InputError, match=r"result\.json is a finished run with max_steps 24 where 20 is asked for"):
        cell("killed", max_steps=20)
    path = tmp_path / "killed" / "small" / "full" / "seed1" / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"config": result["config"] | {"batch_size": 2}}))
    with pytest.raises(
        InputError, match=r"is of an earlier release: 'batch_size' is now 'per_device_train_batch_size'"
    ):
        cell("killed")
    path.write_text(json.dumps(result))
    # The same from weights that somebody has trained: another start.
    assert resumed["start"] is None
    (tmp_path / "trained").mkdir()
    shutil.copy(tmp_path / "whole" / "small" / "full" / "seed1" / "model.safetensors", tmp_path / "trained")
    with pytest.raises(InputError, match=r"is a finished run with start None where [0-9a-f]{64} is asked for"):
        cell("killed", start="trained")


def test_unlabeled_classes_count_as_the_first_and_enter_no_mean():
    confusion = np.zeros((5, 5), dtype=np.int64)
    confusion[0] = [5, 1, 4, 0, 2]  # 4 of the land as road: no error where roads are not labeled
    confusion[1] = [1, 6, 3, 0, 0]  # 3 of the building as road: missed
    confusion[4] = [2, 0, 0, 0, 8]
    scores = labeled_scores(confusion, LAND_COVER, ("building", "vegetation"))
    assert scores["iou"] == pytest.approx({"building": 6 / (10 + 1), "vegetation": 8 / (10 + 2)})
    assert scores["mean_iou"] == pytest.approx((6 / 11 + 8 / 12) / 2)


def result(variant, seed, *checkpoints, precision="bf16", start="a"):
    """A run on EPFL whose checkpoints scored (validation, target)."""
    scores = [{"EPFL 90-99": {"mean_iou": inside}, "CIL": {"mean_iou": target}} for inside, target in checkpoints]
    return {
        "experiment": "epfl",
        "variant": variant,
        "seed": seed,
        "start": start,
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


def test_gains_are_taken_from_one_start_and_the_peer_has_its_own():
    results = [result("full", seed, (0.5, 0.2), start="b" if seed else "a") for seed in (0, 1)]
    results += [result(variant, seed, (0.5, 0.3)) for variant in ("rein", "efficientnet-fpn") for seed in (0, 1)]
    results.append(result("lora", 1, (0.5, 0.3)))
    rows = summarize(results)["epfl"]
    assert rows["rein"]["gain"] == [pytest.approx(0.1), None]  # seed 0 alone
    assert rows["efficientnet-fpn"]["gain"] == pytest.approx([0.1, 0])
    assert rows["lora"]["gain"] is None


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
