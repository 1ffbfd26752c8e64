"""Pretrained ViTs below CrossEarth: tokens against transformers' own models, sizes, blocks, a stem beside them."""

import pytest
import torch
from tiny_model import tiny_config
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
)

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation
from crossearth_hf.conversion.published import resample_vit
from crossearth_hf.model.modeling_backbone import resampled_kernel, resampled_positions

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "layerscale_value": 0.5,
}
FAMILIES = {
    "dinov2": (Dinov2Config, Dinov2Model),
    "dinov2_with_registers": (Dinov2WithRegistersConfig, Dinov2WithRegistersModel),
}


def saved_vit(folder, family="dinov2", **sizes):
    """A random ViT in its folder, and itself."""
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    vit = model_class(config_class(**(SIZES | {"image_size": 64, "patch_size": 16} | sizes))).eval()
    with torch.no_grad():
        vit.embeddings.position_embeddings.normal_(std=0.1)
    vit.save_pretrained(folder)
    return vit


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_blocks", [None, 4])
def test_tokens_are_those_of_transformers(family, num_blocks, tmp_path):
    vit = saved_vit(tmp_path, family)
    config = tiny_config(rein_refines_features=False)
    model = CrossEarthForSemanticSegmentation.from_backbone(tmp_path, config, num_blocks).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = vit(images, output_hidden_states=True).hidden_states
        found = model.model(images, output_hidden_states=True).hidden_states
    assert len(found) == 1 + (num_blocks or 6)
    for ours, theirs in zip(found, expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_patches_of_14_pixels_become_16_as_in_conversion(tmp_path):
    vit = saved_vit(tmp_path, image_size=70, patch_size=14)
    model = CrossEarthForSemanticSegmentation.from_backbone(tmp_path, tiny_config())
    kernel = vit.embeddings.patch_embeddings.projection.weight.detach()
    table = vit.embeddings.position_embeddings.detach()
    published = {"backbone.patch_embed.proj.weight": kernel, "backbone.pos_embed": table}
    expected, notes = resample_vit(published, 64)
    assert notes == "patch kernel 14 -> 16 and positions 5 x 5 -> 4 x 4"
    embeddings = model.model.backbone.embeddings
    assert embeddings.patch_embeddings.projection.weight.equal(
        expected["backbone.patch_embed.proj.weight"]
    )
    assert embeddings.position_embeddings.equal(expected["backbone.pos_embed"])
    assert model.config.backbone_config.patch_size == 16


def test_resampling_keeps_constants_and_equal_sizes():
    table, kernel = torch.randn(1, 17, 8), torch.full((8, 3, 14, 14), 0.5)
    assert resampled_positions(table, 4) is table
    assert resampled_positions(table, 6)[:, :1].equal(table[:, :1])
    torch.testing.assert_close(resampled_kernel(kernel, 16), torch.full((8, 3, 16, 16), 0.5))


@pytest.mark.parametrize(
    ("preset", "depth", "num_blocks", "indices"),
    [
        ("large-512", 12, None, (3, 5, 7, 11)),
        ("large-512", 24, None, (7, 11, 15, 23)),
        ("large-512", 40, None, (12, 19, 25, 39)),
        ("large-512", 12, 4, (0, 1, 2, 3)),
        ("small", 12, 9, (3, 5, 7, 8)),
    ],
)
def test_the_pyramid_follows_the_depth(preset, depth, num_blocks, indices):
    vit = Dinov2Config(hidden_size=64, num_hidden_layers=depth, num_attention_heads=4)
    config = CrossEarthConfig.from_preset(preset).for_backbone(vit, num_blocks)
    assert tuple(config.out_indices) == indices
    assert config.backbone_config.num_hidden_layers == (num_blocks or depth)


@pytest.mark.parametrize("num_blocks", [3, 13])
def test_other_families_and_depths_are_refused(num_blocks):
    with pytest.raises(ValueError, match="backbone 'vit' is not supported"):
        CrossEarthConfig().for_backbone(ViTConfig())
    with pytest.raises(ValueError, match=f"{num_blocks} blocks are not 4 to 12"):
        CrossEarthConfig().for_backbone(Dinov2Config(num_hidden_layers=12), num_blocks)


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_a_stem_beside_the_vit_adds_detail_and_leaves_the_tokens(size):
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(
        tiny_config(convolutional_stem=True, stem_makes_patches=False)
    ).eval()
    plain = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        both, alone = model.model(images), plain.model(images)
        maps = model.model.backbone.stem(images)
        details = [
            lateral(level) for lateral, level in zip(model.model.laterals, maps, strict=True)
        ]
    torch.testing.assert_close(both.last_hidden_state, alone.last_hidden_state)
    for level, vit, detail in zip(both.feature_maps, alone.feature_maps, details, strict=True):
        torch.testing.assert_close(level, vit + detail)


def test_freezing_the_vit_leaves_the_stem_beside_it():
    model = CrossEarthForSemanticSegmentation(
        tiny_config(convolutional_stem=True, stem_makes_patches=False, freeze_backbone=True)
    ).train()
    model(
        torch.randn(2, 3, 64, 64), labels=torch.zeros(2, 64, 64, dtype=torch.long)
    ).loss.backward()
    backbone = model.model.backbone
    assert all(parameter.grad is not None for parameter in backbone.stem.parameters())
    for part in (backbone.embeddings, backbone.layer):
        assert all(parameter.grad is None for parameter in part.parameters())
