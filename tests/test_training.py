"""The optimiser's groups, the schedule, the command line, and runs on a tiny model."""

import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_config
from PIL import Image
from safetensors.torch import load_file

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor, training
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.train_config import TrainConfig, build_train_config, parse_train_config

ROOT = Path(__file__).resolve().parents[1]
REQUIRED = ["--model", "tiny", "--output_dir", "run", "--train_data", "synth:desert-city:1"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder of six 80x80 pairs and a tiny model's configuration file."""
    root = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / "data" / part).mkdir(parents=True)
    for index in range(6):
        labels = np.kron(rng.integers(0, 5, (4, 4)), np.ones((20, 20))).astype(np.uint8)
        image = np.stack([40 * labels + 20, 200 - 40 * labels, 30 * labels], -1) + rng.integers(0, 9, (80, 80, 3))
        Image.fromarray(image.astype(np.uint8)).save(root / "data" / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "data" / "masks" / f"{index}.png")
    config = tiny_config(num_labels=5, freeze_backbone=False, decoder_layers=2, encoder_layers=1)
    (root / "tiny.json").write_text(config.to_json_string())
    return root


def settings(workplace, output, **changes):
    values = {
        "model": str(workplace / "tiny.json"), "output_dir": str(output), "train_data": f"{workplace / 'data'}:[0-4]",
        "steps": 4, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1, "log_every": 1, "num_workers": 0,
        "max_grad_norm": 1.0, "seed": 3,
    }  # fmt: skip
    return build_train_config(values | changes)


def log_lines(output):
    return [json.loads(line) for line in (Path(output) / "log.jsonl").read_text().splitlines()]


def losses(output):
    return [(line["step"], line["loss"], line["lr"]) for line in log_lines(output) if "loss" in line]


# --- optimiser and schedule


def decays(model):
    groups = training.param_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("rank", [4, None])
def test_published_groups(link, rank):
    model = CrossEarthForSemanticSegmentation(tiny_config(link_queries=link, rein_rank=rank))
    found = decays(model)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name in found if name.startswith("model.backbone.")]
    spared = {name for name, decay in found.items() if decay == 0}
    expected = {"model.adapter.scale", "transformer_module.level_embed.weight"}
    expected |= {"model.adapter.tokens"} if rank is None else {"model.adapter.tokens_a", "model.adapter.tokens_b"}
    if not link:
        expected |= {f"transformer_module.queries_{kind}.weight" for kind in ("embedder", "features")}
    assert expected <= spared
    assert all("norm" in name or ".input_projections." in name or "_1." in name for name in spared - expected)
    assert found["pixel_decoder.level_embed"] == 0.05
    assert found["class_predictor.bias"] == 0.05
    assert found["model.adapter.delta_f.bias"] == 0.05


def test_norms_are_told_by_their_type():
    model = CrossEarthForSemanticSegmentation(tiny_config(freeze_backbone=False))
    found = decays(model)
    for name, module in model.named_modules():
        for key, _ in module.named_parameters(recurse=False):
            if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm):
                assert found[f"{name}.{key}"] == 0, name
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                assert found[f"{name}.{key}"] == 0.05, name
    for key in ("embeddings.cls_token", "embeddings.position_embeddings", "layer.0.layer_scale1.lambda1"):
        assert found[f"model.backbone.{key}"] == 0


def test_schedule_is_polynomial_with_linear_warm_up():
    config = build_train_config(
        {"model": "tiny", "output_dir": "x", "train_data": "d", "learning_rate": 6e-5, "warmup_steps": 10_000}
        | {"schedule_steps": 40_000, "steps": 30_000}
    )
    assert training.learning_rate_at(0, config) == pytest.approx(6e-11)
    assert training.learning_rate_at(5_000, config) == pytest.approx(3e-5, rel=1e-5)
    assert training.learning_rate_at(10_000, config) == 6e-5
    assert training.learning_rate_at(25_000, config) == pytest.approx(6e-5 * 0.5**0.9)
    assert training.learning_rate_at(40_000, config) == 0
    assert training.learning_rate_at(30_000, config) == pytest.approx(6e-5 * math.exp(0.9 * math.log(1 / 3)))


# --- flags and files


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 3e-4\nsteps: 7\ntrain_data: some/folder\nrotate: true\nscale_range: [0.8, 2]\n")
    arguments = ["--config", str(path), "--model", "tiny", "--output_dir", "run", "--steps", "9", "--no-rotate"]
    config = parse_train_config(arguments)
    assert config == TrainConfig(
        model="tiny", output_dir="run", train_data=["some/folder"], learning_rate=3e-4, steps=9, scale_range=[0.8, 2.0]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], "'learning_rat' is no field of TrainConfig; did you mean 'learning_rate'"),
        (["--zzzzzz=1"], "'zzzzzz' is no field"),
        (["--steps", "3", "stray"], "'stray' belongs to no flag"),
        (["--steps", "many"], "steps is 'many'; it must be of type int"),
        (["--steps", "0"], "steps is 0; it must be positive"),
        (["--batch_size", "2.5"], "batch_size is '2.5'"),
        (["--mixed_precision", "fp8"], "must be one of no, bf16, fp16"),
        (["--label_set", "moon"], "'moon' is no label set"),
        (["--schedule_steps", "10", "--steps", "20"], "schedule_steps is 10"),
        (["--scale_range", "2", "0.5"], "scale_range"),
        (["--crop_size", "100"], "crop_size is 100; it must be a multiple of 16"),
        (["--train_weights", "1", "2"], "train_weights"),
        (["--config", "absent.yaml"], "absent.yaml cannot be read"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        parse_train_config([*REQUIRED, *arguments])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1", "did you mean 'learning_rate'"),
        ("rotate: 3", "rotate is 3; it must be of type bool"),
        ("steps: true", "steps is True"),
        ("train_data: [3]", "train_data is 3"),
        ("- steps", "is no list of 'name: value' lines"),
        ("steps: [", "cannot be read as YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        parse_train_config(["--config", str(tmp_path / "run.yaml"), *REQUIRED[: 4 if "train_data" in text else None]])


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match="train_data is missing"):
        parse_train_config(REQUIRED[:-2])


def test_a_misspelt_flag_ends_with_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *REQUIRED, "--stepz", "3"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err.strip() == "error: 'stepz' is no field of TrainConfig; did you mean 'steps'?"
    assert not list(tmp_path.iterdir())


# --- runs


@pytest.fixture(scope="module")
def finished(workplace):
    """A run of four steps with evaluation, not interrupted."""
    output = workplace / "finished"
    training.train(settings(workplace, output, eval_data=f"{workplace / 'data'}:5", eval_every=2, save_every=3))
    return output


def test_a_run_leaves_a_model_a_log_and_a_checkpoint(finished):
    assert [step for step, _, _ in losses(finished)] == [1, 2, 3, 4]
    first = log_lines(finished)[0]
    assert first["loss"] == pytest.approx(first["loss_class"] + first["loss_mask"] + first["loss_dice"], rel=1e-5)
    scores = [line["eval"] for line in log_lines(finished) if "eval" in line]
    assert [score["pixels"] for score in scores] == [6400, 6400]
    assert json.loads((finished / "checkpoint" / "run.json").read_text())["step"] == 4
    assert not list(finished.glob(".*"))
    for folder in (finished, finished / "best"):
        model = CrossEarthForSemanticSegmentation.from_pretrained(folder)
        assert model.config.id2label == get_label_set("land-cover").id2label
        assert CrossEarthImageProcessor.from_pretrained(folder).image_mean == CrossEarthImageProcessor().image_mean


def test_the_saved_model_is_that_of_the_last_step(finished):
    saved, last = load_file(finished / "model.safetensors"), load_file(finished / "checkpoint" / "model.safetensors")
    assert saved.keys() == last.keys()
    assert all(torch.equal(saved[key], last[key]) for key in saved)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_repeats_the_uninterrupted_one(workplace, finished, tmp_path, monkeypatch, stop):
    evaluation = {"eval_data": f"{workplace / 'data'}:5", "eval_every": 2}
    original = training.Trainer._forward_backward

    def interrupted(self, batch, forward_pass):
        if forward_pass == stop + 1 - stop // 3:  # one step beyond the checkpoint, where the steps allow
            raise KeyboardInterrupt
        return original(self, batch, forward_pass)

    monkeypatch.setattr(training.Trainer, "_forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings(workplace, tmp_path, save_every=stop, **evaluation))
    monkeypatch.setattr(training.Trainer, "_forward_backward", original)
    torch.manual_seed(12345)
    training.train(settings(workplace, tmp_path, save_every=stop, resume=True, **evaluation))
    assert losses(tmp_path) == losses(finished)
    ours, theirs = load_file(tmp_path / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_accumulated_gradients_resume_too(workplace, tmp_path):
    changes = {"gradient_accumulation_steps": 2, "batch_size": 1, "steps": 2, "schedule_steps": 2}
    training.train(settings(workplace, tmp_path / "whole", **changes))
    training.train(settings(workplace, tmp_path / "parts", **changes | {"steps": 1}))
    training.train(settings(workplace, tmp_path / "parts", resume=True, **changes))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_run_killed_between_two_checkpoints_resumes(workplace, finished, tmp_path):
    training.train(settings(workplace, tmp_path, steps=2, schedule_steps=4))
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.old")
    with pytest.raises(InputError, match="already holds a run"):
        training.train(settings(workplace, tmp_path))
    training.train(settings(workplace, tmp_path, resume=True))
    assert losses(tmp_path) == losses(finished)


def test_workers_change_nothing(workplace, finished, tmp_path):
    training.train(settings(workplace, tmp_path, num_workers=1))
    assert losses(tmp_path) == losses(finished)


def test_training_learns(workplace, tmp_path):
    training.train(settings(workplace, tmp_path, steps=60, log_every=10, learning_rate=1e-2, warmup_steps=3))
    values = [loss for _, loss, _ in losses(tmp_path)]
    assert values[-1] < 0.9 * values[0]


def test_a_frozen_backbone_stays_as_it_was(workplace, finished, tmp_path):
    training.train(settings(workplace, tmp_path, model=str(finished), freeze_backbone=True, steps=2))
    before, after = load_file(finished / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert not [key for key in changed if key.startswith("model.backbone.")]


def test_other_classes_get_a_new_classifier(workplace, finished):
    config = settings(workplace, "unused", model=str(finished), label_set="loveda")
    model = training.build_model(config, get_label_set("loveda"))
    assert model.class_predictor.out_features == 8
    assert model.config.num_labels == 7
    saved = load_file(finished / "model.safetensors")
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items() if "class_pred" not in key)


def test_half_precision_weights_load_in_full(workplace, tmp_path):
    training.train(settings(workplace, tmp_path, steps=1, warmup_steps=0, save_dtype="float16"))
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    full = load_file(tmp_path / "checkpoint" / "model.safetensors")
    half = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    assert all(torch.equal(half[key], value.half().float()) for key, value in full.items())


def test_a_loss_that_is_no_number_stops_the_run(workplace, tmp_path, monkeypatch):
    forward = CrossEarthForSemanticSegmentation.forward
    calls = []

    def diverging(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        calls.append(1)
        output.loss = output.loss * (math.nan if len(calls) == 3 else 1)
        return output

    monkeypatch.setattr(CrossEarthForSemanticSegmentation, "forward", diverging)
    with pytest.raises(FloatingPointError, match=r"loss of step 3 is nan; the last good state is .*checkpoint"):
        training.train(settings(workplace, tmp_path, save_every=2))
    kept = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def test_a_folder_with_a_run_is_not_overwritten(workplace, finished):
    before = (finished / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        training.train(settings(workplace, finished))
    with pytest.raises(InputError, match="seed is 4 but"):
        training.train(settings(workplace, finished, resume=True, seed=4))
    assert (finished / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("model", ["no/such-model", "large", "absent.json"])
def test_models_that_do_not_exist(workplace, tmp_path, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=model):
        training.build_model(settings(workplace, tmp_path, model=model), get_label_set("land-cover"))


@pytest.mark.slow
def test_two_processes_train_as_one(workplace, tmp_path):
    flags = ["--model", str(workplace / "tiny.json"), "--train_data", f"{workplace / 'data'}:[0-4]", "--steps", "3"]
    flags += ["--log_every", "1", "--eval_data", f"{workplace / 'data'}:[45]", "--learning_rate", "1e-3"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "scripts/train.py", *flags]
    done = subprocess.run(
        [*command, "--output_dir", str(tmp_path / "two"), "--batch_size", "1"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = log_lines(tmp_path / "two")
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[-1]["eval"]["pixels"] == 2 * 6400
    assert json.loads((tmp_path / "two" / "checkpoint" / "run.json").read_text())["processes"] == 2


def test_a_warm_start_trains_the_backbone_and_the_next_run_goes_on_from_it(workplace, tmp_path):
    warm = training.train(settings(workplace, tmp_path / "warm", objective="patches", steps=12))
    losses_of_patches = [line["loss_patch"] for line in log_lines(warm)]
    assert losses_of_patches[-1] < losses_of_patches[0]
    untrained = training.build_model(settings(workplace, tmp_path / "x"), get_label_set("land-cover")).state_dict()
    trained = load_file(warm / "model.safetensors")
    assert trained.keys() == untrained.keys()
    assert training.train(settings(workplace, tmp_path / "run", model=str(warm), steps=2)).is_dir()


@pytest.mark.parametrize("output", ["file/run", "file"])
def test_an_output_folder_that_cannot_be_made_is_refused_before_anything_is_loaded(workplace, tmp_path, output):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        training.train(settings(workplace, tmp_path / output, train_data="nowhere"))


def test_a_full_disk_is_one_sentence(workplace, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.Trainer, "_save_checkpoint", full)
    with pytest.raises(InputError, match=r"No space left on device.*--resume"):
        training.train(settings(workplace, tmp_path / "run"))


def test_a_log_line_that_a_kill_cut_short_does_not_stop_a_resume(workplace, tmp_path):
    folder = training.train(settings(workplace, tmp_path / "run", steps=2, schedule_steps=4))
    whole = losses(folder)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 3, "lo')
    training.train(settings(workplace, tmp_path / "run", steps=4, schedule_steps=4, resume=True))
    assert losses(folder)[:2] == whole
    assert [step for step, *_ in losses(folder)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "patches", "eval_data": ["x"]}, "eval_data is .*must be left out with objective 'patches'"),
        ({"save_every": 75, "log_every": 50}, r"save_every is 75; it must be a multiple of log_every \(50\)"),
        ({"objective": "pixels"}, "objective is 'pixels'; it must be one of masks, patches"),
    ],
)
def test_settings_that_contradict_each_other(changes, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(**({"model": "tiny", "output_dir": "run", "train_data": ["x"]} | changes))
