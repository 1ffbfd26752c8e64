"""Who is trained under each adaptation, and LoRA against peft's own merge and loading."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from tiny_model import tiny_config

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation
from crossearth_hf.errors import InputError
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining
from crossearth_hf.training.adaptation import (
    LoraSettings,
    adapt,
    describe_trainable,
    extend_channels,
    lora_tensors,
    merged,
    save_adapter,
    train_features_alone,
)
from crossearth_hf.training.config import ADAPTATIONS, LORA_INITS

peft = pytest.importorskip("peft")

# (1, 64, 64)
BLOCKS = (torch.arange(16).view(4, 4) % 6).repeat_interleave(16, 0).repeat_interleave(16, 1)[None]


def build(adaptation, model_class=CrossEarthForSemanticSegmentation, lora=None, **config):
    torch.manual_seed(0)
    model = model_class(
        tiny_config(decoder_layers=2, encoder_layers=1, mim_block_size=16, **config)
    )
    adapt(model, adaptation, lora)
    return model


def images(batch=1):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def plain_vit(model, pixel_values):
    hidden = model.model.backbone.embeddings(pixel_values)
    for layer in model.model.backbone.layer:
        hidden = layer(hidden)
    return hidden


@pytest.mark.parametrize("link", [True, False])
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_exactly_what_is_used_is_trained(adaptation, link):
    model = build(adaptation, link_queries=link)
    model(images(), labels=BLOCKS).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    vit = {name for name in trained if name.startswith("model.backbone.")}
    assert bool({name for name in vit if ".lora_" in name}) == ("lora" in adaptation)
    assert bool({name for name in vit if ".lora_" not in name}) == ("full" in adaptation)
    assert ("model.adapter.delta_f.weight" in trained) == ("rein" in adaptation)
    assert ("model.adapter.tokens_a" in trained) == (link or "rein" in adaptation)
    assert "class_predictor.weight" in trained


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_without_rein_the_features_are_those_of_the_vit(adaptation):
    model = build(adaptation).eval()
    difference = (model.model(images()).last_hidden_state - plain_vit(model, images())).abs().max()
    assert (difference > 1e-5) == ("rein" in adaptation)
    assert model.config.rein_refines_features == ("rein" in adaptation)
    assert model.config.freeze_backbone == ("full" not in adaptation)


@pytest.mark.parametrize("adaptation", ADAPTATIONS[1:])
def test_reconstruction_alone_uses_all_that_it_trains(adaptation):
    model = build(adaptation, CrossEarthForMultiTaskTraining)
    train_features_alone(model)
    model(images()).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert model.multitask.mask_token.requires_grad


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_checkpointed_layers_give_the_same_gradients(adaptation):
    model = build(adaptation)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        model(images(), labels=BLOCKS, seeds=torch.tensor([1])).loss.backward()
        gradients.append(
            {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_lora_is_in_the_vit_alone_and_counted_by_hand():
    model = build("lora", lora=LoraSettings(rank=2))
    adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    expected = {
        f"model.backbone.layer.{i}.attention.{part}"
        for i in range(4)
        for part in ("q_proj", "v_proj")
    }
    assert adapted == expected
    count = sum(p.numel() for name, p in model.named_parameters() if ".lora_" in name)
    assert count == 4 * 2 * 2 * (64 + 64)  # blocks, layers, rank, inputs and outputs


def test_the_line_that_says_what_is_trained():
    network = torch.nn.Sequential(torch.nn.Linear(9, 100), torch.nn.Linear(99, 10))
    network[0].requires_grad_(False)
    assert (
        describe_trainable(network, "frozen")
        == "adaptation 'frozen' trains 1,000 of 2,000 parameters (50.00%)"
    )


@pytest.mark.parametrize(
    ("targets", "named"), [(("q_proj", "query"), "query"), (("lora",), "lora"), ((), r"\[\]")]
)
def test_targets_that_match_nothing_are_refused(targets, named):
    with pytest.raises(
        InputError, match=rf"lora_targets .*{named}.* match no linear layer.*fc1, fc2.*choose"
    ):
        build("lora", lora=LoraSettings(targets=targets))


def test_an_unknown_adaptation_is_refused():
    with pytest.raises(
        InputError, match=r"adaptation is 'lora\+full'; it must be one of frozen, rein"
    ):
        build("lora+full")


def test_without_peft_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r'pip install "crossearth-hf\[train\]"'):
        build("lora")
    build("rein")


@pytest.fixture
def trained():
    """A model whose LoRA factors, adapters and head are no longer those it started from, and its base."""
    model = build(
        "rein+lora", lora=LoraSettings(rank=3, alpha=7, targets=("q_proj", "v_proj", "fc1"))
    )
    base = {
        name.replace(".base_layer.", "."): value.clone()
        for name, value in model.state_dict().items()
    }
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return model.eval(), {name: value for name, value in base.items() if ".lora_" not in name}


LORA = LoraSettings(rank=3, alpha=7, targets=("q_proj", "v_proj", "fc1"))


def logits(model):
    return logits_of(model, images())


def logits_of(model, pixel_values):
    output = model(pixel_values)
    return torch.cat([output.class_queries_logits.flatten(), output.masks_queries_logits.flatten()])


def test_merged_weights_load_without_peft_and_give_the_same_logits(trained):
    model, _ = trained
    plain = CrossEarthForSemanticSegmentation(model.config).eval()
    weights = merged(model.state_dict(), LORA)
    plain.load_state_dict(weights)
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-4)
    layer = model.model.backbone.layer[2].mlp.fc1
    layer.merge()
    assert torch.equal(weights["model.backbone.layer.2.mlp.fc1.weight"], layer.base_layer.weight)


@pytest.mark.parametrize("init", [init for init in LORA_INITS if init != "default"])
def test_other_starts_of_lora_change_nothing_and_merge_exactly(init, tmp_path):
    lora = LoraSettings(rank=4, alpha=6, init=init)
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config()).eval()
    model.config.rein_refines_features = True
    model.save_pretrained(tmp_path / "base")
    before = logits(model)
    adapt(model, "rein+lora", lora)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    start = lora_tensors(model.state_dict())
    frozen = {
        name for name, p in model.named_parameters() if ".lora_" in name and not p.requires_grad
    }
    assert all(".lora_B." in name for name in frozen)
    assert bool(frozen) == (init == "mica")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    plain = CrossEarthForSemanticSegmentation(model.config).eval()
    plain.load_state_dict(merged(model.state_dict(), lora))
    torch.testing.assert_close(logits(plain), logits(model), rtol=1e-4, atol=1e-4)
    (tmp_path / "adapter").mkdir()
    save_adapter(
        tmp_path / "adapter", model, model.state_dict(), lora, str(tmp_path / "base"), start
    )
    base = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(loaded), logits(plain), rtol=1e-4, atol=1e-4)


def test_the_adapter_alone_goes_onto_its_base_through_peft(trained, tmp_path):
    model, base_weights = trained
    base = CrossEarthForSemanticSegmentation(model.config)
    base.load_state_dict(base_weights)
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", model, model.state_dict(), LORA, str(tmp_path / "base"), {})
    described = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert described["base_model_name_or_path"] == str(tmp_path / "base")
    assert described["modules_to_save"][0] == "model.adapter"

    config = CrossEarthConfig.from_pretrained(tmp_path / "adapter")
    fresh = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / "base", config=config)
    loaded = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
    expected = CrossEarthForSemanticSegmentation(model.config).eval()
    expected.load_state_dict(merged(model.state_dict(), LORA))
    torch.testing.assert_close(logits(loaded), logits(expected), rtol=1e-4, atol=1e-4)
    assert (logits(base.eval()) - logits(expected)).abs().max() > 1e-2
    merged_by_peft = loaded.merge_and_unload().state_dict()
    assert all(
        torch.equal(value, merged_by_peft[name]) for name, value in expected.state_dict().items()
    )


# --- further channels -----------------------------------------------------------------------------------------------


def extended(channels=4, model_class=CrossEarthForSemanticSegmentation, **config):
    """A model of three channels, and the same extended."""
    torch.manual_seed(0)
    plain = model_class(
        tiny_config(decoder_layers=2, encoder_layers=1, mim_block_size=16, **config)
    ).eval()
    model = copy.deepcopy(plain)
    extend_channels(model, channels)
    return plain, model


def test_the_extended_kernel_by_hand():
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config())
    kernel = model.model.backbone.embeddings.patch_embeddings.projection
    with torch.no_grad():
        kernel.weight.copy_(
            torch.tensor([1.0, 2.0, 6.0])[None, :, None, None].expand(64, 3, 16, 16)
        )
    bias = kernel.bias.clone()
    extend_channels(model, 4)
    expected = torch.tensor([0.75, 1.5, 4.5, 2.25])  # three quarters of 1, 2, 6 and their mean 3
    assert torch.equal(kernel.weight, expected[None, :, None, None].expand(64, 4, 16, 16))
    assert torch.equal(kernel.bias, bias)
    patch = torch.tensor([10.0, 20.0, 30.0, 20.0])[None, :, None, None].expand(1, 4, 16, 16)
    found = kernel(patch) - bias[None, :, None, None]
    assert found.unique().tolist() == [256 * (7.5 + 30 + 135 + 45)]  # of RGB alone it was 256 * 230
    assert model.config.num_channels == 4


@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("channels", [4, 7])
def test_an_extended_model_answers_as_before_where_further_bands_are_the_mean_of_the_others(
    stem, channels
):
    plain, model = extended(channels, convolutional_stem=stem)
    gray = images(2)[:, :1].expand(-1, channels, -1, -1)
    torch.testing.assert_close(
        logits_of(model, gray), logits_of(plain, gray[:, :3]), rtol=1e-3, atol=1e-4
    )
    twice = copy.deepcopy(plain)
    for number in range(4, channels + 1):
        extend_channels(twice, number)  # one by one comes to the same
    torch.testing.assert_close(twice.state_dict(), model.state_dict())
    for wrong, right in ((plain, 3), (model, channels)):
        with pytest.raises(
            ValueError, match=rf"have {channels + 1} channels and the model takes {right}; choose"
        ):
            wrong(torch.zeros(1, channels + 1, 64, 64))


def test_what_has_the_channels_is_left_alone_and_fewer_are_refused():
    plain, model = extended(3)
    assert all(
        torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items()
    )
    _, model = extended(5)
    with pytest.raises(
        InputError, match="the model takes 5 channels and cannot do with 4; give 5 or more"
    ):
        extend_channels(model, 4)


def test_multi_task_training_rebuilds_a_further_channel_as_the_mean_of_the_others():
    plain, model = extended(4, CrossEarthForMultiTaskTraining)
    with torch.no_grad():
        plain.multitask.mask_token.normal_()
        plain.multitask.reconstruction.pixels.bias.normal_()
    model = copy.deepcopy(plain)
    extend_channels(model, 4)
    token = model.multitask.mask_token
    torch.testing.assert_close(token[3], token[:3].mean(dim=0))
    assert torch.equal(token[:3], plain.multitask.mask_token)
    gray = images(2)[:, :1]
    visible = torch.ones(2, 64, 64, dtype=torch.bool)
    before = plain(gray.expand(-1, 3, -1, -1), visible=visible).reconstruction
    after = model(gray.expand(-1, 4, -1, -1), visible=visible).reconstruction
    torch.testing.assert_close(after[:, :3], before, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after[:, 3], before.mean(dim=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_the_kernels_of_further_channels_are_trained_whatever_the_adaptation(adaptation):
    for stem in (False, True):
        _, model = extended(convolutional_stem=stem)
        adapt(model, adaptation)
        model(torch.randn(1, 4, 64, 64), labels=BLOCKS).loss.backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
        assert model.input_convolutions[0].weight.grad[:, 3].abs().max() > 0
        vit = {
            name
            for name, p in model.model.backbone.named_parameters()
            if p.requires_grad and ".lora_" not in name
        }
        kernel = {"stem.first" if stem else "embeddings.patch_embeddings.projection"}
        assert ({name.rpartition(".")[0] for name in vit} == kernel) == ("full" not in adaptation)


def test_an_extended_model_survives_a_folder(tmp_path):
    _, model = extended(convolutional_stem=True)
    model.save_pretrained(tmp_path)
    loaded = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.num_channels == 4
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items()
    )
    trained = {name for name, p in loaded.model.backbone.named_parameters() if p.requires_grad}
    assert trained == {"stem.first.weight", "stem.first.bias"}


def test_an_adapter_takes_the_kernels_of_further_channels_along(tmp_path):
    plain, model = extended(freeze_backbone=True)
    plain.save_pretrained(tmp_path / "base")
    adapt(model, "rein+lora", LORA)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    (tmp_path / "adapter").mkdir()
    save_adapter(tmp_path / "adapter", model, model.state_dict(), LORA, str(tmp_path / "base"), {})
    config = CrossEarthConfig.from_pretrained(tmp_path / "adapter")
    base = CrossEarthForSemanticSegmentation.from_pretrained(
        tmp_path / "base", config=config, ignore_mismatched_sizes=True
    )
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    image = torch.randn(1, 4, 64, 64)
    torch.testing.assert_close(
        logits_of(loaded, image), logits_of(model, image), rtol=1e-4, atol=1e-4
    )


def test_a_model_is_extended_without_the_extra_train():
    code = "import sys; sys.modules['accelerate'] = None; from crossearth_hf.training.adaptation import extend_channels"
    subprocess.run([sys.executable, "-c", code], check=True)
