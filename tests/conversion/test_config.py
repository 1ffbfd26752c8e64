"""The architecture, read from shapes, and what shapes cannot show."""

import json

import pytest
import torch
import yaml
from published import (
    ORACLE_CONFIG,
    UNUSED,
    convert_tensors,
    random_tensors,
    refusal,
    tiny_tensors,
    write_config,
)
from tiny_model import VIT, tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.conversion import from_published
from crossearth_hf.conversion.config import infer_config, read_overrides
from crossearth_hf.errors import InputError

PUBLISHED = tiny_tensors()


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"rein_rank": None}, {"backbone.reins.learnable_tokens": (4, 10, 64)}),
        (
            {"link_queries": False, "num_queries": 7},
            {"decode_head.query_embed.weight": (7, 32), "decode_head.query_feat.weight": (7, 32)},
        ),
        (
            {"num_labels": 2, "rein_num_tokens": 5, "num_queries": 5},
            {"decode_head.cls_embed.bias": (3,)},
        ),
        (
            {"backbone_config": VIT | {"use_swiglu_ffn": True}},
            {"backbone.blocks.3.mlp.w12.bias": (352,)},
        ),
    ],
)
def test_other_architectures_are_read_from_shapes(fields, names, tmp_path):
    config = tiny_config(**fields)
    tensors = random_tensors(config)
    assert {name: tuple(tensors[name].shape) for name in names} == names
    report, model = convert_tensors(tmp_path, tensors)
    assert set(report.unused) == UNUSED
    original = CrossEarthForSemanticSegmentation(config).eval()
    original.load_state_dict(from_published(tensors, config))
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, original(pixels).logits)


def test_tokens_without_factors_reject_foreign_links():
    # Rein's "link position, learn content" has no counterpart: linked adapters, but a content of its own.
    tensors = {name: tensor for name, tensor in PUBLISHED.items() if "querys2feat" not in name}
    tensors["decode_head.query_feat.weight"] = torch.zeros(10, 32)
    with pytest.raises(InputError, match=r"decode_head\.query_embed\.weight"):
        infer_config(
            {name: tensor.shape for name, tensor in tensors.items()}, yaml.safe_load(ORACLE_CONFIG)
        )


@pytest.mark.parametrize(
    ("dropped", "sentence"),
    [
        (
            "num_attention_heads",
            "num_attention_heads cannot be read from shapes for a ViT of width 64",
        ),
        ("out_indices", "out_indices cannot be read from shapes for 4 blocks"),
        (
            "group_norm_groups",
            "group_norm_groups cannot be read from shapes for a head of width 32",
        ),
    ],
)
def test_what_shapes_cannot_show_is_asked_for(tmp_path, dropped, sentence):
    lines = [line for line in ORACLE_CONFIG.splitlines() if not line.startswith(dropped)]
    message = refusal(convert_tensors, tmp_path, PUBLISHED, "\n".join(lines))
    assert sentence in message
    assert "--config" in message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("num_heads: 4", "unknown field num_heads; the known ones are num_attention_heads, "),
        ("num_attention_heads: four", "num_attention_heads cannot be 'four'"),
        ("num_attention_heads: true", "num_attention_heads cannot be True"),
        ("num_attention_heads: 5", "num_attention_heads 5 does not divide the ViT's width 64"),
        ("out_indices: [0, 1, 2]", "out_indices cannot be [0, 1, 2]"),
        ("out_indices: [0, 1, 2, 9]", "must name four of the backbone's blocks 0..3"),
        ("group_norm_groups: 5", "group_norm_groups 5 does not divide"),
        (
            "image_size: 128",
            "image_size 128 contradicts 'backbone.pos_embed', whose 4 x 4 positions",
        ),
        ("ground_sampling_distance: -1", "ground_sampling_distance cannot be -1"),
        ("training_only: decode_head", "training_only cannot be 'decode_head'"),
        ("a: [", "cannot be read as YAML or JSON"),
    ],
)
def test_bad_config_files_are_refused(tmp_path, text, sentence):
    field = text.split(":")[0]
    lines = [text, *(line for line in ORACLE_CONFIG.splitlines() if not line.startswith(field))]
    assert sentence in refusal(convert_tensors, tmp_path, PUBLISHED, "\n".join(lines))
    assert not (tmp_path / "out").exists()


def test_config_files_without_fields_are_refused(tmp_path):
    path = write_config(tmp_path, "- 1")
    assert "does not consist of 'name: value' lines" in refusal(read_overrides, path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as YAML or JSON" in refusal(read_overrides, path)
    assert "cannot be read as YAML or JSON" in refusal(read_overrides, tmp_path / "absent.yaml")
    path.write_text(json.dumps({"out_indices": [0, 1, 2, 3], "ground_sampling_distance": 0.3}))
    assert read_overrides(path) == {"out_indices": [0, 1, 2, 3], "ground_sampling_distance": 0.3}


def test_window_defaults_to_two_thirds(tmp_path):
    _, model = convert_tensors(tmp_path, PUBLISHED, "\n".join(ORACLE_CONFIG.splitlines()[:3]))
    assert (model.config.image_size, model.config.window_stride) == (64, 43)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (1536, 24)])
def test_heads_of_the_published_widths(width, heads):
    shapes = {name: tensor.shape for name, tensor in PUBLISHED.items()}
    shapes |= {
        "backbone.cls_token": (1, 1, width),
        "backbone.blocks.0.mlp.fc1.weight": (4 * width, width),
    }
    config = infer_config(shapes, {"out_indices": [0, 1, 2, 3], "group_norm_groups": 8})
    assert config.backbone_config.num_attention_heads == heads
