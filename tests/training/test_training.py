"""Runs on a tiny model: what they leave behind, exact resume, and what stops them."""

import json
import math
import os
import random
import signal
import statistics
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_model import tiny_config
from training_runs import log_lines, losses, make_workplace, settings

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.labels import get_label_set
from crossearth_hf.training import trainer as training
from crossearth_hf.training.recipe import build_train_config, read_yaml
from crossearth_hf.training.run_folder import RunFolder
from crossearth_hf.training.starting_model import build_model


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def finished(workplace):
    """A run of four steps with evaluation, not interrupted."""
    output = workplace / "finished"
    training.train(
        settings(workplace, output, eval_data=f"{workplace / 'data'}:5", eval_steps=2, save_steps=3)
    )
    return output


def test_all_that_a_run_leaves_is_refused_where_no_run_is(finished, tmp_path):
    """The names that `RunFolder` protects are those that runs write."""
    left = [
        path
        for folder in (finished, finished / "best")
        for path in folder.iterdir()
        if path.is_file()
    ]
    for number, path in enumerate(
        path for path in left if path.name not in ("log.jsonl", "config.json", ".lock")
    ):
        place = tmp_path / str(number) / path.relative_to(finished)
        place.parent.mkdir(parents=True)
        place.write_text("mine")
        with pytest.raises(InputError, match="would be replaced by that of the run"):
            RunFolder(tmp_path / str(number)).prepare(resume=False)


@pytest.mark.parametrize("place", ["", "masks", "new/run"])
@pytest.mark.parametrize("used", ["train_data", "eval_data"])
def test_data_are_only_read(tmp_path, used, place):
    make_workplace(tmp_path)
    data = {"train_data": "synth:temperate-summer:1"} | {used: f"{tmp_path / 'data'}:[0-4]"}
    with pytest.raises(InputError, match="which is an input; choose a folder outside of it"):
        training.train(settings(tmp_path, tmp_path / "data" / place, **data))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"images", "masks"}


def test_a_run_leaves_a_model_a_log_and_a_checkpoint(finished):
    assert [step for step, _, _ in losses(finished)] == [1, 2, 3, 4]
    first = log_lines(finished)[0]
    assert first["loss"] == pytest.approx(
        first["loss_class"] + first["loss_mask"] + first["loss_dice"], rel=1e-5
    )
    scores = [line["eval"] for line in log_lines(finished) if "eval" in line]
    assert [score["pixels"] for score in scores] == [6400, 6400]
    assert json.loads((finished / "checkpoint" / "run.json").read_text())["step"] == 4
    assert not list(finished.glob(".*"))
    for folder in (finished, finished / "best"):
        model = CrossEarthForSemanticSegmentation.from_pretrained(folder)
        assert model.config.id2label == get_label_set("land-cover").id2label
        assert (
            CrossEarthImageProcessor.from_pretrained(folder).image_mean
            == CrossEarthImageProcessor().image_mean
        )


def test_the_saved_model_is_that_of_the_last_step(finished):
    saved, last = (
        load_file(finished / "model.safetensors"),
        load_file(finished / "checkpoint" / "model.safetensors"),
    )
    assert saved.keys() == last.keys()
    assert all(torch.equal(saved[key], last[key]) for key in saved)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_repeats_the_uninterrupted_one(
    workplace, finished, tmp_path, monkeypatch, stop
):
    evaluation = {"eval_data": f"{workplace / 'data'}:5", "eval_steps": 2}
    original = training.Trainer._forward_backward

    def interrupted(self, batch, forward_pass):
        # one step beyond the checkpoint, where the steps allow
        if forward_pass == stop + 1 - stop // 3:
            raise KeyboardInterrupt
        return original(self, batch, forward_pass)

    monkeypatch.setattr(training.Trainer, "_forward_backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings(workplace, tmp_path, save_steps=stop, **evaluation))
    monkeypatch.setattr(training.Trainer, "_forward_backward", original)
    torch.manual_seed(12345)
    training.train(
        settings(workplace, tmp_path, save_steps=stop, resume_from_checkpoint=True, **evaluation)
    )
    assert losses(tmp_path) == losses(finished)
    ours, theirs = (
        load_file(tmp_path / "model.safetensors"),
        load_file(finished / "model.safetensors"),
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_accumulated_gradients_resume_too(workplace, tmp_path):
    changes = {
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 1,
        "max_steps": 2,
        "schedule_steps": 2,
    }
    training.train(settings(workplace, tmp_path / "whole", **changes))
    training.train(settings(workplace, tmp_path / "parts", **changes | {"max_steps": 1}))
    training.train(settings(workplace, tmp_path / "parts", resume_from_checkpoint=True, **changes))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_run_killed_between_two_checkpoints_resumes(workplace, finished, tmp_path):
    training.train(settings(workplace, tmp_path, max_steps=2, schedule_steps=4))
    (tmp_path / "checkpoint").rename(tmp_path / ".checkpoint.old")
    with pytest.raises(InputError, match="already holds a run"):
        training.train(settings(workplace, tmp_path))
    training.train(settings(workplace, tmp_path, resume_from_checkpoint=True))
    assert losses(tmp_path) == losses(finished)


def test_workers_change_nothing(workplace, finished, tmp_path):
    training.train(settings(workplace, tmp_path, dataloader_num_workers=1))
    assert losses(tmp_path) == losses(finished)


def test_training_learns(workplace, tmp_path):
    training.train(
        settings(
            workplace, tmp_path, max_steps=60, logging_steps=10, learning_rate=1e-2, warmup_steps=3
        )
    )
    values = [loss for _, loss, _ in losses(tmp_path)]
    assert values[-1] < 0.9 * values[0]


def test_a_frozen_backbone_stays_as_it_was(workplace, finished, tmp_path):
    training.train(
        settings(workplace, tmp_path, model=str(finished), adaptation="rein", max_steps=2)
    )
    before, after = (
        load_file(finished / "model.safetensors"),
        load_file(tmp_path / "model.safetensors"),
    )
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert not [key for key in changed if key.startswith("model.backbone.")]


def test_other_classes_get_a_new_classifier(workplace, finished):
    config = settings(workplace, "unused", model=str(finished), classes="loveda")
    model = build_model(config, get_label_set("loveda"))
    assert model.class_predictor.out_features == 8
    assert model.config.num_labels == 7
    saved = load_file(finished / "model.safetensors")
    assert all(
        torch.equal(value, saved[key])
        for key, value in model.state_dict().items()
        if "class_pred" not in key
    )


def test_half_precision_weights_load_in_full(workplace, tmp_path):
    training.train(settings(workplace, tmp_path, max_steps=1, warmup_steps=0, save_dtype="float16"))
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {
        torch.float16
    }
    full = load_file(tmp_path / "checkpoint" / "model.safetensors")
    half = CrossEarthForSemanticSegmentation.from_pretrained(
        tmp_path, dtype=torch.float32
    ).state_dict()
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
    with pytest.raises(
        FloatingPointError, match=r"loss of step 3 is nan; the last good state is .*checkpoint"
    ):
        training.train(settings(workplace, tmp_path, save_steps=2))
    kept = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in kept.values())


def test_a_folder_with_a_run_is_not_overwritten(workplace, finished):
    before = (finished / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        training.train(settings(workplace, finished))
    with pytest.raises(InputError, match="seed is 4 but"):
        training.train(settings(workplace, finished, resume_from_checkpoint=True, seed=4))
    assert (finished / "log.jsonl").read_bytes() == before


@pytest.mark.parametrize("model", ["no/such-model", "large", "absent.json"])
def test_models_that_do_not_exist(workplace, tmp_path, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=model):
        build_model(settings(workplace, tmp_path, model=model), get_label_set("land-cover"))


def test_the_recipe_lies_beside_the_model(workplace, tmp_path):
    config = settings(workplace, tmp_path / "run", max_steps=2, style_block_size=16)
    recipe = read_yaml(training.train(config) / "train.yaml")
    assert recipe["style_block_size"] == 16
    assert "output_dir" not in recipe
    assert build_train_config(recipe | {"output_dir": config.output_dir}) == config


@pytest.mark.parametrize("output", ["file/run", "file"])
def test_an_output_folder_that_cannot_be_made_is_refused_before_anything_is_loaded(
    workplace, tmp_path, output
):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        training.train(settings(workplace, tmp_path / output, train_data="nowhere"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
    ids=["system", "safetensors"],
)
def test_a_full_disk_is_one_sentence(workplace, tmp_path, monkeypatch, error):
    def full(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(training.Trainer, "_save_checkpoint", full)
    with pytest.raises(InputError, match=r"No space left on device.*--resume_from_checkpoint"):
        training.train(settings(workplace, tmp_path / "run"))


def test_a_log_line_that_a_kill_cut_short_does_not_stop_a_resume(workplace, tmp_path):
    folder = training.train(settings(workplace, tmp_path / "run", max_steps=2, schedule_steps=4))
    whole = losses(folder)
    with open(folder / "log.jsonl", "a") as log:
        log.write('{"step": 3, "lo')
    training.train(
        settings(
            workplace, tmp_path / "run", max_steps=4, schedule_steps=4, resume_from_checkpoint=True
        )
    )
    assert losses(folder)[:2] == whole
    assert [step for step, *_ in losses(folder)] == [1, 2, 3, 4]


# --- a kill at any moment


def killed_after(lines, seconds, config):
    """Trains in a process of its own, killed `seconds` after so many lines of its log; whether that ended it."""
    child = os.fork()
    if child == 0:
        try:
            training.train(config)
        finally:
            os._exit(0)
    log, status = Path(config.output_dir, "log.jsonl"), None
    while status is None and (log.read_bytes().count(b"\n") if log.exists() else 0) < lines:
        ended, code = os.waitpid(child, os.WNOHANG)
        status = code if ended else None
        time.sleep(0.005)
    if status is None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_run_killed_at_random_moments_ends_as_the_uninterrupted_one(workplace, tmp_path):
    changes = {
        "max_steps": 8,
        "save_steps": 1,
        "eval_data": f"{workplace / 'data'}:5",
        "eval_steps": 3,
    }
    training.train(settings(workplace, tmp_path / "whole", **changes))
    config = settings(workplace, tmp_path / "killed", resume_from_checkpoint=True, **changes)
    moments = random.Random(5)
    kills = sum(killed_after(lines, moments.uniform(0, 0.1), config) for lines in (0, 1, 3, 6))
    assert kills >= 3
    training.train(config)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for part in (".", "best", "checkpoint"):
        ours, theirs = (
            load_file(tmp_path / run / part / "model.safetensors") for run in ("killed", "whole")
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), part
    assert {path.name for path in (tmp_path / "killed").iterdir()} == {
        p.name for p in (tmp_path / "whole").iterdir()
    }


# --- weights of another kind


def test_a_checkpoint_of_another_architecture_names_its_first_keys(workplace, tmp_path):
    CrossEarthForSemanticSegmentation(tiny_config(num_labels=5)).save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"mask_feature_size": 16}))
    with pytest.raises(
        InputError, match=r"weights of .*model' do not fit its config at \['pixel_decoder"
    ):
        training.train(settings(workplace, tmp_path / "run", model=str(tmp_path / "model")))


def test_a_checkpoint_that_its_model_does_not_fit_any_more(workplace, tmp_path):
    sizes = json.loads((workplace / "tiny.json").read_text())
    (tmp_path / "tiny.json").write_text(json.dumps(sizes))
    changes = {"model": str(tmp_path / "tiny.json"), "max_steps": 1, "schedule_steps": 2}
    training.train(settings(workplace, tmp_path / "run", **changes))
    (tmp_path / "tiny.json").write_text(json.dumps(sizes | {"rein_rank": 2}))
    with pytest.raises(
        InputError,
        match=r"checkpoint does not fit the model .*tokens_a.*start in another output_dir",
    ):
        training.train(
            settings(
                workplace,
                tmp_path / "run",
                resume_from_checkpoint=True,
                **changes | {"max_steps": 2},
            )
        )


def test_the_log_shows_the_share_of_time_spent_waiting_for_crops(workplace, tmp_path, monkeypatch):
    plain = training.TrainingCrops.__getitem__

    def slow(crops, index):
        time.sleep(0.5)
        return plain(crops, index)

    training.train(settings(workplace, tmp_path / "plain"))
    monkeypatch.setattr(training.TrainingCrops, "__getitem__", slow)
    training.train(settings(workplace, tmp_path / "slow"))
    fast, waiting = (
        statistics.median(line["waiting"] for line in log_lines(tmp_path / run) if "loss" in line)
        for run in ("plain", "slow")
    )
    assert 0 <= fast < waiting < 1
