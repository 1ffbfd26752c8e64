"""What a run can be beside the published recipe: objectives, adaptations, styles, precision, steps without labels."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from training_runs import (
    load_sources_unkept,
    log_lines,
    losses,
    make_workplace,
    settings,
    write_unseen_labels,
)

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.errors import InputError
from crossearth_hf.training import trainer as training


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("variants"))


@pytest.fixture(scope="module")
def finished(workplace):
    """A run of four steps of the published objective."""
    return training.train(settings(workplace, workplace / "finished"))


# --- steps without labels, accumulation, precision


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory):
    """A workplace whose images 0 to 2 have no labeled pixel with data, and 3 to 5 one class each."""
    root = make_workplace(tmp_path_factory.mktemp("unlabeled"), ignore_unlabelled_pixels=True)
    for index in range(6):
        if index < 3:
            write_unseen_labels(root / "data", index)
        else:
            Image.fromarray(np.full((80, 80), index - 3, np.uint8)).save(
                root / "data" / "masks" / f"{index}.png"
            )
    return root


def test_the_count_of_skipped_steps_goes_on_after_a_resume(unlabeled, tmp_path):
    mixed = {
        "train_data": [f"{unlabeled / 'data'}:[0-2]", f"{unlabeled / 'data'}:4"],
        "train_weights": [1, 1],
    }
    mixed |= {"per_device_train_batch_size": 1, "schedule_steps": 8, "seed": 1}
    training.train(settings(unlabeled, tmp_path / "some", max_steps=4, **mixed))
    training.train(
        settings(unlabeled, tmp_path / "some", max_steps=8, resume_from_checkpoint=True, **mixed)
    )
    lines = log_lines(tmp_path / "some")
    counts = [line["skipped"] for line in lines]
    assert 0 < counts[3] < counts[7] < 8
    assert [step for step, *_ in losses(tmp_path / "some")] == [
        line["step"]
        for line, before in zip(lines, [0, *counts], strict=False)
        if line["skipped"] == before
    ]
    assert (
        json.loads((tmp_path / "some" / "checkpoint" / "run.json").read_text())["skipped"]
        == counts[-1]
    )


def test_the_faithful_mode_learns_no_object_from_images_without_labels(
    unlabeled, tmp_path, monkeypatch
):
    monkeypatch.setattr("crossearth_hf.training.run_data.load_sources", load_sources_unkept)
    changes = {
        "ignore_unlabelled_pixels": False,
        "train_data": f"{unlabeled / 'data'}:[0-2]",
        "max_steps": 2,
    }
    training.train(settings(unlabeled, tmp_path / "run", **changes))
    for line in log_lines(tmp_path / "run"):
        assert line["loss_mask"] == line["loss_dice"] == line["skipped"] == 0
        assert line["loss_class"] > 0


def test_accumulated_passes_of_equal_counts_are_one_larger_batch(unlabeled, tmp_path):
    one_class = {"train_data": f"{unlabeled / 'data'}:[3-5]", "max_steps": 3, "warmup_steps": 0}
    training.train(
        settings(unlabeled, tmp_path / "large", per_device_train_batch_size=4, **one_class)
    )
    training.train(
        settings(
            unlabeled,
            tmp_path / "parts",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=4,
            **one_class,
        )
    )
    large, parts = losses(tmp_path / "large"), losses(tmp_path / "parts")
    assert len(large) == len(parts) == 3
    for (_, ours, _), (_, theirs, _) in zip(parts, large, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_the_next_run_of_a_process_may_have_another_precision(workplace, tmp_path):
    changes = {"max_steps": 1, "warmup_steps": 0}
    for run, precision in enumerate(("bf16", "no", "bf16")):
        training.train(
            settings(workplace, tmp_path / str(run), mixed_precision=precision, **changes)
        )
    first, second, third = (losses(tmp_path / str(run)) for run in range(3))
    assert first == third != second
    with pytest.raises(InputError):
        training.train(settings(workplace, tmp_path / "x", train_data="nowhere"))
    training.train(settings(workplace, tmp_path / "x", mixed_precision="bf16", **changes))


def test_a_run_leaves_other_accelerators_of_the_process_as_they_were(workplace, tmp_path):
    other = Accelerator(mixed_precision="no")
    try:
        changes = {"max_steps": 1, "warmup_steps": 0, "mixed_precision": "bf16"}
        training.train(settings(workplace, tmp_path / "run", **changes))
        assert other.mixed_precision == Accelerator().mixed_precision == "no"
    finally:
        AcceleratorState._reset_state()


def test_frozen_layers_in_bfloat16_make_the_same_steps(workplace, tmp_path):
    changes = {
        "mixed_precision": "bf16",
        "adaptation": "rein",
        "eval_data": f"{workplace / 'data'}:5",
    }
    for dtype in ("float32", "bfloat16"):
        training.train(settings(workplace, tmp_path / dtype, frozen_dtype=dtype, **changes))
    assert losses(tmp_path / "float32") == losses(tmp_path / "bfloat16")
    exact, rounded = (
        load_file(tmp_path / dtype / "model.safetensors") for dtype in ("float32", "bfloat16")
    )
    for name, weight in exact.items():
        assert rounded[name].dtype == torch.float32
        if name.endswith(("mlp.fc1.weight", "q_proj.weight")) and "backbone" in name:
            assert torch.equal(rounded[name], weight.bfloat16().float()), name
        elif "backbone" not in name:
            assert torch.equal(rounded[name], weight), name


# --- objectives, adaptations, styles


def test_lora_leaves_a_plain_model_and_an_adapter_and_resumes(
    workplace, finished, tmp_path, capsys
):
    changes = {
        "model": str(finished),
        "adaptation": "rein+lora",
        "lora_rank": 2,
        "learning_rate": 1e-2,
    }
    changes |= {"eval_data": f"{workplace / 'data'}:5", "max_steps": 2, "schedule_steps": 2}
    training.train(settings(workplace, tmp_path / "run", **changes | {"max_steps": 1}))
    assert "adaptation 'rein+lora' trains" in capsys.readouterr().out
    training.train(settings(workplace, tmp_path / "run", resume_from_checkpoint=True, **changes))
    training.train(settings(workplace, tmp_path / "whole", **changes))
    before = load_file(finished / "model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key for key in changed if "backbone" in key} == {
        f"model.backbone.layer.{i}.attention.{part}.weight"
        for i in range(4)
        for part in ("q_proj", "v_proj")
    }
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(after[key], whole[key]) for key in whole)
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        assert (folder / "adapter" / "adapter_config.json").is_file()
        assert (
            CrossEarthForSemanticSegmentation.from_pretrained(folder)(torch.zeros(1, 3, 64, 64))
            .logits.isfinite()
            .all()
        )


def test_lora_needs_trained_weights(workplace, tmp_path):
    with pytest.raises(
        InputError, match=r"adaptation 'lora' adapts trained weights and '.*tiny.json' has none"
    ):
        training.train(settings(workplace, tmp_path, adaptation="lora"))


def test_reconstruction_needs_no_labels_and_warms_up_a_multitask_run(workplace, tmp_path):
    (tmp_path / "bare").mkdir()
    for index in range(3):
        image = Image.open(workplace / "data" / "images" / f"{index}.png")
        image.save(tmp_path / "bare" / f"{index}.png")
    changes = {
        "objective": "reconstruct",
        "train_data": str(tmp_path / "bare"),
        "max_steps": 30,
        "logging_steps": 10,
    }
    warm = training.train(
        settings(workplace, tmp_path / "warm", learning_rate=3e-3, **changes, save_steps=30)
    )
    values = [line["loss_reconstruct_masked"] for line in log_lines(warm)]
    assert values[-1] < 0.9 * values[0]
    assert "loss_class" not in log_lines(warm)[0]
    changes = {
        "model": str(warm),
        "objective": "multitask",
        "style_probability": 0.5,
        "style_block_size": 16,
    }
    changes |= {
        "eval_data": f"{workplace / 'data'}:5",
        "max_steps": 2,
        "mim_mask_ratio": 0.3,
        "mim_weight": 0.5,
    }
    run = training.train(settings(workplace, tmp_path / "run", **changes))
    parts = {
        "loss_class",
        "loss_mask",
        "loss_dice",
        "loss_reconstruct_masked",
        "loss_reconstruct_styled",
    }
    first = log_lines(run)[0]
    assert parts < first.keys()
    assert first["loss"] == pytest.approx(
        sum(v for k, v in first.items() if k.startswith("loss_")), rel=1e-5
    )
    saved = load_file(run / "model.safetensors")
    assert any(key.startswith("multitask.") for key in saved)
    loaded, info = CrossEarthForSemanticSegmentation.from_pretrained(run, output_loading_info=True)
    assert (
        loaded.config.mim_mask_ratio,
        loaded.config.mim_weight,
        loaded.config.mim_block_size,
    ) == (0.3, 0.5, 16)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert log_lines(run)[-1]["eval"]["pixels"] == 6400


def test_styles_change_the_loss_and_a_resume_repeats_them(workplace, finished, tmp_path):
    changes = {"style_probability": 0.7, "style_block_size": 16, "style_alpha": 1.0}
    training.train(settings(workplace, tmp_path / "whole", **changes))
    training.train(
        settings(workplace, tmp_path / "parts", max_steps=2, schedule_steps=4, **changes)
    )
    training.train(settings(workplace, tmp_path / "parts", resume_from_checkpoint=True, **changes))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert losses(tmp_path / "whole") != losses(finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"style_block_size": 65},
            "style_block_size is 65; it must not exceed the crop's 64 pixels",
        ),
        ({"style_bank": "nowhere.safetensors"}, "style_bank: nowhere.safetensors does not exist"),
        (
            {"style_networks": "nowhere.safetensors"},
            "style_networks, style_bank: nowhere.safetensors does not exist",
        ),
        (
            {"objective": "multitask", "mim_block_size": 80},
            "mim_block_size is 80; it must not exceed the crop's 64",
        ),
    ],
)
def test_styles_that_do_not_fit(workplace, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        training.train(settings(workplace, tmp_path, style_probability=0.5, **changes))


def test_a_scorer_takes_the_place_of_the_validation_images(workplace, tmp_path):
    seen = []

    def scorer(model, processor):
        assert type(model) is CrossEarthForSemanticSegmentation
        with torch.no_grad():
            seen.append(model(torch.zeros(1, 3, 64, 64)).logits.dtype)
        return {"elsewhere": {"mean_iou": 0.25}}

    changes = {"objective": "multitask", "mixed_precision": "bf16", "eval_steps": 2}
    training.train(settings(workplace, tmp_path, **changes), scorer=scorer)
    scored = [(line["step"], line["eval"]) for line in log_lines(tmp_path) if "eval" in line]
    assert scored == [
        (2, {"elsewhere": {"mean_iou": 0.25}}),
        (4, {"elsewhere": {"mean_iou": 0.25}}),
    ]
    assert seen == [torch.float32] * 2
    assert not (tmp_path / "best").exists()


# --- trackers


def test_tensorboard_shows_every_step_once_after_a_resume(workplace, finished, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator
    changes = {"report_to": "tensorboard", "eval_data": f"{workplace / 'data'}:5", "eval_steps": 2}
    original = training.Trainer._train_step

    def interrupted(self, batches):
        if self.step == 3:
            raise KeyboardInterrupt
        return original(self, batches)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Trainer, "_train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            training.train(settings(workplace, tmp_path, save_steps=2, **changes))
    training.train(
        settings(workplace, tmp_path, save_steps=2, resume_from_checkpoint=True, **changes)
    )
    events = accumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "train/skipped", "eval/mean_iou"} <= set(
        events.Tags()["scalars"]
    )
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(step, pytest.approx(loss)) for step, loss, _ in losses(finished)]


def test_a_tracker_that_is_not_installed(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr("crossearth_hf.training.processes.is_tensorboard_available", lambda: False)
    with pytest.raises(InputError, match="needs the package tensorboard; install it"):
        training.train(settings(workplace, tmp_path, report_to="tensorboard"))
