"""Defaults, presets, refusals and the round trip of the configuration."""

import pytest
from tiny_model import VIT, tiny_config

from crossearth_hf import CrossEarthConfig
from crossearth_hf.model.configuration_crossearth import PRESETS


def test_defaults_are_the_published_model():
    config = CrossEarthConfig()
    vit = config.backbone_config
    assert (vit.hidden_size, vit.num_hidden_layers, vit.num_attention_heads) == (1024, 24, 16)
    assert (vit.patch_size, config.image_size, config.window_stride) == (16, 512, 341)
    assert tuple(config.out_indices) == (7, 11, 15, 23)
    assert (config.rein_num_tokens, config.rein_rank, config.num_queries, config.hidden_dim) == (
        100,
        16,
        100,
        256,
    )
    assert (config.encoder_layers, config.decoder_layers, config.train_num_points) == (6, 10, 12544)
    assert config.num_labels == 6
    assert config.freeze_backbone


def test_presets():
    large = CrossEarthConfig.from_preset("large-1024")
    assert (large.image_size, large.window_stride) == (1024, 683)
    assert large.backbone_config.hidden_size == 1024
    assert CrossEarthConfig.from_preset("tiny", num_labels=5).num_labels == 5
    with pytest.raises(
        ValueError, match="'huge' is not a preset; the known ones are large-512, large-1024, tiny"
    ):
        CrossEarthConfig.from_preset("huge")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("num_labels", [2, 5])
def test_round_trip_keeps_every_field(preset, num_labels, tmp_path):
    config = CrossEarthConfig.from_preset(preset, num_labels=num_labels, rein_rank=None)
    config.save_pretrained(tmp_path)
    loaded = CrossEarthConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.num_labels == num_labels


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_queries": 5}, "num_queries 5 differs from rein_num_tokens 10"),
        ({"out_indices": (0, 1, 2, 4)}, "four of the backbone's blocks 0..3"),
        ({"out_indices": (0, 1, 2)}, "four of the backbone's blocks"),
        ({"group_norm_groups": 5}, "does not divide feature_size 32"),
        ({"feature_size": 64}, "feature_size 64 must equal hidden_dim 32"),
        ({"backbone_config": VIT | {"patch_size": 14}}, "patch_size 14 is not 16"),
        ({"backbone_config": VIT | {"image_size": 100}}, "image_size 100 is not a multiple of 16"),
        ({"backbone_config": {"model_type": "swin"}}, "backbone 'swin' is not supported"),
    ],
)
def test_contradictions_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)


def test_channels_beyond_rgb_are_kept_in_the_backbones_configuration(tmp_path):
    assert CrossEarthConfig.from_preset("large-512").num_channels == 3
    config = CrossEarthConfig.from_preset("tiny", num_channels=4)
    assert config.num_channels == config.backbone_config.num_channels == 4
    config.save_pretrained(tmp_path)
    assert CrossEarthConfig.from_pretrained(tmp_path).num_channels == 4
    assert CrossEarthConfig.from_pretrained(tmp_path, num_channels=5).num_channels == 5
    assert CrossEarthConfig.from_preset("tiny").num_channels == 3
    # as before there were others
    (tmp_path / "config.json").write_text('{"model_type": "crossearth"}')
    assert CrossEarthConfig.from_pretrained(tmp_path).num_channels == 3


@pytest.mark.parametrize("number", [2, 0, 4.0, True, "4", None])
def test_numbers_that_are_no_channels_are_refused(number):
    with pytest.raises(
        ValueError, match=rf"num_channels {number!r} must be a whole number, 3 or more; repeat gray"
    ):
        tiny_config(num_channels=number)
    with pytest.raises(ValueError, match="num_channels 1 must be a whole number"):
        tiny_config(backbone_config=VIT | {"num_channels": 1})


@pytest.mark.parametrize("number", [10**7, 10**9, 0, -1, True, 1.5, "24", [24]])
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "image_size"])
def test_absurd_sizes_of_the_backbone_are_refused_before_anything_is_made_of_them(name, number):
    with pytest.raises(ValueError, match=rf"{name} .* must be a whole number from 1 to \d+"):
        tiny_config(backbone_config=VIT | {name: number})


@pytest.mark.parametrize("number", [10**9, 0, -1, True, 1.5, "24"])
@pytest.mark.parametrize(
    "name", ["num_queries", "encoder_layers", "hidden_dim", "num_labels", "group_norm_groups"]
)
def test_absurd_sizes_of_the_head_are_refused(name, number):
    with pytest.raises(Exception, match=rf"{name}"):
        tiny_config(**{name: number})
