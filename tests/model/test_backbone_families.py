"""Each family of pretrained ViTs below CrossEarth: its tokens are transformers' own, and all a model does works."""

import itertools

import pytest
import torch
from strangers import opened_by_a_stranger
from tiny_model import tiny_config
from torch.nn import functional as F
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
    CrossEarthModel,
)
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining
from crossearth_hf.training.adaptation import LoraSettings, adapt, extend_channels, merged
from crossearth_hf.training.optimization import param_groups

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "layerscale_value": 0.5,
}
FAMILIES = {
    "dinov2": (Dinov2Model, Dinov2Config, {}),
    "dinov2 with SwiGLU": (Dinov2Model, Dinov2Config, {"use_swiglu_ffn": True}),
    "dinov2 with registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"num_register_tokens": 3},
    ),
    "dinov3": (
        DINOv3ViTModel,
        DINOv3ViTConfig,
        {"num_register_tokens": 4, "intermediate_size": 64},
    ),
    "dinov3 with a gated MLP": (
        DINOv3ViTModel,
        DINOv3ViTConfig,
        {"use_gated_mlp": True, "intermediate_size": 48},
    ),
}
KINDS = ("dinov2", "dinov2 with registers", "dinov3")
PUBLISHED_DINOV3 = {
    "S": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
    "S+": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
    },
    "B": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "L": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "H+": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "intermediate_size": 5120,
    },
    "7B": {
        "hidden_size": 4096,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "intermediate_size": 8192,
    },
}


def random_vit(family, **sizes):
    """A ViT of transformers with every number drawn at random."""
    model_class, config_class, fields = FAMILIES[family]
    torch.manual_seed(0)
    vit = model_class(
        config_class(**(SIZES | {"image_size": 64, "patch_size": 16} | fields | sizes))
    ).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return vit


def build(family, model_class=CrossEarthForSemanticSegmentation, **overrides):
    torch.manual_seed(1)
    return model_class.from_backbone(random_vit(family), tiny_config(**overrides), 4)


def images(batch=2, height=64, width=96):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


def loss_of(model):
    labels = torch.arange(6).repeat_interleave(64 * 16).view(1, 64, 96).expand(2, -1, -1)
    return model(images(), labels=labels, seeds=torch.tensor([3, 4])).loss


def gradients(model):
    loss_of(model).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [(224, 224), (512, 512), (96, 160)])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(family, size, monkeypatch):
    is_dinov2 = family in ("dinov2", "dinov2 with SwiGLU")
    side = size[0] if is_dinov2 and size[0] == size[1] else 64
    vit = random_vit(family, image_size=side)
    config = tiny_config(rein_refines_features=False)
    config.backbone_config.image_size = side
    model = CrossEarthForSemanticSegmentation.from_backbone(vit, config, 4).eval()
    # transformers resamples to a size, the original by a scale factor
    if is_dinov2 and size[0] != size[1]:
        table = vit.embeddings.position_embeddings.detach()
        grid = table[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
        factor = tuple((pixels / 16 + 0.1) / 4 for pixels in size)
        grid = F.interpolate(grid, scale_factor=factor, mode="bicubic", align_corners=False)
        assert grid.shape[-2:] == (6, 10)
        resampled = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
        monkeypatch.setattr(vit.embeddings, "interpolate_pos_encoding", lambda *unused: resampled)
    pixels = images(2, *size)
    with torch.no_grad():
        expected = vit(pixels, output_hidden_states=True).hidden_states
        found = model.model(pixels, output_hidden_states=True).hidden_states
    assert len(found) == 5
    for ours, theirs in zip(found, expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_maps_have_the_grid_of_the_image():
    model = build("dinov3").eval()
    with torch.no_grad():
        maps = model.model(images()).feature_maps
        tokens = model.model(images()).last_hidden_state[
            :, 5:
        ]  # after the class token and four registers
    assert [tuple(level.shape[-2:]) for level in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    coarsest = F.interpolate(
        tokens.transpose(1, 2).reshape(2, 32, 4, 6), scale_factor=0.5, mode="bilinear"
    )
    torch.testing.assert_close(maps[3], coarsest)


@pytest.mark.parametrize(("size", "sizes"), PUBLISHED_DINOV3.items())
def test_published_sizes_of_dinov3_fit(size, sizes):
    biases = {"query_bias": size != "7B", "value_bias": size != "7B"}
    vit_config = DINOv3ViTConfig(
        **sizes, **biases, use_gated_mlp=size in ("S+", "H+", "7B"), num_register_tokens=4
    )
    config = CrossEarthConfig().for_backbone(vit_config)
    with torch.device("meta"):
        ours, theirs = (
            CrossEarthModel(config).backbone.state_dict(),
            DINOv3ViTModel(vit_config).state_dict(),
        )
    shapes = {name.removeprefix("model."): tensor.shape for name, tensor in theirs.items()}
    unused = ("norm.weight", "norm.bias", "embeddings.mask_token")
    expected = {name: shape for name, shape in shapes.items() if name not in unused}
    assert {name: tensor.shape for name, tensor in ours.items()} == expected
    depth = sizes["num_hidden_layers"]
    assert config.out_indices[-1] == depth - 1
    assert all(a < b for a, b in itertools.pairwise(config.out_indices))


def test_positions_of_dinov3_stay_in_training():
    model = build("dinov3", freeze_backbone=False)
    # what transformers draws by, in training
    assert model.config.backbone_config.pos_embed_rescale == 2.0
    with torch.no_grad():
        drawn = [model.train().model(images()).last_hidden_state for _ in range(2)]
        still = model.eval().model(images()).last_hidden_state
    assert drawn[0].equal(drawn[1])
    assert drawn[0].equal(still)


def test_a_rotary_pair_needs_heads_of_four_numbers():
    vit_config = DINOv3ViTConfig(hidden_size=36, num_attention_heads=6, num_hidden_layers=4)
    with pytest.raises(ValueError, match="hidden_size 36 over 6 heads is no multiple of 4"):
        tiny_config().for_backbone(vit_config)


@pytest.mark.parametrize("family", KINDS)
def test_auto_classes_load_a_saved_folder(family, tmp_path):
    model, folder = build(family).eval(), tmp_path / "model"
    model.save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    with torch.no_grad():
        expected = model(images()).logits
        for auto in (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation):
            loaded = auto.from_pretrained(folder).eval()
            assert type(loaded) is CrossEarthForSemanticSegmentation
            assert loaded(images()).logits.equal(expected)
        base = AutoModel.from_pretrained(folder).eval()
        assert base(images()).feature_maps[2].equal(model.model(images()).feature_maps[2])
        half = AutoModelForSemanticSegmentation.from_pretrained(folder, dtype=torch.bfloat16).eval()
        assert half(images().bfloat16()).masks_queries_logits.dtype == torch.bfloat16
    assert isinstance(AutoImageProcessor.from_pretrained(folder), CrossEarthImageProcessor)
    assert all(not p.requires_grad for p in loaded.model.backbone.parameters())


def test_saved_folders_load_where_the_package_is_missing(tmp_path, monkeypatch):
    models = {tmp_path / family.replace(" ", "_"): build(family).eval() for family in KINDS}
    for folder, model in models.items():
        model.save_pretrained(folder)
        CrossEarthImageProcessor().save_pretrained(folder)
    found = opened_by_a_stranger(models, tmp_path, monkeypatch)
    image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
    for model, results in zip(models.values(), found, strict=True):
        with torch.no_grad():
            expected = model(image).logits
        torch.testing.assert_close(
            results["AutoModelForSemanticSegmentation"], expected, rtol=0, atol=0
        )


@pytest.mark.parametrize("family", KINDS)
def test_checkpointing_gives_the_same_gradients(family):
    model = build(family, freeze_backbone=False).train()
    expected = gradients(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.numel()} == set(
        expected
    )
    model.zero_grad()
    model.gradient_checkpointing_enable()
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_trains_and_merges(family):
    model = build(family)
    adapt(model, "rein+lora", LoraSettings(rank=2))
    before = {name: p.clone() for name, p in model.named_parameters()}
    trained = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(2):  # the first step moves B alone
        trained.zero_grad()
        loss_of(model).backward()
        trained.step()
    moved = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    in_vit = {name for name in moved if "backbone" in name}
    parts = itertools.product(range(4), "qv", "AB")
    assert in_vit == {
        f"model.backbone.layer.{i}.attention.{part}_proj.lora_{side}.default.weight"
        for i, part, side in parts
    }
    plain = build(family)
    plain.load_state_dict(merged(model.state_dict(), LoraSettings(rank=2)))
    with torch.no_grad():
        found, expected = plain.eval()(images()).logits, model.eval()(images()).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", KINDS)
def test_multi_task_training_runs_and_reloads(family, tmp_path):
    model = build(family, CrossEarthForMultiTaskTraining, mim_block_size=16).train()
    output = model(
        images(), labels=torch.ones(2, 64, 96, dtype=torch.long), seeds=torch.tensor([3, 4])
    )
    output.loss.backward()
    assert output.reconstruction.shape == (2, 3, 64, 96)
    assert model.model.adapter.scale.grad.abs() > 0
    model.save_pretrained(tmp_path)
    loaded = CrossEarthForMultiTaskTraining.from_pretrained(tmp_path)
    assert all(
        tensor.equal(model.state_dict()[name]) for name, tensor in loaded.state_dict().items()
    )


@pytest.mark.parametrize("family", KINDS)
def test_a_fourth_band_leaves_gray_images_as_they_were(family):
    model = build(family).eval()
    gray = images()[:, :1]
    with torch.no_grad():
        expected = model(gray.expand(-1, 3, -1, -1)).logits
        extend_channels(model, 4)
        found = model(gray.expand(-1, 4, -1, -1)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    adapt(model, "rein")
    [kernel] = model.input_convolutions
    assert kernel.weight.shape == (32, 4, 16, 16)
    in_vit = {id(p) for p in model.model.backbone.parameters() if p.requires_grad}
    assert in_vit == {id(kernel.weight), id(kernel.bias)}


def test_initialization_of_dinov3():
    config = tiny_config().for_backbone(random_vit("dinov3").config)
    backbone = CrossEarthModel(config).backbone
    assert backbone.layer[2].layer_scale2.lambda1.equal(torch.full((32,), 0.5))
    for token in (backbone.embeddings.cls_token, backbone.embeddings.register_tokens):
        assert 0.005 < float(token.std()) < 0.05
    assert backbone.layer[0].attention.k_proj.bias is None
    assert backbone.rotary.inv_freq.allclose(100.0 ** -(torch.arange(4) / 4))


def test_tokens_and_scales_of_dinov3_do_not_decay():
    model = build("dinov3", freeze_backbone=False)
    names = {id(p): name for name, p in model.named_parameters()}
    still = {
        names[id(p)]
        for group in param_groups(model, 0.05)
        if not group["weight_decay"]
        for p in group["params"]
    }
    for key in (
        "embeddings.cls_token",
        "embeddings.register_tokens",
        "layer.0.layer_scale1.lambda1",
    ):
        assert f"model.backbone.{key}" in still
