"""Our numbers against those of the original inference code on random weights (../shared/oracle)."""

import json

import pytest
import torch
from tiny_model import tiny_config
from torch.nn import functional as F

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)
from crossearth_hf.conversion.published import from_published, to_published
from crossearth_hf.inference.windows import sliding_window_scores
from crossearth_hf.model.semantic_scores import semantic_scores
from crossearth_hf.training.trainer import param_groups

TOLERANCE = 1e-5  # relative to the largest magnitude


def error(found, expected):
    expected = expected.double()
    return float(
        (found.detach().double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
    )


def assert_equal(found, expected, what=""):
    assert found.shape == expected.shape, what
    assert error(found, expected) < TOLERANCE, f"{what}: {error(found, expected):.2e}"


@pytest.fixture(scope="module")
def tiny(shared):
    return shared / "oracle" / "tiny"


@pytest.fixture(scope="module")
def outputs(tiny):
    return torch.load(tiny / "outputs.pt", weights_only=True)


@pytest.fixture(scope="module")
def train(tiny):
    return torch.load(tiny / "train.pt", weights_only=True)


@pytest.fixture
def original(tiny):
    """The oracle's weights in our network."""
    model = CrossEarthForSemanticSegmentation(tiny_config())
    published = torch.load(tiny / "full.pth", weights_only=True)["state_dict"]
    model.load_state_dict(from_published(published, model.config))
    return model.eval()


def test_processor_equals_the_original_preprocessing(outputs):
    image = outputs["image_bgr_uint8"].flip(0)
    assert_equal(
        CrossEarthImageProcessor()(image, return_tensors="pt")["pixel_values"], outputs["inputs"]
    )


def test_tokens_after_every_block_and_adapter(original, outputs):
    traced = []
    for layer in original.model.backbone.layer:
        layer.register_forward_hook(lambda _module, _inputs, output: traced.append(output))
    states = original.model(outputs["inputs"], output_hidden_states=True).hidden_states
    assert_equal(states[0], outputs["tokens_embed"], "embeddings")
    for index, (kind, expected) in enumerate(outputs["tokens_trace"]):
        found = traced[index // 2] if kind == "block" else states[1 + index // 2]
        assert_equal(found, expected, f"{kind} {index // 2}")


@pytest.mark.parametrize("case", [None, "batch2", "nonsquare"])
def test_pyramid(original, outputs, case):
    case = outputs if case is None else outputs[case]
    found = original.model(case["inputs"]).feature_maps
    for level, (ours, theirs) in enumerate(zip(found, case["backbone_feats"], strict=True)):
        assert_equal(ours, theirs, f"level {level}")


def test_positions_of_a_nonsquare_image(original, outputs):
    case = outputs["nonsquare"]
    embeddings = original.model.backbone.embeddings
    assert_equal(
        embeddings.interpolate_pos_encoding(embeddings.cls_token, *case["inputs"].shape[-2:]),
        case["pos_embed"],
    )


def test_queries_and_pixel_decoder(original, outputs):
    features = original.model(outputs["inputs"])
    assert_equal(features.query_position_embeddings, outputs["query_embed"], "queries")
    pixels = original.pixel_decoder(features.feature_maps)
    assert_equal(pixels.mask_features, outputs["mask_features"], "mask features")
    for ours, theirs in zip(pixels.multi_scale_features, outputs["memories"], strict=True):
        assert_equal(ours, theirs, "memory")


def test_queries_masks_and_classes_of_every_layer(original, outputs):
    queries, blocked = [], []
    decoder = original.transformer_module.decoder
    decoder.layernorm.register_forward_pre_hook(
        lambda _module, inputs: queries.append(inputs[0].transpose(0, 1))
    )
    for layer in decoder.layers:
        layer.register_forward_pre_hook(
            lambda _module, _inputs, kwargs: blocked.append(kwargs["encoder_attention_mask"]),
            with_kwargs=True,
        )
    features = original.model(outputs["inputs"])
    pixels = original.pixel_decoder(features.feature_maps)
    normed, masks = original.transformer_module(
        pixels.multi_scale_features, pixels.mask_features, features.query_position_embeddings
    )
    for index, layer in enumerate(outputs["layers"]):
        assert_equal(queries[index], layer["query_feat"], f"query {index}")
        assert_equal(masks[index], outputs["mask_pred_all"][index], f"mask {index}")
        classes = original.class_predictor(normed[index]).transpose(0, 1)
        assert_equal(classes, outputs["cls_pred_all"][index], f"class {index}")
    for ours, layer in zip(blocked, outputs["layers"][:-1], strict=True):
        theirs = layer["attn_mask"]
        # the oracle keeps the masks before unblocking
        theirs = theirs & ~theirs.all(dim=-1, keepdim=True)
        assert torch.equal(ours.bool().view(4, 10, -1)[:1], theirs)


@pytest.mark.parametrize("case", [None, "batch2", "nonsquare"])
def test_logits_and_scores(original, outputs, case):
    case = outputs if case is None else outputs[case]
    found = original(case["inputs"])
    assert_equal(found.class_queries_logits, case["cls_pred_last"], "classes")
    assert_equal(found.masks_queries_logits, case["mask_pred_last"], "masks")
    scores = semantic_scores(
        found.class_queries_logits, found.masks_queries_logits, case["inputs"].shape[-2:]
    )
    assert_equal(scores, case["seg_logits"], "scores")


def test_label_map_of_the_post_processing(original, outputs):
    found = CrossEarthImageProcessor().post_process_semantic_segmentation(
        original(outputs["inputs"])
    )
    assert torch.equal(found[0], outputs["seg_argmax"][0].long())


def test_sliding_window_resize_and_whole_mode(original, tiny):
    slide = torch.load(tiny / "slide.pt", weights_only=True)
    scores = sliding_window_scores(original, slide["inputs"], window=64, stride=43, batch_size=4)
    assert_equal(scores, slide["logits"], "windows")
    assert torch.equal(scores.argmax(dim=1), slide["argmax"].long())
    resized = F.interpolate(
        scores, size=slide["resized_ori_shape"], mode="bilinear", align_corners=False
    )
    assert_equal(resized[0], slide["resized_logits"], "resized")
    assert torch.equal(resized.argmax(dim=1), slide["resized_argmax"].long())
    whole = original(slide["whole"]["inputs"])
    found = semantic_scores(
        whole.class_queries_logits, whole.masks_queries_logits, slide["whole"]["inputs"].shape[-2:]
    )
    assert_equal(found, slide["whole"]["logits"], "whole")


def replay(monkeypatch, draws):
    """Hands out the recorded random draws, in order, and checks that the shapes are those asked for."""
    left, original = iter(draws), torch.rand

    def rand(*shape, **_):
        if shape == ([],):  # transformers 5.20 draws for layer drop even where it is off
            return original([])
        draw = next(left)
        assert tuple(draw.shape) == shape
        return draw

    monkeypatch.setattr(torch, "rand", rand)
    return left


def padded_labels(case):
    labels = case["labels"][:, 0]
    height, width = case["inputs"].shape[-2:]
    return F.pad(labels, (0, width - labels.shape[2], 0, height - labels.shape[1]), value=255)


@pytest.mark.parametrize("case", [None, "zero_match", "padded"])
def test_losses_and_gradients_with_replayed_draws(original, train, monkeypatch, case):
    case = train if case is None else train[case]
    left = replay(monkeypatch, case["rand_draws"])
    output = original.train()(case["inputs"], labels=padded_labels(case))
    assert next(left, None) is None
    names = {"class": "cls", "mask": "mask", "dice": "dice"}
    for index in range(5):
        prefix = "decode" if index == 4 else f"decode.d{index}"
        for ours, theirs in names.items():
            expected = case["losses"][f"{prefix}.loss_{theirs}"].reshape(())
            found = output.loss_dict[f"loss_{ours}_{index}"]
            assert (found - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1), (
                index,
                ours,
            )
    assert_equal(output.loss, case["total"].reshape(()), "total")

    output.loss.backward()
    gradients = to_published(
        {name: p.grad for name, p in original.named_parameters() if p.grad is not None}
    )
    assert gradients.keys() == case["grads"].keys()
    for name, expected in case["grads"].items():
        difference = (gradients[name] - expected).abs().max()
        assert difference <= TOLERANCE * expected.abs().max() + 1e-9, name


def test_parameters_after_one_adamw_step(original, train, monkeypatch):
    replay(monkeypatch, train["rand_draws"])
    groups = param_groups(original, weight_decay=0.05)
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.999), eps=1e-8)
    original.train()(train["inputs"], labels=train["labels"][:, 0]).loss.backward()
    optimizer.step()
    trained = to_published({n: p for n, p in original.named_parameters() if p.requires_grad})
    assert trained.keys() == train["params_after_one_adamw_step"].keys()
    for name, expected in train["params_after_one_adamw_step"].items():
        # Adam's first step is lr * sign(gradient): where the gradient is rounding noise, so is its sign.
        clear = train["grads"][name].abs() > 1e-6
        assert_equal(torch.where(clear, trained[name], 0), torch.where(clear, expected, 0), name)
        assert (trained[name] - expected).abs().max() <= 2.01e-4, name


def test_optimizer_groups_of_the_published_model(shared):
    groups = json.loads((shared / "oracle" / "manifests" / "param_groups_L512.json").read_text())
    with torch.device("meta"):
        model = CrossEarthForSemanticSegmentation(CrossEarthConfig(num_labels=6))
    decay = {}
    names = {id(p): n for n, p in model.named_parameters()}
    for group in param_groups(model, weight_decay=0.05):
        for parameter in group["params"]:
            decay[names[id(parameter)]] = torch.full(
                parameter.shape, group["weight_decay"], dtype=torch.float64
            )
    found = {name: float(value.unique().item()) for name, value in to_published(decay).items()}
    assert found == {group["name"]: group["weight_decay"] for group in groups}
