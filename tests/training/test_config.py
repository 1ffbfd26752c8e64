"""The command line of training: flags, files, and the mistakes that they catch."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.labels import LABEL_SETS
from crossearth_hf.training.config import TrainConfig
from crossearth_hf.training.recipe import (
    RENAMED,
    build_train_config,
    field_descriptions,
    parse_train_config,
    to_json,
    to_yaml,
    with_new_names,
)

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = ["--model", "tiny", "--output_dir", "run", "--train_data", "synth:desert-city:1"]


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "learning_rate: 3e-4\nmax_steps: 7\ntrain_data: some/folder\nrotate: true\nscale_range: [0.8, 2]\n"
    )
    arguments = [
        "--config",
        str(path),
        "--model",
        "tiny",
        "--output_dir",
        "run",
        "--max_steps",
        "9",
        "--no-rotate",
    ]
    config = parse_train_config(arguments)
    assert config == TrainConfig(
        model="tiny",
        output_dir="run",
        train_data=["some/folder"],
        learning_rate=3e-4,
        max_steps=9,
        scale_range=[0.8, 2.0],
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--learning_rat", "1"],
            "'learning_rat' is not a field of TrainConfig; did you mean 'learning_rate'",
        ),
        (["--zzzzzz=1"], "'zzzzzz' is not a field"),
        (["--max_steps", "3", "stray"], "'stray' belongs to no flag"),
        (["--max_steps", "many"], "max_steps is 'many'; it must be of type int"),
        (["--max_steps", "0"], "max_steps is 0; it must be positive"),
        (["--per_device_train_batch_size", "2.5"], "per_device_train_batch_size is '2.5'"),
        (["--mixed_precision", "fp8"], "must be one of no, bf16, fp16"),
        (
            ["--frozen_dtype", "bfloat16"],
            "frozen_dtype is 'bfloat16'; it needs mixed_precision bf16",
        ),
        (["--classes", "moon"], "'moon' is not a label set"),
        (["--schedule_steps", "10", "--max_steps", "20"], "schedule_steps is 10"),
        (["--scale_range", "2", "0.5"], "scale_range"),
        (["--crop_size", "100"], "crop_size is 100; it must be a multiple of 16"),
        (["--train_weights", "1", "2"], "train_weights"),
        (["--nodata", "black"], "nodata is 'black'; it must be of type float or 'none'"),
        (["--nodata", "0", "none"], "nodata is 'none'; it must be of type float or 'none'"),
        (["--nodata", "nan"], r"nodata is \[nan\]; it must be finite numbers or 'none'"),
        (["--config", "absent.yaml"], "absent.yaml cannot be read"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        parse_train_config([*REQUIRED, *arguments])


@pytest.mark.parametrize(
    ("flags", "line", "nodata", "values"),
    [
        (["--nodata", "-9999,0"], "nodata: [-9999, 0]", [-9999.0, 0.0], (-9999.0, 0.0)),
        (["--nodata", "-9999", "1e20"], "nodata: '-9999,1e20'", [-9999.0, 1e20], (-9999.0, 1e20)),
        (["--nodata", "None"], "nodata: none", "none", ()),
        ([], "nodata: []", [], None),
    ],
)
def test_values_without_data_come_from_flags_files_and_the_recipe_of_a_run(
    tmp_path, flags, line, nodata, values
):
    config = parse_train_config([*REQUIRED, *flags])
    assert (config.nodata, config.reading.nodata) == (nodata, values)
    for text in (line, to_yaml(config)):
        (tmp_path / "run.yaml").write_text(text)
        assert parse_train_config([*REQUIRED, "--config", str(tmp_path / "run.yaml")]) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1", "did you mean 'learning_rate'"),
        ("rotate: 3", "rotate is 3; it must be of type bool"),
        ("max_steps: true", "max_steps is True"),
        ("train_data: [3]", "train_data is 3"),
        ("- max_steps", "does not consist of 'name: value' lines"),
        ("max_steps: [", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        parse_train_config(
            [
                "--config",
                str(tmp_path / "run.yaml"),
                *REQUIRED[: 4 if "train_data" in text else None],
            ]
        )


@pytest.mark.parametrize("old", RENAMED)
def test_names_of_earlier_releases_are_refused_with_their_new_ones(tmp_path, old):
    name, _, value = old.partition(" ")
    (tmp_path / "run.yaml").write_text(f"{name}: {value or 3}")
    sentence = f"'{old}' has a new name; write '{RENAMED[old]}'"
    for flags in (
        [f"--{name}", value or "3"],
        [f"--{name.replace('_', '-')}={value}"],
        ["--config", str(tmp_path / "run.yaml")],
    ):
        with pytest.raises(InputError) as refusal:
            parse_train_config([*REQUIRED, *flags])
        assert str(refusal.value) == sentence


def test_flags_without_a_value_are_refused_too():
    for flag in ("--resume", "--no-resume"):
        with pytest.raises(
            InputError, match="'resume' has a new name; write 'resume_from_checkpoint'"
        ):
            parse_train_config([*REQUIRED, flag])


def test_an_old_recipe_can_still_be_shown():
    old = {
        "model": "tiny",
        "output_dir": "run",
        "train_data": "x",
        "objective": "masks",
        "steps": 7,
        "batch_size": 2,
    }
    config = build_train_config(with_new_names(old))
    assert (config.objective, config.max_steps, config.per_device_train_batch_size) == (
        "segmentation",
        7,
        2,
    )
    assert with_new_names(with_new_names(old)) == with_new_names(old)


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="train_data is missing"):
        parse_train_config(REQUIRED[:-2])


def test_a_misspelled_flag_ends_with_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *REQUIRED, "--max_stepz", "3"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert end.value.code == 2
    sentence = (
        "crossearth: error: 'max_stepz' is not a field of TrainConfig; did you mean 'max_steps'?"
    )
    assert capsys.readouterr().err.strip() == sentence
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": "features", "eval_data": ["x"]},
            "eval_data is .*must be left out with objective 'features'",
        ),
        (
            {"save_steps": 75, "logging_steps": 50},
            r"save_steps is 75; it must be a multiple of logging_steps \(50\)",
        ),
        (
            {"objective": "pixels"},
            "objective is 'pixels'; it must be one of segmentation, multitask, reconstruct, features",
        ),
        (
            {"objective": "reconstruct", "eval_data": ["x"]},
            "eval_data is .*must be left out with objective 'reconst",
        ),
        (
            {"objective": "features", "style_probability": 0.1},
            "style_probability is 0.1; it must be 0 with objective",
        ),
        (
            {"objective": "features", "adaptation": "frozen"},
            "adaptation is 'frozen'; it must be another",
        ),
        (
            {"style_probability": 0.1, "bands": [1, 2, 3, 4]},
            "style_probability is 0.1; it must be 0 with more than",
        ),
        (
            {"adaptation": "lora+full"},
            "adaptation is .*; it must be one of frozen, rein, lora, full, rein.lora",
        ),
        ({"style_probability": 1.1}, "style_probability is 1.1; it must lie between 0 and 1"),
        ({"style_alpha": float("nan")}, "style_alpha is nan; it must lie between 0 and 1"),
        ({"style_block_size": 0}, "style_block_size is 0; it must be positive"),
        ({"lora_rank": 0}, "lora_rank is 0; it must be positive"),
        ({"lora_dropout": -0.5}, "lora_dropout is -0.5; it must lie between 0 and 1"),
        ({"rotation_degrees": -1.0}, "rotation_degrees is -1.0; it must lie between 0 and 180"),
        (
            {"rotation_degrees": float("inf")},
            "rotation_degrees is inf; it must lie between 0 and 180",
        ),
        (
            {"fourier_probability": 0.5, "per_device_train_batch_size": 1},
            "fourier_probability is 0.5; it needs a per_device_train_batch_size above 1",
        ),
        (
            {"mim_weight": 0.5},
            "mim_weight is 0.5; it must be left out with objective 'segmentation', which hides no blocks",
        ),
        (
            {"mim_mask_ratio": 2.0, "objective": "multitask"},
            "mim_mask_ratio is 2.0; it must lie between 0 and 1",
        ),
        (
            {"output_dir": "./tiny"},
            "output_dir is './tiny'; it must be another folder than that of the model",
        ),
        ({"report_to": "abacus"}, "report_to is 'abacus'; it must be one of none, tensorboard"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**({"model": "tiny", "output_dir": "run", "train_data": ["x"]} | changes))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "hub_cards").glob("*/*.yaml")), ids=lambda path: path.name
)
def test_shipped_recipes_are_valid(path):
    assert parse_train_config(["--config", str(path)]).train_data


def test_every_flag_is_described(capsys):
    texts = field_descriptions()
    assert texts.keys() == {item.name for item in dataclasses.fields(TrainConfig)}
    assert texts["seed"] == "Seed of weights, crops, styles, masks and the loss's random points."
    assert (
        texts["eval_steps"]
        == texts["save_steps"]
        == "Steps between log lines, evaluations and checkpoints."
    )
    with pytest.raises(SystemExit):
        parse_train_config(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--save_dtype VALUE Number format of the saved weights" in shown


PLAIN = {
    "max_steps": (np.int64(100), 100),
    "learning_rate": (np.float32(0.5), 0.5),
    "crop_size": (np.uint16(64), 64),
    "rotate": (np.bool_(True), True),
    "bands": (np.array([3, 2, 1]), [3, 2, 1]),
    "scale_range": ((0.5, np.float64(1)), [0.5, 1.0]),
    "nodata": (np.int16(-99), [-99]),
    "style_bank": (Path("bank.safetensors"), "bank.safetensors"),
    "style_networks": (Path("networks.safetensors"), "networks.safetensors"),
    "classes": ([np.str_("bare"), "roof"], ["bare", "roof"]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_paths_and_numbers_of_numpy_become_what_a_recipe_holds(tmp_path, name):
    given, expected = PLAIN[name]
    config = TrainConfig(**{"model": "tiny", "output_dir": "run", "train_data": ["x"], name: given})
    value = getattr(config, name)
    assert (value, type(value)) == (expected, type(expected))
    assert json.loads(to_json(config))[name] == expected
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    flags = ["--config", str(tmp_path / "run.yaml"), "--output_dir", "run"]
    assert parse_train_config(flags) == config


def test_backbones_and_files_of_classes_may_be_paths(tmp_path):
    (tmp_path / "classes.yaml").write_text("classes: [bare, roof]\n")
    config = TrainConfig(
        model="small",
        output_dir="run",
        train_data=["x"],
        backbone=Path("vit"),
        classes=[tmp_path / "classes.yaml"],
    )
    assert (config.backbone, config.classes) == ("vit", [str(tmp_path / "classes.yaml")])
    assert config.label_set.classes == ("bare", "roof")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_steps": "10"}, "max_steps is '10'; give a whole number"),
        ({"max_steps": 10.0}, "max_steps is 10.0; give a whole number"),
        ({"max_steps": True}, "max_steps is True; give a whole number"),
        ({"learning_rate": "1e-4"}, "learning_rate is '1e-4'; give a number"),
        ({"learning_rate": None}, "learning_rate is None; give a number"),
        ({"rotate": 1}, "rotate is 1; give True or False"),
        ({"model": 3}, "model is 3; give text"),
        ({"style_bank": b"x"}, "style_bank is b'x'; give text"),
        ({"bands": 3}, "bands is 3; give a list of whole numbers"),
        ({"bands": np.array(3)}, r"bands is array\(3\); give a list of whole numbers"),
        ({"bands": [1, "2"]}, r"bands is \[1, '2'\]; give a list of whole numbers"),
        ({"nodata": [None]}, r"nodata is \[None\]; give a list of numbers or 'none'"),
        ({"classes": LABEL_SETS["isprs"]}, "classes is LabelSet.*; give a list of texts"),
        ({"classes": {"bare": 1, "roof": 2}}, "classes is {.*; give a list of texts"),
        ({"train_data": None}, "train_data is None; give a list of texts"),
    ],
)
def test_other_types_are_refused_at_once(changes, sentence):
    with pytest.raises(TypeError, match=f"^{sentence}$"):
        TrainConfig(**({"model": "tiny", "output_dir": "run", "train_data": ["x"]} | changes))


def test_paths_are_taken_as_text_and_a_lone_source_is_refused():
    config = TrainConfig(
        model=Path("tiny"),
        output_dir=Path("run"),
        train_data=[Path("tiles"), "synth:desert-city:1"],
    )
    assert (config.model, config.output_dir, config.train_data) == (
        "tiny",
        "run",
        ["tiles", "synth:desert-city:1"],
    )
    assert "train_data:\n- tiles\n" in to_yaml(config)
    for source in ("tiles", Path("tiles")):
        with pytest.raises(
            InputError, match=r"train_data is .*tiles.*; it must be a list of sources"
        ):
            TrainConfig(model="tiny", output_dir="run", train_data=source)
