"""What a model folder's JSON files may hold: one sentence that names file, field, value and rule."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import load_config, load_model

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(tmp_path)
    CrossEarthImageProcessor().save_pretrained(tmp_path)
    return tmp_path


def change(path, fields):
    """Writes fields into a JSON file; objects are merged into those that are there."""
    values = json.loads(path.read_text())
    for name, value in fields.items():
        values[name] = (
            values[name] | value if name == "backbone_config" and isinstance(value, dict) else value
        )
    path.write_text(json.dumps(values))


def refusal(folder):
    with pytest.raises(InputError) as raised:
        load_model(folder, device="cpu")
    return str(raised.value)


WRONG_CONFIG = [
    ({"backbone_config": "x"}, "backbone_config 'x', which must be an object in braces or null"),
    ({"backbone_config": {"model_type": "swin"}}, "backbone_config.model_type 'swin', which must be dinov2 or dinov2_"),
    ({"backbone_config": {"layer_norm_eps": "x"}}, "backbone_config.layer_norm_eps 'x', which must be a finite number"),
    ({"backbone_config": {"hidden_act": "x"}}, "backbone_config.hidden_act 'x', which must be a function that"),
    ({"backbone_config": {"hidden_dropout_prob": 2}}, "backbone_config.hidden_dropout_prob 2, which must be a number"),
    ({"backbone_config": {"out_features": 5}}, "backbone_config.out_features 5, which must be a list or null"),
    ({"id2label": "x"}, "id2label 'x', which must be an object in braces or null"),
    ({"id2label": ["a", "b"]}, r"id2label \['a', 'b'\], which must be an object in braces or null"),
    ({"id2label": {"0": "a", "1": 2}}, "id2label .* which must be the names of the classes by their ids from 0"),
    ({"id2label": {"0": "a", "5": "b"}}, "id2label .* which must be the names of the classes by their ids from 0"),
    ({"id2label": {"a": "0"}}, "id2label .* which must be the names of the classes by their ids from 0"),
    ({"label2id": {"a": "0"}}, "label2id .* which must be the ids of the classes by their names"),
    ({"hidden_dim": math.nan}, "hidden_dim nan, which must be a whole number"),
    ({"hidden_dim": math.inf}, "hidden_dim inf, which must be a whole number"),
    ({"hidden_dim": "32"}, "hidden_dim '32', which must be a whole number"),
    ({"rein_scale": math.nan}, "rein_scale nan, which must be a finite number"),
    ({"class_weight": 2}, r"class_weight 2, which must be written with a decimal point: 2\.0"),
    ({"link_queries": 1}, "link_queries 1, which must be true or false"),
    ({"feature_strides": [4, "8", 16, 32]}, "feature_strides .*, which must be a list"),
    ({"auto_map": "x"}, "auto_map 'x', which must be an object in braces"),
    ({"dtype": "float99"}, "dtype 'float99', which must be one of float32, bfloat16, float16, float64"),
    ({"torch_dtype": 5}, "torch_dtype 5, which must be one of float32"),
    ({"quantization_config": {"load_in_4bit": True}}, r"quantization_config \{'load_in_4bit': True\}, and quantized"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), WRONG_CONFIG)
def test_a_wrong_field_of_the_configuration_is_named_with_its_rule(folder, fields, message):
    change(folder / CONFIG, fields)
    with pytest.raises(InputError, match=rf"{CONFIG} has {message}"):
        load_config(folder)


WRONG_PROCESSOR = [
    ({"image_std": "x"}, "image_std 'x', which must be a finite number or a list or null"),
    ({"image_std": [0, 0, 0]}, r"image_std \[0, 0, 0\], which must be above 0"),
    ({"image_std": ["a", "b", "c"]}, r"image_std \['a', 'b', 'c'\], which must be"),
    ({"image_mean": [1]}, r"image_mean \[1\] and image_std .*, which must have the same length"),
    ({"image_mean": [math.nan, 1, 1]}, r"image_mean \[nan, 1, 1\], which must be"),
    (
        {"image_mean": None},
        "image_mean None, which must be a list of numbers, one for each channel",
    ),
    ({"rescale_factor": "x"}, "rescale_factor 'x', which must be a finite number"),
    ({"size_divisor": "x"}, "size_divisor 'x', which must be a whole number"),
    ({"style_alpha": [1]}, r"style_alpha \[1\], which must be a finite number"),
    ({"do_normalize": "false"}, "do_normalize 'false', which must be true or false"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG_PROCESSOR)
def test_a_wrong_setting_of_the_image_processor_is_named_with_its_rule(folder, fields, message):
    change(folder / PROCESSOR, fields)
    with pytest.raises(InputError, match=rf"{PROCESSOR} has {message}"):
        load_model(folder, device="cpu")


def test_whole_numbers_stand_for_fractions_where_that_is_usual(folder):
    change(folder / CONFIG, {"mim_weight": 1, "dropout": 0, "ground_sampling_distance": 2})
    change(folder / PROCESSOR, {"image_mean": [0, 0, 0], "rescale_factor": 1})
    model, processor = load_model(folder, device="cpu")
    assert model.config.mim_weight == 1
    assert processor.rescale_factor == 1


def test_absurdly_many_channels_are_the_configurations_fault(folder):
    change(folder / CONFIG, {"backbone_config": {"num_channels": 10**8}})
    with pytest.raises(
        InputError, match=rf"{CONFIG} .*num_channels 100000000 must be at most 1024"
    ):
        load_config(folder)


def test_weights_of_another_number_of_classes(folder):
    change(folder / CONFIG, {"id2label": {"0": "a"}, "label2id": {"a": 0}})
    assert (
        "in other shapes than its configuration gives 2 tensors, such as 'class_predictor.bias'"
        in refusal(folder)
    )


@pytest.mark.parametrize("name", ["", "class_predictor.weight"])
def test_weights_of_zeros_alone_would_map_one_class(folder, name):
    weights = load_file(folder / WEIGHTS)
    zeros = {
        key: torch.zeros_like(tensor) for key, tensor in weights.items() if key.startswith(name)
    }
    save_file(weights | zeros, folder / WEIGHTS, {"format": "pt"})
    assert (
        f"are all zeros in {name or 'all tensors'}, so every map would have one class"
        in refusal(folder)
    )
