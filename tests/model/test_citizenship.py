"""What whoever knows transformers, accelerate and PyTorch does with any model, done with this one."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from accelerate import cpu_offload, disk_offload, init_empty_weights, load_checkpoint_and_dispatch
from PIL import Image
from tiny_model import FAMILIES, tiny_config
from torch import nn

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)
from crossearth_hf.model.loss_crossearth import label_maps
from crossearth_hf.model.modeling_head import CrossEarthCrossAttention
from crossearth_hf.model.modeling_multitask import CrossEarthForMultiTaskTraining


def built(model_class=CrossEarthForSemanticSegmentation, **fields):
    torch.manual_seed(0)
    return model_class(tiny_config(**fields)).eval()


def pixels(seed=1, batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def labels():
    return torch.randint(0, 6, (2, 64, 64), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", [(2, 10, 16, 32, 4), (1, 100, 1024, 256, 8)])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_gives_pytorchs_numbers_to_the_bit(shape, masked):
    batch, queries, positions, width, heads = shape
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(width, heads)
    nn.init.normal_(attention.in_proj_bias)
    inputs = [torch.randn(count, batch, width) for count in (queries, positions, positions)]
    mask = torch.rand(batch * heads, queries, positions) < 0.5 if masked else None
    expected = attention(*inputs, attn_mask=mask)
    attention.__class__ = CrossEarthCrossAttention
    assert all(map(torch.equal, attention(*inputs, attn_mask=mask), expected))


@pytest.mark.parametrize("fields", FAMILIES)
def test_offloaded_models_give_the_same(fields, tmp_path):
    model = built(**fields)
    with torch.no_grad():
        expected = model(pixels()).logits
        on_cpu = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert next(on_cpu.parameters()).device.type == "meta"
        assert torch.equal(on_cpu(pixels()).logits, expected)
        on_disk = disk_offload(
            copy.deepcopy(model), str(tmp_path), execution_device=torch.device("cpu")
        )
        assert torch.equal(on_disk(pixels()).logits, expected)


@pytest.mark.parametrize("fields", FAMILIES[::3])
def test_offloaded_multi_task_training_gives_the_same(fields):
    model = built(CrossEarthForMultiTaskTraining, **fields)
    nn.init.normal_(model.multitask.mask_token)
    clean, styled, seeds = pixels(4), torch.tensor([True, False]), torch.tensor([1, 2])
    with torch.no_grad():
        expected = model(pixels(), labels(), seeds, clean, styled)
        offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
        assert next(offloaded.multitask.parameters()).device.type == "meta"
        found = offloaded(pixels(), labels(), seeds, clean, styled)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.styled_reconstruction, expected.styled_reconstruction)


def test_half_weights_are_dispatched(tmp_path):
    model = built().half()
    model.save_pretrained(tmp_path)
    with init_empty_weights():
        empty = CrossEarthForSemanticSegmentation(CrossEarthConfig.from_pretrained(tmp_path))
    loaded = load_checkpoint_and_dispatch(empty, str(tmp_path), device_map={"": "cpu"}).eval()
    with torch.no_grad():
        assert torch.equal(loaded(pixels()).logits, model.float()(pixels()).logits)


@pytest.mark.parametrize("fields", FAMILIES)
@pytest.mark.parametrize(
    "model_class", [CrossEarthForSemanticSegmentation, CrossEarthForMultiTaskTraining]
)
def test_checkpointing_of_either_kind_gives_the_gradients(fields, model_class):
    gradients = []
    for options in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        model = built(model_class, freeze_backbone=False, **fields).train()
        if options is not None:
            enable = (
                getattr(model, "activation_checkpointing_enable", None)
                or model.gradient_checkpointing_enable
            )
            enable(options)
        torch.manual_seed(3)
        model(pixels().requires_grad_(), labels(), seeds=torch.tensor([1, 2])).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_attention_weights():
    model = CrossEarthForSemanticSegmentation._from_config(
        tiny_config(), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        outputs = model(pixels(), output_attentions=True)
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(2, 4, 17, 17)] * 4
    torch.testing.assert_close(outputs.attentions[2].sum(-1), torch.ones(2, 4, 17))
    assert model(pixels()).attentions is None
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        built()(pixels(), output_attentions=True)


def test_hidden_states_of_multi_task_training():
    model = built(CrossEarthForMultiTaskTraining)
    outputs = model(pixels(), output_hidden_states=True, seeds=torch.tensor([1, 2]))
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(2, 17, 64)] * 5
    assert model(pixels(), seeds=torch.tensor([1, 2])).hidden_states is None


def test_labels_of_any_integer_type():
    model, given = built(), labels()
    given[0, :9] = 255
    seeds = torch.tensor([1, 2])
    expected = model(pixels(), given, seeds=seeds).loss
    for other in (
        given.to(torch.uint8),
        given.int(),
        given[:, None],
        given.masked_fill(given == 255, -100),
    ):
        assert torch.equal(model(pixels(), other, seeds=seeds).loss, expected)
    classes = [ids.unique()[ids.unique() != 255] for ids in given]
    masks = [
        (ids == present[:, None, None]).float() for ids, present in zip(given, classes, strict=True)
    ]
    as_mask2former = model(pixels(), mask_labels=masks, class_labels=classes, seeds=seeds).loss
    assert torch.equal(as_mask2former, expected)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((torch.zeros(1, 4, 4), None, None), "torch.float32"),
        ((torch.zeros(4, 4).long(), None, None), r"\(4, 4\)"),
        ((None, [torch.ones(1, 4, 4)], None), "in part"),
        ((torch.zeros(1, 4, 4).long(), [torch.ones(1, 4, 4)], [torch.tensor([0])]), "given twice"),
    ],
)
def test_labels_that_are_none(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        label_maps(*given, 255)


def test_unknown_keywords_are_refused_as_by_any_function():
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        built()(pixels(), label=labels())


def test_float32_pixels_into_half_precision():
    for fields in FAMILIES[3:5]:
        model = built(**fields).bfloat16()
        with torch.no_grad():
            assert torch.isfinite(model(pixels()).logits).all()


def test_the_config_names_the_type_that_loses_nothing(tmp_path):
    mixed = built()
    mixed.model.backbone.to(torch.bfloat16)
    for model, expected in ((built().half(), "float16"), (mixed, "float32")):
        model.save_pretrained(tmp_path / expected)
        assert json.loads((tmp_path / expected / "config.json").read_text())["dtype"] == expected
        loaded = CrossEarthForSemanticSegmentation.from_pretrained(tmp_path / expected)
        for name, parameter in model.named_parameters():
            assert torch.equal(loaded.get_parameter(name).float(), parameter.float())


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantization_replaces_linear_layers():
    model = built()
    with torch.no_grad():
        expected = model(pixels()).logits
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        found = quantized(pixels()).logits
    kinds = {
        type(module)
        for name, module in quantized.named_modules()
        if "backbone.layer" in name and "fc1" in name
    }
    assert torch.ao.nn.quantized.dynamic.Linear in kinds
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()
    with torch.no_grad():
        assert torch.equal(model(pixels()).logits, expected), "the model itself stays"


def test_pipelines_ask_nothing_and_complain_of_nothing(tmp_path, monkeypatch, caplog):
    built().save_pretrained(tmp_path)
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("a question on the console"))
    monkeypatch.setattr(transformers.utils.logging.get_logger("transformers"), "propagate", True)
    pipe = transformers.pipeline("image-segmentation", model=str(tmp_path))
    assert "not supported" not in caplog.text
    (first, *_) = pipe(Image.fromarray(np.zeros((64, 64, 3), np.uint8)))
    assert first["mask"].size == (64, 64)


def test_trainer_gathers_scores_alone(tmp_path):
    class Crops(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"pixel_values": pixels()[index], "labels": labels()[index]}

    arguments = transformers.TrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True
    )
    result = transformers.Trainer(built(), arguments, eval_dataset=Crops()).predict(Crops())
    assert result.predictions.shape == (2, 6, 16, 16)
    assert result.metrics["test_loss"] > 0, "labels are found"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"rein_num_token": 3}, "no field 'rein_num_token'; did you mean 'rein_num_tokens'"),
        ({"rein_scale": "x"}, "rein_scale 'x' must be a finite number"),
        ({"link_queries": "yes"}, "link_queries 'yes' must be True or False"),
        ({"mim_weight": True}, "mim_weight True must be"),
        ({"semantic_weight": -1}, "semantic_weight -1 must be a finite number, 0 or more"),
        ({"out_indices": (0, 1, 2.0, 3)}, "out_indices .* must be whole numbers"),
    ],
)
def test_fields_are_checked(fields, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        tiny_config(**fields)


def test_validation_of_changed_fields(tmp_path):
    config = tiny_config()
    config.image_size = 128
    assert config.backbone_config.image_size == 128
    with pytest.raises(ValueError, match="image_size 100 is not a multiple of 16"):
        config.image_size = 100
    config.rein_scale = "a"
    with pytest.raises(ValueError, match="rein_scale 'a'"):
        config.validate()
    config.note = "a field of somebody's own"  # which transformers allows
    config.rein_scale = 0.5
    config.validate()


def test_scores_beside_maps():
    outputs = built()(pixels())
    processor = CrossEarthImageProcessor()
    maps = processor.post_process_semantic_segmentation(outputs, target_sizes=[(60, 50), (64, 64)])
    both = processor.post_process_semantic_segmentation(
        outputs, [(60, 50), (64, 64)], return_segmentation_scores=True
    )
    for ids, each in zip(maps, both, strict=True):
        assert torch.equal(each.segmentation, ids)
        assert each.segmentation_scores.shape == (6, *ids.shape)
        assert torch.equal(each.segmentation_scores.argmax(0), ids)
