"""The network's contracts; its numbers are checked in test_oracle.py."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from tiny_model import VIT, tiny_config
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    Dinov2Config,
    Dinov2Model,
    pipeline,
)
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as DeformableAttention,
)

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
    CrossEarthModel,
)

IMAGE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def build(**overrides):
    torch.manual_seed(0)
    return CrossEarthForSemanticSegmentation(tiny_config(**overrides)).eval()


def test_shapes_of_the_segmentation_output(model):
    output = model(IMAGE)
    assert output.logits.shape == (2, 6, 16, 24)
    assert output.class_queries_logits.shape == (2, 10, 7)
    assert output.masks_queries_logits.shape == (2, 10, 16, 24)
    assert output.loss is None
    assert output.hidden_states is None
    assert output.logits.min() >= 0
    assert output.logits.max() <= 10


def test_shapes_of_the_base_model(model):
    output = model.model(IMAGE, output_hidden_states=True)
    assert [tuple(m.shape[1:]) for m in output.feature_maps] == [
        (64, 16, 24),
        (64, 8, 12),
        (64, 4, 6),
        (64, 2, 3),
    ]
    assert output.query_position_embeddings.shape == (10, 32)
    assert len(output.hidden_states) == 5
    torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)


def test_tuple_output_holds_the_same_tensors(model):
    as_dict, as_tuple = model(IMAGE), model(IMAGE, return_dict=False)
    torch.testing.assert_close(as_tuple[0], as_dict.logits)


@pytest.mark.parametrize("size", [(60, 64), (64, 50)])
def test_size_that_is_no_multiple_of_16_is_refused_with_a_remedy(model, size):
    with pytest.raises(ValueError, match=r"is not a multiple of 16; pad to 64"):
        model(torch.zeros(1, 3, *size))


def test_without_its_contribution_the_adapter_leaves_dinov2_untouched():
    config = tiny_config()
    torch.manual_seed(0)
    model = CrossEarthModel(config).eval()
    reference = Dinov2Model(
        Dinov2Config(**{k: v for k, v in VIT.items() if k != "model_type"})
    ).eval()
    state = {
        key.replace("encoder.layer", "layer"): value
        for key, value in reference.state_dict().items()
        if "layernorm" not in key
    }
    model.backbone.load_state_dict(state)
    model.adapter.scale.data.zero_()
    states = reference(IMAGE[..., :64], output_hidden_states=True).hidden_states
    ours = model(IMAGE[..., :64], output_hidden_states=True).hidden_states
    for left, right in zip(ours[:4], states[:4], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


def test_rein_equals_its_formula_written_out(model):
    adapter = model.model.adapter
    adapter.scale.data.fill_(0.7)
    patches, token = torch.randn(1, 3, 64), adapter()[2]
    expected = torch.empty_like(patches)
    for n in range(3):
        weights = torch.tensor([(patches[0, n] @ t).item() / math.sqrt(64) for t in token]).exp()
        weights = weights / weights.sum()
        delta = sum(weights[t] * adapter.token2feat(token[t]) for t in range(1, 10))
        expected[0, n] = patches[0, n] + 0.7 * adapter.delta_f(delta + patches[0, n])
    torch.testing.assert_close(adapter(patches, token), expected, rtol=1e-5, atol=1e-5)


def test_queries_interleave_maximum_mean_and_last(model):
    adapter = model.model.adapter
    adapter.merge = nn.Identity()
    tokens = adapter()
    projected = adapter.transform(tokens)
    queries = adapter.queries(tokens)
    torch.testing.assert_close(queries[:, 0], projected[:, :, 0].max(dim=0).values)
    torch.testing.assert_close(queries[:, 1], projected[:, :, 0].mean(dim=0))
    torch.testing.assert_close(queries[:, 2], projected[-1, :, 0])
    torch.testing.assert_close(queries[:, 5], projected[-1, :, 1])


def test_plain_tokens_and_their_bounds():
    model = build(rein_rank=None)
    assert model.model.adapter.tokens.shape == (4, 10, 64)
    bound = math.sqrt(6 / (3 * 16 * 16 + 64))
    assert 0.9 * bound < model.model.adapter.tokens.abs().max() <= bound
    low_rank = build().model.adapter
    bound = math.sqrt(6 / (3 * 16 * 16 + math.sqrt(64 * 4)))
    assert 0.9 * bound < low_rank.tokens_a.abs().max() <= bound
    assert low_rank.scale.item() == pytest.approx(0.001)


def test_unlinked_queries_are_embeddings_that_learn():
    model = build(link_queries=False, num_queries=7)
    output = model(IMAGE, labels=torch.zeros(2, 64, 96, dtype=torch.long))
    output.loss.backward()
    assert output.class_queries_logits.shape == (2, 7, 7)
    assert model.transformer_module.queries_embedder.weight.grad.abs().sum() > 0
    assert not hasattr(model.model.adapter, "merge")


def test_backbone_is_frozen_by_default_and_by_method():
    model = build()
    model(IMAGE, labels=torch.zeros(2, 64, 96, dtype=torch.long)).loss.backward()
    assert all(p.grad is None for p in model.model.backbone.parameters())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    free = build(freeze_backbone=False)
    assert all(p.requires_grad for p in free.parameters())
    free.freeze_backbone()
    assert free.config.freeze_backbone
    assert not any(p.requires_grad for p in free.model.backbone.parameters())
    assert all(p.requires_grad for p in free.model.adapter.parameters())


def test_frozen_backbone_stays_frozen_after_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path)
    assert not any(p.requires_grad for p in loaded.model.backbone.parameters())
    assert loaded.class_predictor.weight.requires_grad


def test_registers_come_before_the_patches_and_bypass_the_adapter():
    vit = {k: v for k, v in VIT.items() if k != "use_mask_token"}
    model = build(
        backbone_config=vit | {"model_type": "dinov2_with_registers", "num_register_tokens": 3}
    )
    output = model.model(IMAGE)
    assert output.last_hidden_state.shape == (2, 1 + 3 + 24, 64)
    assert output.feature_maps[2].shape == (2, 64, 4, 6)
    assert torch.isfinite(model(IMAGE).logits).all()
    assert "model.backbone.embeddings.mask_token" not in model.state_dict()


def test_sdpa_is_the_default_and_equals_eager(model, tmp_path):
    assert model.config._attn_implementation == "sdpa"
    assert model.model.backbone.layer[0].attention.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path)
    eager = CrossEarthForSemanticSegmentation.from_pretrained(
        tmp_path, attn_implementation="eager"
    ).eval()
    assert eager.model.backbone.layer[0].attention.config._attn_implementation == "eager"
    torch.testing.assert_close(eager(IMAGE).logits, model(IMAGE).logits, rtol=1e-4, atol=1e-5)


def _note_size(sizes: dict[int, int], tensor: torch.Tensor) -> torch.Tensor:
    """Notes the bytes of the memory that a tensor kept for the backward pass lies in."""
    sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


# transformers 5.23 renames the method; the old name is the one that 5.20 knows.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")
def test_gradient_checkpointing_changes_no_gradient():
    labels = torch.randint(0, 6, (2, 64, 96), generator=torch.Generator().manual_seed(1))
    gradients, kept = [], []
    for checkpointing in (False, True):
        model = build().train()
        kept.append({})
        if checkpointing:
            model.gradient_checkpointing_enable()
            parts = (
                model.model.backbone.layer[0],
                model.model.adapter,
                model.pixel_decoder.encoder.layers[0],
            )
            assert all(part.gradient_checkpointing for part in parts)
        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(
            partial(_note_size, kept[-1]), lambda tensor: tensor
        ):
            loss = model(IMAGE, labels=labels).loss
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert sum(kept[1].values()) < 0.5 * sum(kept[0].values())
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(model, dtype):
    labels = torch.randint(0, 6, (2, 64, 96), generator=torch.Generator().manual_seed(1))
    expected = model(IMAGE).logits
    output = model.to(dtype)(IMAGE.to(dtype), labels=labels)
    assert output.logits.dtype == torch.float32
    assert torch.isfinite(output.loss)
    assert (output.logits - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_pixel_decoder_samples_precisely_in_half_precision(dtype):
    # PyTorch's CPU kernel goes wrong beyond 32,767 values a level: width 128 on 32 x 32 positions is beyond.
    wide = {"hidden_dim": 128, "feature_size": 128, "mask_feature_size": 128}
    decoder = build(**wide).pixel_decoder
    for layer in decoder.encoder.layers:
        torch.nn.init.normal_(layer.self_attn.sampling_offsets.weight, std=0.05)
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(1, 64, side, side, generator=generator) for side in (64, 32, 16, 8)]
    expected = decoder(maps).multi_scale_features[2]
    found = decoder.to(dtype)([m.to(dtype) for m in maps]).multi_scale_features[2].float()
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_deformable_attention_starts_from_its_ring_also_after_a_reload(model, tmp_path):
    def check(network):
        for module in network.modules():
            if isinstance(module, DeformableAttention):
                offsets = module.sampling_offsets.bias.detach().view(4, 3, 4, 2)
                # Head 0 looks right, head 1 down, ...; point k lies at distance k + 1.
                torch.testing.assert_close(
                    offsets[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]])
                )
                assert offsets[1, 2, 3].tolist() == pytest.approx([0, 4], abs=1e-5)
                assert module.sampling_offsets.weight.abs().max() == 0

    check(model)
    model.save_pretrained(tmp_path)
    check(CrossEarthForSemanticSegmentation.from_pretrained(tmp_path))
    base = CrossEarthModel.from_pretrained(tmp_path)
    base.save_pretrained(tmp_path / "base")
    # The head is missing in the base model's folder and must be initialized, not left at what memory held.
    headless = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "base")
    check(headless)
    assert 0.5 < headless.pixel_decoder.level_embed.std() < 1.5
    assert 0.5 < headless.transformer_module.level_embed.weight.std() < 1.5
    torch.testing.assert_close(headless.model.adapter.tokens_a, model.model.adapter.tokens_a)


def test_there_are_no_buffers_that_a_reload_could_lose(model):
    assert [name for name, _ in model.named_buffers()] == []


def test_a_reload_keeps_every_number(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(loaded(IMAGE).logits, model(IMAGE).logits, rtol=0, atol=0)


def test_every_auto_class_and_the_pipeline_work_from_a_folder(model, tmp_path):
    model.config.id2label = {i: f"class {i}" for i in range(6)}
    model.save_pretrained(tmp_path)
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CrossEarthConfig)
    assert isinstance(AutoModel.from_pretrained(tmp_path), CrossEarthModel)
    for auto in (AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation):
        assert isinstance(auto.from_pretrained(tmp_path), CrossEarthForSemanticSegmentation)
    assert isinstance(AutoImageProcessor.from_pretrained(tmp_path), CrossEarthImageProcessor)
    from PIL import Image  # noqa: PLC0415

    image = Image.effect_noise((50, 70), 80).convert("RGB")
    segments = pipeline("image-segmentation", model=str(tmp_path))(image)
    assert sum((np.asarray(s["mask"]) == 255).sum() for s in segments) == 50 * 70
    assert {s["label"] for s in segments} <= set(model.config.id2label.values())


def test_batches_do_not_mix_images(model):
    together = model(IMAGE).class_queries_logits
    alone = torch.cat([model(image[None]).class_queries_logits for image in IMAGE])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (80, 48)])
def test_a_convolutional_stem_adds_detail_to_every_level(size):
    model = build(convolutional_stem=True)
    images = torch.randn(1, 3, *size)
    output = model.model(images)
    shapes = [tuple(level.shape[-2:]) for level in output.feature_maps]
    assert shapes == [(size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)]
    maps = model.model.backbone.stem(images)
    laterals = [lateral(m) for lateral, m in zip(model.model.laterals, maps, strict=True)]
    with torch.no_grad():
        for parameter in model.model.laterals.parameters():
            parameter.zero_()
    for level, plain, lateral in zip(
        output.feature_maps, model.model(images).feature_maps, laterals, strict=True
    ):
        torch.testing.assert_close(level, plain + lateral)
    assert [m.shape[1] for m in maps] == [24, 40, 112, 320]


def test_a_frozen_hybrid_trains_its_laterals():
    model = build(convolutional_stem=True, freeze_backbone=True).train()
    model(IMAGE, labels=torch.zeros(2, 64, 96, dtype=torch.long)).loss.backward()
    assert all(p.grad is None for p in model.model.backbone.parameters())
    assert all(p.grad is not None for p in model.model.laterals.parameters())


@pytest.mark.slow
@pytest.mark.skipif(
    torch.__version__ < (2, 13), reason="torch 2.6 cannot write regions of autocast, 2.13 can"
)
def test_the_whole_model_exports_with_a_free_batch_size(tmp_path):
    small = tiny_config(
        encoder_layers=1,
        decoder_layers=1,
        backbone_config=VIT | {"num_hidden_layers": 1},
        out_indices=(0, 0, 0, 0),
    )
    model = CrossEarthForSemanticSegmentation(small).eval()
    with torch.no_grad():
        exported = torch.export.export(
            model,
            (torch.randn(2, 3, 64, 96),),
            dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}},
        )
        torch.export.save(exported, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        images = torch.randn(3, 3, 64, 96)
        found, expected = loaded(images), model(images)
    for name in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(found[name], expected[name])
