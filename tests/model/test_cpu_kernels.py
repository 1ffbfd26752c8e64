"""The faster routes against the obvious ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from crossearth_hf import CrossEarthForSemanticSegmentation
from crossearth_hf.model import cpu_kernels
from crossearth_hf.model.cpu_kernels import (
    BLOCK_ATTENTION,
    CpuGroupNorm,
    CpuLinear,
    block_attention,
    sample_levels,
    short_attention,
    use_cpu_linears,
)


@pytest.mark.parametrize("shape", [(130, 48), (2, 100, 48), (2, 3, 40, 48), (3, 48)])
def test_the_linear_layer_gives_values_and_gradients_of_the_plain_one(shape):
    torch.manual_seed(0)
    ours, plain = CpuLinear(48, 20), nn.Linear(48, 20).double()
    plain.load_state_dict(ours.state_dict())
    rows = torch.randn(shape)
    found, expected = ours(rows.requires_grad_()), plain(rows.detach().double())
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected, atol=1e-5)
    upstream = torch.randn(expected.shape)
    found.backward(upstream)
    expected.backward(upstream.double())
    assert torch.allclose(ours.weight.grad.double(), plain.weight.grad, atol=1e-4)
    assert torch.allclose(rows.grad.double(), upstream.double() @ plain.weight, atol=1e-5)


def test_rows_of_any_layout_and_half_precision():
    layer = CpuLinear(32, 16)
    rows = torch.randn(32, 200).T  # not contiguous
    assert torch.allclose(layer(rows), F.linear(rows, layer.weight, layer.bias), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(rows).dtype == torch.bfloat16
    half = CpuLinear(32, 16).to(torch.bfloat16)
    assert half(rows.bfloat16()).dtype == torch.bfloat16


def test_only_plain_linear_layers_change_and_keep_their_names():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), Special(4, 4))
    names = list(model.state_dict())
    use_cpu_linears(model)
    assert [type(layer) for layer in model] == [CpuLinear, Special]
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (2, 4)])
def test_sampling_equals_that_of_transformers(batch, heads):
    torch.manual_seed(0)
    sizes = [(2, 3), (5, 4), (8, 8)]
    count = sum(height * width for height, width in sizes)
    value = torch.randn(batch, count, heads, 6)
    locations = torch.rand(batch, 11, heads, 3, 4, 2) * 3 - 1  # two thirds outside, also far
    locations[0, 0, 0, 0] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 1e4], [-1e4, 0.5]])
    weights = torch.rand(batch, 11, heads, 3, 4)
    expected, expected_gradients = sampled(
        multi_scale_deformable_attention, value, sizes, locations, weights
    )
    found, gradients = sampled(sample_levels, value, sizes, locations, weights)
    assert torch.allclose(found, expected, atol=1e-5)
    for name, gradient, wanted in zip(
        ("value", "locations", "weights"), gradients, expected_gradients, strict=True
    ):
        assert wanted.abs().max() > 0.1, name
        assert torch.allclose(gradient, wanted, atol=1e-4), name


def sampled(sample, value, sizes, locations, weights):
    """Samples, and the gradients of a sum of their squares to the three tensors."""
    leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    output = sample(leaves[0], sizes, leaves[1], leaves[2])
    output.square().sum().backward()
    return output.detach(), [leaf.grad for leaf in leaves]


def test_sampling_at_a_pixel_center_by_hand():
    value = torch.arange(6.0).view(1, 6, 1, 1)  # one level of 2 x 3
    center = torch.tensor([2.5 / 3, 1.5 / 2]).view(1, 1, 1, 1, 1, 2)  # the last pixel
    between = torch.tensor([1.0 / 3, 0.5 / 2]).view(1, 1, 1, 1, 1, 2)  # halfway from 0 to 1
    weights = torch.full((1, 1, 1, 1, 1), 2.0)
    assert sample_levels(value, [(2, 3)], center, weights).item() == pytest.approx(10.0, abs=1e-5)
    assert sample_levels(value, [(2, 3)], between, weights).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("tokens", [7, 1100])
def test_attention_in_blocks_equals_the_fused_one(tokens):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, tokens, 3, 16).transpose(1, 2) for _ in range(3))
    found, weights = block_attention(nn.Identity(), query, key, value, None, scaling=0.25)
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.25).transpose(1, 2)
    assert weights is None
    assert torch.allclose(found, expected, atol=1e-5)


def test_attention_of_short_crops_has_values_and_gradients_of_the_fused_one(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "sdpa_attention_forward", None)  # it is not called
    torch.manual_seed(0)
    ours = [torch.randn(2, 3, 70, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    exact = [tensor.detach().double().requires_grad_() for tensor in ours]
    found, weights = short_attention(nn.Identity(), *ours, None, scaling=0.25)
    expected = F.scaled_dot_product_attention(*exact, scale=0.25).transpose(1, 2)
    assert weights is None
    assert torch.allclose(found.double(), expected, atol=0.02)
    upstream = torch.randn(expected.shape, dtype=torch.bfloat16)
    found.backward(upstream)
    expected.backward(upstream.double())
    for tensor, reference in zip(ours, exact, strict=True):
        distance = (tensor.grad.double() - reference.grad).norm() / reference.grad.norm()
        assert distance < 0.02


@pytest.mark.parametrize(
    ("tokens", "dtype", "trained"),
    [(513, torch.bfloat16, True), (9, torch.float32, True), (9, torch.bfloat16, False)],
)
def test_other_attention_is_the_fused_one(tokens, dtype, trained):
    torch.manual_seed(0)
    rows = [torch.randn(1, 2, tokens, 4, dtype=dtype, requires_grad=trained) for _ in range(3)]
    layer = nn.Identity()
    layer.is_causal = False
    found, _ = short_attention(layer, *rows, None, scaling=0.5)
    expected = F.scaled_dot_product_attention(*rows, scale=0.5).transpose(1, 2)
    assert torch.equal(found, expected)


def test_attention_drops_out_what_it_is_told_to():
    rows = [torch.randn(1, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    found, _ = short_attention(nn.Identity(), *rows, None, scaling=0.5, dropout=1.0)
    assert not found.any()


def test_a_group_norm_of_channels_last_maps_has_the_gradients_of_the_plain_one():
    torch.manual_seed(0)
    maps = torch.randn(2, 8, 5, 7).bfloat16().contiguous(memory_format=torch.channels_last)
    ours, plain = CpuGroupNorm(4, 8), nn.GroupNorm(4, 8).double()
    exact = maps.double().requires_grad_()
    found, expected = ours(maps.requires_grad_()), plain(exact)
    assert found.is_contiguous(), "the slow backward pass is that of channels-last maps"
    assert torch.allclose(found.double(), expected, atol=0.02)
    upstream = torch.randn(expected.shape).bfloat16()
    found.backward(upstream)
    expected.backward(upstream.double())
    assert torch.allclose(maps.grad.double(), exact.grad, atol=0.05)
    assert torch.allclose(ours.weight.grad.double(), plain.weight.grad, rtol=0.02, atol=0.05)


def test_the_whole_model_gives_the_same_with_attention_in_blocks(model, tmp_path):
    model.save_pretrained(tmp_path)
    blocks = CrossEarthForSemanticSegmentation.from_pretrained(
        tmp_path, attn_implementation=BLOCK_ATTENTION
    ).eval()
    assert blocks.config.backbone_config._attn_implementation == BLOCK_ATTENTION
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found, expected = blocks(images), model(images)
    assert torch.allclose(found.masks_queries_logits, expected.masks_queries_logits, atol=1e-4)


def test_inference_and_training_routes_agree(model):
    images = torch.randn(2, 3, 64, 96)
    trained = model(images)
    with torch.inference_mode():
        found = model(images)
    for name in ("class_queries_logits", "masks_queries_logits", "logits"):
        assert torch.allclose(found[name], trained[name], atol=1e-4), name
