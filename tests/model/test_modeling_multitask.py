"""Multi-Task Training: masks, modules and losses worked out by hand, gradients."""

import math

import pytest
import torch
from tiny_model import VIT, tiny_config
from torch.nn import functional as F

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining, visible_blocks

PARTS = ["loss_reconstruct_masked", "loss_reconstruct_styled", "loss_reconstruct_consistency"]
IMAGE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
STYLED_IMAGE = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(0, 6, (2, 64, 96), generator=torch.Generator().manual_seed(2))
HALF = torch.arange(96).expand(2, 64, 96) % 32 < 16  # visible
SECOND = torch.tensor([False, True])
UNTRAINED_AT_FIRST = {"pixel_decoder.level_embed"}  # its way into the loss starts at 0


def build(**overrides):
    torch.manual_seed(0)
    return CrossEarthForMultiTaskTraining(tiny_config(**overrides)).train()


def parts(output):
    return [output.loss_dict[name].item() for name in PARTS]


def without_gradient(model):
    return {
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    }


# --- masks ----------------------------------------------------------------------------------------------------------


def test_masks_are_constant_in_blocks_and_hide_the_wanted_share():
    torch.manual_seed(0)
    mask = visible_blocks((50, 200, 264), ratio=0.7, block=64)  # 4 x 5 blocks, the last ones cut
    assert mask.shape == (50, 200, 264)
    assert mask.dtype == torch.bool
    corners = mask[:, ::64, ::64]  # (50, 4, 5)
    for row in range(4):
        for column in range(5):
            block = mask[:, 64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            assert (block == corners[:, row, column, None, None]).all()
    share = 1 - corners.float().mean().item()
    assert abs(share - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 1000)
    # each image has a mask of its own
    assert len({tuple(c.flatten().tolist()) for c in corners}) > 40


def test_extreme_ratios_and_images_smaller_than_a_block():
    assert visible_blocks((3, 70, 70), ratio=0.0, block=16).all()
    assert not visible_blocks((3, 70, 70), ratio=1.0, block=16).any()
    small = visible_blocks((200, 16, 32), ratio=0.5, block=64)
    assert small.shape == (200, 16, 32)
    assert set(small.float().mean(dim=(1, 2)).tolist()) == {0.0, 1.0}


def test_a_mask_follows_its_seed_wherever_its_image_stands():
    together = visible_blocks((3, 96, 64), 0.5, 16, seeds=[7, 11, 2**62])
    alone = visible_blocks((1, 96, 64), 0.5, 16, seeds=[11])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    torch.manual_seed(5)
    first = visible_blocks((2, 96, 64), 0.5, 16)
    torch.manual_seed(5)
    assert torch.equal(first, visible_blocks((2, 96, 64), 0.5, 16))


def test_hidden_pixels_show_the_token_image():
    multitask = build().multitask
    token = torch.randn(3, 64, 64)
    multitask.mask_token.data.copy_(token)
    images, m = torch.randn(2, 3, 96, 160), torch.rand(2, 96, 160) > 0.5
    hidden = multitask(images, m)
    keep = m[:, None].float()
    # Larger than the token: its periodic repetition.
    rows, columns = torch.arange(96) % 64, torch.arange(160) % 64
    expected = images * keep + (1 - keep) * token[:, rows[:, None], columns]
    torch.testing.assert_close(hidden, expected, rtol=0, atol=0)
    # Smaller: its top left part.
    small = multitask(images[..., :32, :48], torch.zeros(2, 32, 48, dtype=torch.bool))
    torch.testing.assert_close(small, token[:, :32, :48].expand(2, -1, -1, -1), rtol=0, atol=0)


# --- modules --------------------------------------------------------------------------------------------------------


def test_the_extractor_reaches_the_backbones_grid_and_width():
    extractor = build().multitask.extractor
    assert extractor(torch.randn(2, 3, 48, 80)).shape == (2, 3 * 5, 64)
    convolutions = [layer for layer in extractor.layers if isinstance(layer, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4, 8, 16, 32, 64]
    wide = build(mim_extractor_channels=(5, 6, 7, 8)).multitask.extractor
    assert [c.out_channels for c in wide.layers if isinstance(c, torch.nn.Conv2d)] == [
        5,
        6,
        7,
        8,
        64,
    ]
    with torch.device("meta"):
        large = CrossEarthForMultiTaskTraining(CrossEarthConfig()).multitask
    assert [layer.out_channels for layer in large.extractor.layers[::2]] == [
        64,
        128,
        256,
        512,
        1024,
    ]
    assert large.reconstruction.merge.in_channels == 4 * 256
    assert large.mask_token.shape == (3, 512, 512)


def test_the_injector_is_cross_attention_as_pytorch_computes_it():
    injector = build().multitask.injectors[1]
    patches, details = torch.randn(2, 6, 64), torch.randn(2, 6, 64)
    for norm in (injector.query_norm, injector.patch_norm):
        torch.nn.init.normal_(norm.weight)
    query = F.layer_norm(details, (64,), injector.query_norm.weight)
    value = F.layer_norm(patches, (64,), injector.patch_norm.weight)
    identity, nothing = torch.eye(64), torch.zeros(3 * 64)
    found, _ = F.multi_head_attention_forward(
        query.transpose(0, 1), value.transpose(0, 1), value.transpose(0, 1), 64, 4, torch.cat([identity] * 3), nothing,
        None, None, False, 0.0, injector.linear.weight, injector.linear.bias,
    )  # fmt: skip
    expected = patches + found.transpose(0, 1)
    torch.testing.assert_close(injector(patches, details), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (16, 1024)])
def test_the_reconstruction_equals_its_formula_with_the_maps_concatenated(size):
    head = build().multitask.reconstruction
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    maps = [torch.randn(1, 64, max(size[0] // s, 1), size[1] // s) for s in (4, 8, 16, 32)]
    inner = (min(size[0], 512), min(size[1], 512))
    enlarged = []
    for level in maps:
        x = F.conv2d(level, head.aspp.reduce.weight, head.aspp.reduce.bias).relu()
        branches = [
            F.conv2d(x, branch.weight, branch.bias, padding=dilation, dilation=dilation).relu()
            for branch, dilation in zip(head.aspp.branches, (1, 6, 12, 18), strict=True)
        ]
        x = F.conv2d(
            torch.cat(branches, 1), head.aspp.project.weight, head.aspp.project.bias
        ).relu()
        enlarged.append(F.interpolate(x, inner, mode="bilinear"))
    merged = F.conv2d(torch.cat(enlarged, 1), head.merge.weight, head.merge.bias)
    expected = head.pixels(merged.relu())
    expected = F.interpolate(expected, size, mode="bilinear")
    found = head(size, *maps)
    assert found.shape == (1, 3, *size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_injectors_act_at_the_pyramid_blocks_on_patches_only():
    model = build(backbone_config=VIT | {"num_hidden_layers": 6}, out_indices=(0, 2, 3, 5)).eval()
    calls = []

    def injector(patches, level):
        calls.append((level, tuple(patches.shape)))
        return patches + 1

    injected = model.model(IMAGE, output_hidden_states=True, injector=injector)
    clean = model.model(IMAGE, output_hidden_states=True)
    assert calls == [(level, (2, 24, 64)) for level in range(4)]
    difference = injected.hidden_states[1] - clean.hidden_states[1]
    torch.testing.assert_close(difference[:, 1:], torch.ones(2, 24, 64), rtol=0, atol=1e-5)
    assert not difference[:, 0].any()
    torch.testing.assert_close(
        injected.feature_maps[0] - clean.feature_maps[0], torch.ones(2, 64, 16, 24)
    )
    # The next blocks go on from what was injected.
    last = injected.last_hidden_state - clean.last_hidden_state
    assert last[:, 1:].mean().item() == pytest.approx(4, rel=0.01)
    assert last[:, 0].any()


# --- losses ---------------------------------------------------------------------------------------------------------


def test_the_segmentation_is_that_of_the_plain_model():
    model = build()
    plain = CrossEarthForSemanticSegmentation(model.config).train()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("multitask.")}
    )
    torch.manual_seed(3)
    expected = plain(STYLED_IMAGE, labels=LABELS)
    torch.manual_seed(3)
    found = model(STYLED_IMAGE, labels=LABELS, clean_pixel_values=IMAGE, styled=SECOND)
    assert list(found.loss_dict) == [*expected.loss_dict, *PARTS]
    for name, value in expected.loss_dict.items():
        assert found.loss_dict[name] == value
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(found.loss, sum(found.loss_dict.values()))
    assert found.loss > expected.loss


def test_distances_are_those_to_the_normalized_clean_image_over_all_pixels(monkeypatch):
    model = build(mim_weight=2.0)
    rebuilt = torch.randn(3, 3, 64, 96)  # two masked images and the one that was styled
    monkeypatch.setattr(model, "_rebuild", lambda images: rebuilt)
    found = parts(model(STYLED_IMAGE, clean_pixel_values=IMAGE, styled=SECOND))
    pixels = 3 * 64 * 96
    masked = sum((rebuilt[i] - IMAGE[i]).abs().sum() / pixels for i in range(2)) / 2
    restyled = (rebuilt[2] - IMAGE[1]).abs().sum() / pixels / 2
    consistency = (rebuilt[1] - rebuilt[2]).abs().sum() / pixels / 2
    assert found == pytest.approx(
        [2 * masked.item(), 2 * restyled.item(), 2 * consistency.item()], rel=1e-5
    )


def test_one_extra_pass_holds_the_masked_and_the_styled_images(monkeypatch):
    model, seen = build(), []
    rebuild = model._rebuild
    monkeypatch.setattr(model, "_rebuild", lambda images: seen.append(images) or rebuild(images))
    passes = []
    model.model.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    visible = HALF
    model.multitask.mask_token.data.fill_(9.0)
    output = model(
        STYLED_IMAGE, labels=LABELS, clean_pixel_values=IMAGE, styled=SECOND, visible=visible
    )
    assert passes == [2, 3]
    torch.testing.assert_close(
        seen[0][:2], torch.where(visible[:, None], IMAGE, torch.tensor(9.0)), rtol=0, atol=0
    )
    torch.testing.assert_close(seen[0][2], STYLED_IMAGE[1], rtol=0, atol=0)
    assert output.reconstruction.shape == (2, 3, 64, 96)
    assert output.styled_reconstruction.shape == (1, 3, 64, 96)
    assert torch.equal(output.visible, visible)


def test_an_image_weighs_the_same_in_every_batch():
    model = build()
    visible = torch.rand(2, 64, 96) > 0.5
    together = parts(model(STYLED_IMAGE, clean_pixel_values=IMAGE, styled=SECOND, visible=visible))
    alone = [
        parts(
            model(
                STYLED_IMAGE[i, None],
                clean_pixel_values=IMAGE[i, None],
                styled=SECOND[i, None],
                visible=v[None],
            )
        )
        for i, v in enumerate(visible)
    ]
    assert together == pytest.approx([(a + b) / 2 for a, b in zip(*alone, strict=True)], rel=1e-4)


def test_with_seeds_the_loss_is_a_matter_of_the_images_alone():
    model = build()
    seeds = torch.tensor([5, 6])
    first = model(IMAGE, labels=LABELS, seeds=seeds)
    again = model(IMAGE.flip(0), labels=LABELS.flip(0), seeds=seeds.flip(0))
    assert torch.equal(first.visible, again.visible.flip(0))
    torch.testing.assert_close(first.loss, again.loss)


def test_a_batch_without_styled_images_costs_one_clean_pass_and_keeps_every_gradient():
    model = build()
    nothing = torch.zeros(2, dtype=torch.bool)
    output = model(IMAGE, LABELS, clean_pixel_values=IMAGE, styled=nothing, visible=HALF)
    assert parts(output)[1:] == [0.0, 0.0]
    assert all(output.loss_dict[name].requires_grad for name in PARTS)
    assert output.styled_reconstruction.shape == (0, 3, 64, 96)
    output.loss.backward()
    assert without_gradient(model) <= UNTRAINED_AT_FIRST
    neither = model(IMAGE, visible=HALF)
    assert parts(neither) == parts(output)


def test_gradients_reach_everything_but_the_frozen_backbone():
    model = build()
    model(
        STYLED_IMAGE, LABELS, clean_pixel_values=IMAGE, styled=SECOND, visible=HALF
    ).loss.backward()
    assert all(p.grad is None for p in model.model.backbone.parameters())
    assert without_gradient(model) <= UNTRAINED_AT_FIRST
    hidden = build(mim_mask_ratio=0.0)
    # nothing is hidden: the token is used all the same
    hidden(IMAGE, labels=LABELS).loss.backward()
    assert hidden.multitask.mask_token.grad is not None
    assert not hidden.multitask.mask_token.grad.any()
    free = build(freeze_backbone=False)
    free(IMAGE).loss.backward()
    assert free.model.backbone.layer[0].attention.q_proj.weight.grad.any()


def test_the_token_learns_where_it_shows():
    model = build()
    visible = torch.ones(2, 64, 96, dtype=torch.bool)
    visible[0, 16:32, 32:48] = False
    model(IMAGE, visible=visible).loss.backward()
    gradient = model.multitask.mask_token.grad
    assert gradient[:, 16:32, 32:48].all()
    gradient[:, 16:32, 32:48] = 0
    assert not gradient.any()


def test_without_labels_there_is_only_reconstruction():
    model = build()
    output = model(IMAGE)
    assert list(output.loss_dict) == PARTS
    assert output.logits is None
    output.loss.backward()
    assert model.class_predictor.weight.grad is None
    assert model.model.adapter.tokens_a.grad.any()
    alone = build()
    alone.freeze_head()
    alone(IMAGE, visible=HALF).loss.backward()
    assert without_gradient(alone) == set()  # as distributed training wants it
    assert not any(p.requires_grad for p in alone.pixel_decoder.parameters())
    for overrides in (
        {"link_queries": False},
        {"rein_refines_features": False, "freeze_backbone": False},
    ):
        other = build(**overrides)
        other.freeze_head()
        other(IMAGE, visible=HALF).loss.backward()
        assert without_gradient(other) == set()


def test_labels_and_images_are_left_as_they_are():
    model = build()
    labels = LABELS.clone()
    labels[:, :, 48:] = 255
    before = labels.clone(), IMAGE.clone(), STYLED_IMAGE.clone()
    assert torch.isfinite(
        model(STYLED_IMAGE, labels=labels, clean_pixel_values=IMAGE, styled=SECOND).loss
    )
    for tensor, kept in zip((labels, IMAGE, STYLED_IMAGE), before, strict=True):
        assert torch.equal(tensor, kept)
    nothing = model(IMAGE, labels=torch.full_like(labels, 255))
    assert torch.isfinite(nothing.loss)


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (128, 80)])
def test_every_size_that_the_model_takes(size):
    output = build()(torch.randn(1, 3, *size))
    assert output.reconstruction.shape == (1, 3, *size)


def test_registers_bypass_the_injector():
    vit = {k: v for k, v in VIT.items() if k != "use_mask_token"}
    model = build(
        backbone_config=vit | {"model_type": "dinov2_with_registers", "num_register_tokens": 3}
    )
    model(IMAGE, labels=LABELS, visible=HALF).loss.backward()
    assert without_gradient(model) <= UNTRAINED_AT_FIRST


def test_reconstruction_alone_learns_an_image():
    model = build(freeze_backbone=False)
    ramp = torch.linspace(-2, 2, 64)
    image = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, -ramp.expand(64, 64)])[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    visible = visible_blocks((1, 64, 64), 0.5, 16, seeds=[3])
    losses = []
    for _ in range(40):
        loss = model(image, visible=visible).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > 0.9  # about the mean distance to 0, which is 1
    assert losses[-1] < 0.4


# --- precision, memory ----------------------------------------------------------------------------------------------


# transformers 5.23 renames the method; the old name is the one that 5.20 knows.
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable")
def test_gradient_checkpointing_covers_the_reconstruction_and_changes_no_gradient():
    gradients, kept = [], []
    for checkpointing in (False, True):
        model = build()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.multitask.reconstruction.gradient_checkpointing
        torch.manual_seed(3)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t
        ):
            loss = model(STYLED_IMAGE, labels=LABELS, clean_pixel_values=IMAGE, styled=SECOND).loss
        loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        kept.append(sum(saved))
    assert kept[1] < 0.7 * kept[0]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_half_precision_stays_close():
    model, visible = build(), torch.rand(2, 64, 96) > 0.5
    expected = parts(model(STYLED_IMAGE, clean_pixel_values=IMAGE, styled=SECOND, visible=visible))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(
            STYLED_IMAGE, labels=LABELS, clean_pixel_values=IMAGE, styled=SECOND, visible=visible
        )
    mixed.loss.backward()
    assert parts(mixed) == pytest.approx(expected, rel=0.1)
    half = model.to(torch.bfloat16)
    images = STYLED_IMAGE.bfloat16(), IMAGE.bfloat16()
    assert parts(
        half(images[0], clean_pixel_values=images[1], styled=SECOND, visible=visible)
    ) == pytest.approx(expected, rel=0.1)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"styled": SECOND},
            "clean_pixel_values and styled belong together; give both, or neither",
        ),
        ({"clean_pixel_values": IMAGE}, "belong together"),
        (
            {"clean_pixel_values": IMAGE[:1], "styled": SECOND},
            r"has the shape \(1, 3, 64, 96\), pixel_values",
        ),
        (
            {"clean_pixel_values": IMAGE, "styled": SECOND.float()},
            "styled is torch.float32 of shape",
        ),
        ({"clean_pixel_values": IMAGE, "styled": SECOND[:1]}, "one bool for each of the 2 images"),
        (
            {"visible": torch.ones(2, 64, 64, dtype=torch.bool)},
            r"visible is torch.bool of shape \(2, 64, 64\); give",
        ),
        ({"visible": torch.ones(2, 64, 96)}, "visible is torch.float32"),
        ({"pixel_values": IMAGE[..., :60, :]}, "height 60 is not a multiple of 16; pad to 64"),
        ({"labels": LABELS + 3}, "remap them"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build()(**({"pixel_values": STYLED_IMAGE} | changes))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mim_mask_ratio": 1.5}, "mim_mask_ratio 1.5 is not a probability"),
        ({"mim_mask_ratio": float("nan")}, "mim_mask_ratio nan must be a finite number"),
        ({"mim_block_size": 0}, "mim_block_size 0 must be a finite number, 1 or more"),
        ({"mim_block_size": 65}, "mim_block_size 65 exceeds image_size 64"),
        ({"mim_weight": -1.0}, "mim_weight -1.0 must be a finite number, 0 or more"),
        ({"mim_weight": float("inf")}, "mim_weight inf must be a finite number"),
        (
            {"mim_extractor_channels": (8, 16, 32)},
            r"mim_extractor_channels \(8, 16, 32\) must be four",
        ),
        ({"mim_extractor_channels": (8, 16, 32, 0)}, "must be four positive widths"),
        (
            {"mim_reconstruction_width": 30},
            "mim_reconstruction_width 30 is not a positive multiple of 4",
        ),
    ],
)
def test_configurations_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build(**overrides)


def test_hidden_pixels_alone_judge_the_masked_image():
    model = build(mim_hidden_only=True)
    output = model(IMAGE, visible=HALF)
    hidden = ~HALF[:, None].expand_as(IMAGE)
    expected = (output.reconstruction - IMAGE).abs()[hidden].mean()
    torch.testing.assert_close(
        output.loss_dict["loss_reconstruct_masked"], model.config.mim_weight * expected
    )
    everything = model(IMAGE, visible=torch.ones_like(HALF))
    assert everything.loss_dict["loss_reconstruct_masked"] == 0
