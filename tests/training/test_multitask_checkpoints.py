"""Checkpoints of Multi-Task Training: what the other classes take from them, and what they take from others."""

import json
import logging
import math
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config
from transformers import (
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
    dynamic_module_utils,
)

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthModel
from crossearth_hf.model.configuration_crossearth import AUTO_MAP
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining

IMAGE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(**overrides):
    torch.manual_seed(0)
    return CrossEarthForMultiTaskTraining(tiny_config(**overrides)).train()


@pytest.fixture
def told(caplog):
    """What transformers logs; in some versions its records do not get to the root logger."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_the_inference_classes_drop_multitask_silently_and_nothing_else(tmp_path, told):
    model = build().eval()
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("multitask.") for name in saved)
    told.clear()
    loaded, info = CrossEarthForSemanticSegmentation.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert "LOAD REPORT" not in told.text
    expected = model.segmentation_model()(IMAGE).logits
    torch.testing.assert_close(loaded.eval()(IMAGE).logits, expected, rtol=0, atol=0)
    auto = AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert type(auto) is CrossEarthForSemanticSegmentation
    _, info = CrossEarthModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not [key for key in info["unexpected_keys"] if "multitask" in key]

    save_file(
        saved | {"multi.task": torch.zeros(1)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    _, info = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert list(info["unexpected_keys"]) == ["multi.task"]


def test_a_reload_keeps_every_number_and_strange_training_modules_are_named(tmp_path):
    model = build()
    for parameter in model.multitask.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path)
    loaded = CrossEarthForMultiTaskTraining.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert not any(p.requires_grad for p in loaded.model.backbone.parameters())
    saved = load_file(tmp_path / "model.safetensors")
    save_file(
        saved | {"multitask.other": torch.zeros(1)},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    _, info = CrossEarthForMultiTaskTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert list(info["unexpected_keys"]) == ["multitask.other"]


def test_a_segmentation_checkpoint_gets_training_modules_that_are_initialized(
    model, tmp_path, told
):
    model.save_pretrained(tmp_path)
    loaded, info = CrossEarthForMultiTaskTraining.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert info["missing_keys"]
    assert all(key.startswith("multitask.") for key in info["missing_keys"])
    assert "LOAD REPORT" in told.text  # the model says what is new
    for network in (loaded, build()):
        multitask = network.multitask
        assert not multitask.mask_token.any()
        for injector in multitask.injectors:
            assert (injector.query_norm.weight == 1).all()
            assert not injector.linear.bias.any()
            assert injector.linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        for part in (multitask.extractor.layers[8], multitask.reconstruction.merge):
            fan_in = part.weight[0].numel()
            assert part.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.15)
            assert not part.bias.any()
        assert multitask.reconstruction.pixels.weight.std().item() == pytest.approx(0.02, rel=0.4)
    torch.testing.assert_close(loaded.model.adapter.tokens_a, model.model.adapter.tokens_a)


def test_the_inference_model_shares_its_parameters(tmp_path):
    model = build()
    shared = model.segmentation_model()
    assert type(shared) is CrossEarthForSemanticSegmentation
    ours = dict(model.named_parameters())
    assert all(ours[name] is parameter for name, parameter in shared.named_parameters())
    assert {name for name in ours if not name.startswith("multitask.")} == dict(
        shared.named_parameters()
    ).keys()
    assert shared.training
    shared.save_pretrained(tmp_path)
    assert not [
        name for name in load_file(tmp_path / "model.safetensors") if name.startswith("multitask.")
    ]


def test_a_saved_folder_carries_its_code(tmp_path, monkeypatch):
    model = build().eval()
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = AutoModelForPreTraining.from_pretrained(
        tmp_path / "model", trust_remote_code=True
    ).eval()
    assert type(loaded).__name__ == "CrossEarthForMultiTaskTraining"
    assert type(loaded).__module__.startswith("transformers_modules")
    visible = torch.rand(2, 64, 96) > 0.5
    assert loaded(IMAGE, visible=visible).loss_dict == model(IMAGE, visible=visible).loss_dict
    auto_map = json.loads((tmp_path / "model" / "config.json").read_text())["auto_map"]
    assert auto_map == AUTO_MAP | {
        "AutoModelForPreTraining": "modeling_multitask.CrossEarthForMultiTaskTraining"
    }
