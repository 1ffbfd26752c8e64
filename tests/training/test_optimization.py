"""The optimizer's groups and the schedule against the published rule."""

import math

import pytest
import torch
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining
from crossearth_hf.training import build_train_config
from crossearth_hf.training.optimization import learning_rate_at, param_groups


def decays(model):
    groups = param_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("rank", [4, None])
def test_published_groups(link, rank):
    model = CrossEarthForSemanticSegmentation(tiny_config(link_queries=link, rein_rank=rank))
    found = decays(model)
    assert set(found) == {
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    assert not [name for name in found if name.startswith("model.backbone.")]
    spared = {name for name, decay in found.items() if decay == 0}
    expected = {"model.adapter.scale", "transformer_module.level_embed.weight"}
    expected |= (
        {"model.adapter.tokens"}
        if rank is None
        else {"model.adapter.tokens_a", "model.adapter.tokens_b"}
    )
    if not link:
        expected |= {
            f"transformer_module.queries_{kind}.weight" for kind in ("embedder", "features")
        }
    assert expected <= spared
    assert all(
        "norm" in name or ".input_projections." in name or "_1." in name
        for name in spared - expected
    )
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
    for key in (
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "layer.0.layer_scale1.lambda1",
    ):
        assert found[f"model.backbone.{key}"] == 0


def test_the_learned_mask_image_does_not_decay():
    found = decays(CrossEarthForMultiTaskTraining(tiny_config()))
    assert found["multitask.mask_token"] == 0
    assert found["multitask.injectors.0.linear.weight"] == 0.05


def test_schedule_is_polynomial_with_linear_warm_up():
    config = build_train_config(
        {
            "model": "tiny",
            "output_dir": "x",
            "train_data": "d",
            "learning_rate": 6e-5,
            "warmup_steps": 10_000,
        }
        | {"schedule_steps": 40_000, "max_steps": 30_000}
    )
    assert learning_rate_at(0, config) == pytest.approx(6e-11)
    assert learning_rate_at(5_000, config) == pytest.approx(3e-5, rel=1e-5)
    assert learning_rate_at(10_000, config) == 6e-5
    assert learning_rate_at(25_000, config) == pytest.approx(6e-5 * 0.5**0.9)
    assert learning_rate_at(40_000, config) == 0
    assert learning_rate_at(30_000, config) == pytest.approx(6e-5 * math.exp(0.9 * math.log(1 / 3)))


def test_the_vits_own_weights_may_learn_more_slowly():
    model = CrossEarthForSemanticSegmentation(tiny_config(freeze_backbone=False))
    groups = param_groups(model, 0.05, backbone_lr_multiplier=0.1)
    slow = {id(p) for group in groups if group["lr_multiplier"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in model.model.backbone.parameters()}
    every = [id(p) for group in groups for p in group["params"]]
    assert len(every) == len(set(every)) == len(list(model.parameters()))
    decay = {group["weight_decay"] for group in groups if group["lr_multiplier"] == 0.1}
    assert decay == {0.0, 0.05}


def test_earlier_blocks_learn_more_slowly():
    """Two blocks and a stem: the last block keeps the backbone's rate, patches are two steps before it."""
    model = CrossEarthForSemanticSegmentation(
        tiny_config(freeze_backbone=False, convolutional_stem=True, stem_makes_patches=False)
    )
    blocks = model.config.backbone_config.num_hidden_layers
    groups = param_groups(model, 0.05, backbone_lr_multiplier=0.5, backbone_layer_decay=0.1)
    rates = {id(p): group["lr_multiplier"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = 1.0
        if name.startswith("model.backbone.stem."):
            expected = 0.5
        elif name.startswith("model.backbone.layer."):
            expected = 0.5 * 0.1 ** (blocks - 1 - int(name.split(".")[3]))
        elif name.startswith("model.backbone.embeddings."):
            expected = 0.5 * 0.1**blocks
        elif name.startswith("model.backbone."):
            expected = 0.5
        assert rates[id(parameter)] == pytest.approx(expected), name
