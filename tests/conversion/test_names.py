"""Names: published, ours, and both of DINOv2's; DINOv2 files of both patch sizes."""

import numpy as np
import pytest
import torch
from dinov2_layouts import dinov2, original_layout, save_backbone
from published import (
    ORACLE_CONFIG,
    convert_tensors,
    is_vit,
    refusal,
    tiny_tensors,
    write_config,
)
from tiny_model import tiny_config

from crossearth_hf.conversion.published import convert, from_published, published_name, to_published
from crossearth_hf.errors import InputError

PUBLISHED = tiny_tensors()


def test_fused_projections_are_split_in_order():
    ours = from_published(PUBLISHED, tiny_config())
    fused = PUBLISHED["backbone.blocks.1.attn.qkv.weight"]  # (3D, D): queries, keys, values
    for part, rows in zip("qkv", (slice(0, 64), slice(64, 128), slice(128, 192)), strict=True):
        assert torch.equal(
            ours[f"model.backbone.layer.1.attention.{part}_proj.weight"], fused[rows]
        )
    layer, decoder = (
        "transformer_module.decoder.layers.2",
        "decode_head.transformer_decoder.layers.2",
    )
    fused = PUBLISHED[f"{decoder}.self_attn.attn.in_proj_bias"]
    assert torch.equal(ours[f"{layer}.self_attn.v_proj.bias"], fused[64:])
    cross = f"{decoder}.cross_attn.attn.in_proj_weight"
    assert torch.equal(ours[f"{layer}.cross_attn.in_proj_weight"], PUBLISHED[cross])
    assert torch.equal(
        ours[f"{layer}.cross_attn_layer_norm.bias"], PUBLISHED[f"{decoder}.norms.0.bias"]
    )


def test_names_of_parameters():
    assert (
        published_name("model.backbone.layer.11.attention.k_proj.bias")
        == "backbone.blocks.11.attn.qkv.bias"
    )
    assert published_name("class_predictor.weight") == "decode_head.cls_embed.weight"
    with pytest.raises(InputError, match=r"'model\.head' is not a parameter"):
        published_name("model.head")
    with pytest.raises(InputError, match=r"also needs .*k_proj\.bias"):
        to_published({"model.backbone.layer.0.attention.q_proj.bias": torch.zeros(4)})


def cubic(length_in, length_out):
    """(out, in) matrix of cubic convolution (Keys 1981, a = -0.75) with clamped borders and half-pixel centers."""
    matrix = np.zeros((length_out, length_in))
    for row in range(length_out):
        center = (row + 0.5) * length_in / length_out - 0.5
        for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            d = abs(center - tap)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, min(max(tap, 0), length_in - 1)] += near if d <= 1 else far
    return matrix


LAYOUTS = ("folder", "file", "in memory", "original", "prefixed")


@pytest.mark.parametrize(
    ("layout", "kind"),
    [(layout, {}) for layout in LAYOUTS]
    + [("folder", {"use_swiglu_ffn": True}), ("original", {"use_swiglu_ffn": True})]
    + [("folder", {"registers": True}), ("original", {"registers": True})],
)
def test_dinov2_layouts_give_the_same_features(tmp_path, layout, kind):
    model = dinov2(**kind)
    tensors = {name: tensor for name, tensor in PUBLISHED.items() if not is_vit(name)}
    tensors["backbone.reins.scale"] = torch.tensor(0.0)  # adapters that change nothing
    report, ours = convert_tensors(
        tmp_path, tensors, backbone=save_backbone(model, tmp_path, layout)
    )
    assert report.resampling is None
    assert report.training_only == (["classifier.weight"] if layout == "in memory" else [])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(pixels, output_hidden_states=True).hidden_states[-1]
        features = ours.model(pixels).last_hidden_state
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("layout", "size"), [("folder", 64), ("original", None)])
def test_dinov2_of_14_pixels_is_resampled(tmp_path, layout, size):
    model = dinov2(patch_size=14, image_size=518)
    config = ORACLE_CONFIG + (f"image_size: {size}\n" if size else "")
    tensors = {name: tensor for name, tensor in PUBLISHED.items() if not is_vit(name)}
    report, ours = convert_tensors(
        tmp_path, tensors, config, backbone=save_backbone(model, tmp_path, layout)
    )
    side = (size or 512) // 16
    assert report.resampling == f"patch kernel 14 -> 16 and positions 37 x 37 -> {side} x {side}"
    assert ours.config.image_size == 16 * side
    embeddings = ours.model.backbone.embeddings
    kernel = model.embeddings.patch_embeddings.projection.weight.detach().numpy()
    across = cubic(14, 16)
    expected = across @ kernel @ across.T
    np.testing.assert_allclose(
        embeddings.patch_embeddings.projection.weight.detach(), expected, atol=1e-5
    )
    table = model.embeddings.position_embeddings.detach()[0]
    across = cubic(37, side)
    expected = across @ table[1:].T.reshape(64, 37, 37).numpy() @ across.T  # (D, side, side)
    positions = embeddings.position_embeddings.detach()[0]
    np.testing.assert_allclose(positions[1:].T.reshape(64, side, side), expected, atol=1e-5)
    assert torch.equal(positions[0], table[0])


def test_a_wrong_backbone_is_refused(tmp_path):
    checkpoint, backbone, out = tmp_path / "head.pth", tmp_path / "vit.pth", tmp_path / "out"
    torch.save({name: tensor for name, tensor in PUBLISHED.items() if not is_vit(name)}, checkpoint)
    assert "add --backbone" in refusal(convert, checkpoint, out, config=write_config(tmp_path))
    torch.save(PUBLISHED, backbone)
    assert "is no DINOv2 file" in refusal(
        convert, checkpoint, out, config=write_config(tmp_path), backbone=backbone
    )
    assert "leave out --backbone" in refusal(
        convert, backbone, out, config=write_config(tmp_path), backbone=checkpoint
    )
    torch.save(original_layout(dinov2(hidden_size=32)), backbone)
    message = refusal(convert, checkpoint, out, config=write_config(tmp_path), backbone=backbone)
    assert "(4, 4, 64)" in message
    assert "(4, 4, 32)" in message
    assert "--backbone" in message
    assert "neither model.safetensors" in refusal(convert, checkpoint, out, backbone=tmp_path)
    assert not out.exists()
