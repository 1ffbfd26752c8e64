"""What a run starts from: the model that a configuration names, adapted to what is trained, and its processor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, reason_of
from ..files.documents import read_json
from ..files.downloads import CONFIG, PROCESSOR
from ..inference.loading import check_count, check_weights, load_config, load_processor, model_folder
from ..inference.memory import keep_freed_memory, return_freed_memory
from ..inference.model_fields import check_config
from ..labels import LabelSet
from ..model.configuration_crossearth import PRESETS, CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation, CrossEarthPreTrainedModel
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..progress import quiet_loaders
from .adaptation import LoraSettings, adapt, extend_channels, train_features_alone
from .baseline import FeaturePyramidSegmenter
from .config import MODEL_FIELDS, TrainConfig

MOST_PARAMETERS = 5_000_000_000
"""Of a model from scratch; our choice: four times those of the largest DINOv2, 20 GB in float32."""

_CLASSIFIERS = ("class_predictor.", "classifier.")  # of CrossEarth and of the peer


def build_model(
    config: TrainConfig, label_set: LabelSet, tell: Callable[[str], object] = print
) -> CrossEarthForSemanticSegmentation:
    """The model that `config.model` names, with the classes of `label_set`, adapted; parameters in float32.

    A model with other classes is loaded with a new classifier, one without the modules of `multitask` with new ones;
    nothing else may be missing or misshapen. One with fewer channels than `config.bands` is extended, and `tell` is
    given a line that says so.

    Raises:
        InputError: no such preset, file, folder or Hub id; weights that do not fit; more channels than bands; see
            `adapt`.
    """
    labels = {"id2label": label_set.id2label, "label2id": label_set.label2id}
    peer = _is_peer(config)
    if config.hides_blocks:
        model_class = CrossEarthForMultiTaskTraining
    else:
        model_class = CrossEarthForSemanticSegmentation
    if _from_scratch(config):
        model = _new(config, model_class, labels)
    else:
        model = _pretrained(config, FeaturePyramidSegmenter if peer else model_class, labels)
    _fit_bands(model, config, tell)
    if peer:
        model.requires_grad_(True)
    else:
        adapt(model, config.adaptation, lora_settings(config))
    if config.objective == "reconstruct":
        train_features_alone(model)
    _set_fields(model, config)
    if config.frozen_dtype == "bfloat16":
        _round_frozen_layers(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        for module in (model.base_model, model):
            module.register_forward_hook(lambda *unused: return_freed_memory())
    else:
        keep_freed_memory()
    return model


def build_processor(config: TrainConfig) -> CrossEarthImageProcessor:
    """The image processor saved beside the model that `config` starts from; the default one if there is none.

    One of fewer channels than `config.bands` is extended.
    """
    processor = CrossEarthImageProcessor()
    if not _from_scratch(config):
        folder = model_folder(config.model)
        if (folder / PROCESSOR).exists():
            processor = load_processor(folder)
    processor.extend_channels(config.num_channels)
    return processor


def lora_settings(config: TrainConfig) -> LoraSettings:
    """The fields of `config` that are LoRA's."""
    return LoraSettings(config.lora_rank, config.lora_alpha, config.lora_dropout, tuple(config.lora_targets))


def _from_scratch(config: TrainConfig) -> bool:
    """Whether `config.model` names a configuration, not weights."""
    return config.model in PRESETS or config.model.endswith(".json")


def _is_peer(config: TrainConfig) -> bool:
    """Whether `config.model` is the folder of a convolutional peer; `InputError` for a run that it cannot make."""
    path = Path(config.model) / CONFIG
    if not path.is_file():  # no folder, or one that loading will complain about
        return False
    if FeaturePyramidSegmenter.__name__ not in (read_json(path, "save the model again").get("architectures") or []):
        return False
    if (config.objective, config.adaptation) != ("segmentation", "full"):
        raise InputError(
            f"'{config.model}' is the convolutional peer, which knows no objective '{config.objective}' with "
            f"adaptation '{config.adaptation}'; train it with objective 'segmentation' and adaptation 'full'"
        )
    if config.gradient_checkpointing:
        raise InputError(f"'{config.model}' is the convolutional peer: leave gradient_checkpointing out, it has none")
    return True


def _new(
    config: TrainConfig, model_class: type[CrossEarthForSemanticSegmentation], labels: dict[str, Any]
) -> CrossEarthForSemanticSegmentation:
    """A model with random weights, from a preset or a .json file."""
    if "lora" in config.adaptation:
        raise InputError(
            f"adaptation '{config.adaptation}' adapts trained weights and '{config.model}' has none; set model to the "
            "folder or Hub id of a trained model"
        )
    fields = labels | ({"num_channels": config.num_channels} if config.num_channels > 3 else {})
    try:
        if config.model in PRESETS:
            return model_class(CrossEarthConfig.from_preset(config.model, **fields))
        values = read_json(config.model, "give a CrossEarth configuration")
        check_config(values, config.model)
        network = CrossEarthConfig(**(values | fields))
        _check_size(network, config.model)
        return model_class(network)
    except InputError:
        raise
    except Exception as error:  # whatever the fields of a stranger's file make transformers raise
        raise InputError(
            f"{config.model} is no CrossEarth configuration ({reason_of(error)}); correct the file"
        ) from error


def _check_size(config: CrossEarthConfig, path: str) -> None:
    """Raises `InputError` for a network that no machine trains, before it takes all memory."""
    with torch.device("meta"):
        numbers = sum(parameter.numel() for parameter in CrossEarthForSemanticSegmentation(config).parameters())
    if numbers > MOST_PARAMETERS:
        raise InputError(f"{path} describes a network of {numbers} numbers, at most {MOST_PARAMETERS} are; correct it")


def _fit_bands(model: CrossEarthPreTrainedModel, config: TrainConfig, tell: Callable[[str], object]) -> None:
    """Extends a model of fewer channels than `config.bands`, and says so; `InputError` for one of more."""
    channels, wanted = model.config.num_channels, config.num_channels
    if channels > wanted:
        raise InputError(
            f"'{config.model}' takes {channels} channels; give bands as many numbers, in the order in which it learned "
            f"them, such as {' '.join(map(str, range(1, channels + 1)))}"
        )
    if channels < wanted:
        extend_channels(model, wanted)
        tell(f"'{config.model}' is extended from {channels} to {wanted} channels")


def _set_fields(model: CrossEarthPreTrainedModel, config: TrainConfig) -> None:
    """Writes what `config` says of the model itself; `InputError` for hidden blocks larger than the crops."""
    for name in MODEL_FIELDS:
        value = getattr(config, name)
        if value is not None:
            setattr(model.config, name, value)
    crop, block = config.crop_size or model.config.image_size, model.config.mim_block_size
    if config.mim_block_size and block > crop:
        raise InputError(f"mim_block_size is {block}; it must not exceed the crop's {crop} pixels")


def _pretrained(config: TrainConfig, model_class: type[Any], labels: dict[str, Any]) -> Any:
    """A saved model in float32, its classifier made anew where the classes differ."""
    try:
        folder = model_folder(config.model)
    except InputError as error:
        raise InputError(f"'{config.model}' is not a preset ({', '.join(PRESETS)}), and {error}") from error
    if model_class is not FeaturePyramidSegmenter:
        check_count(load_config(folder), folder)
    try:
        with quiet_loaders():  # its report of keys would alarm: what may be missing is decided below
            model, info = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                use_safetensors=True,
                **labels,
            )
    except Exception as error:  # a damaged folder makes its readers fail in any way
        raise InputError(
            f"'{config.model}' cannot be loaded: {reason_of(error)}; save or convert the model again"
        ) from error
    misshapen = {str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]}
    missing = {str(key) for key in info["missing_keys"] if not key.startswith("multitask.")}
    wrong = sorted({key for key in misshapen if not key.startswith(_CLASSIFIERS)} | missing)
    if wrong:
        raise InputError(
            f"the weights of '{config.model}' do not fit its config at {wrong[:3]}; repair or convert it again"
        )
    check_weights(model.state_dict(), f"'{config.model}'", "save or convert it again, or start from another model")
    return model


def _round_frozen_layers(model: nn.Module) -> None:
    """Frozen products to bfloat16; norms and single vectors stay, which autocast computes in float32."""
    for layer in model.modules():
        parameters = list(layer.parameters())
        if isinstance(layer, nn.Linear | nn.Conv2d) and not any(weight.requires_grad for weight in parameters):
            layer.to(torch.bfloat16)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype != torch.bfloat16:
            tensor.data = tensor.data.clone()  # the last that would keep the file of weights mapped into memory
