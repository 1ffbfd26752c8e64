"""The start of a run: the model that a configuration names, prepared for training, and its processor."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..conversion.backbones import processor_for, read_backbone
from ..errors import InputError, reason_of
from ..files.documents import read_json
from ..files.downloads import CONFIG, PROCESSOR
from ..inference.loading import (
    check_count,
    check_weights,
    load_config,
    load_processor,
    model_folder,
)
from ..inference.memory import keep_freed_memory, return_freed_memory
from ..inference.model_copy import NO_READ_OUT
from ..inference.model_fields import check_config
from ..labels import LabelSet, config_fields, label_set_for, label_set_of
from ..model.configuration_crossearth import PRESETS, CrossEarthConfig
from ..model.cpu_kernels import SHORT_ATTENTION
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.modeling_multitask import CrossEarthForMultiTaskTraining
from ..model.modeling_pretrained import CrossEarthPreTrainedModel
from ..progress import quiet_loaders
from .adaptation import LoraSettings, adapt, extend_channels, train_features_alone
from .baseline import FeaturePyramidSegmenter
from .class_head import CLASSIFIERS, are_numbers, fit_class_head
from .config import MODEL_FIELDS, TrainConfig

MOST_PARAMETERS = 5_000_000_000
"""Limit for a model from scratch; our choice: four times the largest DINOv2, 20 GB in float32."""

_CLASSIFIERS = tuple(f"{name}." for name in CLASSIFIERS)


def build_model(
    config: TrainConfig, label_set: LabelSet, tell: Callable[[str], object] = print
) -> CrossEarthForSemanticSegmentation:
    """The model that `config.model` names, with the classes of `label_set`, ready for training, in float32.

    A model with other classes gets a new class head (`class_head.fit_class_head`), and a model without the modules of
    `multitask` gets new ones; all other weights must be there and fit. A model with fewer channels than `config.bands`
    gets more. `tell` takes a line about a new head and one about new channels.

    Raises:
        InputError: The preset, file, folder or Hub id does not exist, the weights do not fit, the model has more
            channels than the run has bands, or `adapt` raises it.
    """
    # a calibration belongs to the scores before training
    labels = config_fields(label_set) | NO_READ_OUT
    peer = _is_peer(config)
    model_class: type[Any] = CrossEarthForSemanticSegmentation
    if config.hides_blocks:
        model_class = CrossEarthForMultiTaskTraining
    if config.from_scratch:
        model = _new(config, model_class, labels)
    else:
        if peer:
            model_class = FeaturePyramidSegmenter
        model = _pretrained(config, model_class, labels)
        fit_class_head(model, _folder(config), config.model, label_set, tell)
    _fit_bands(model, config, tell)
    if peer:
        model.requires_grad_(True)
    else:
        adapt(model, config.adaptation, lora_settings(config))
    if config.objective == "reconstruct":
        train_features_alone(model)
    _set_fields(model, config)
    model.config.backbone_config._attn_implementation = SHORT_ATTENTION
    if config.frozen_dtype == "bfloat16":
        _round_frozen_layers(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        for module in (model.base_model, model):
            module.register_forward_hook(lambda *unused: return_freed_memory())
    else:
        keep_freed_memory()
    return model


def named_classes(config: TrainConfig) -> LabelSet | None:
    """The classes of the model that `config.model` names; None for a preset and for classes that are mere numbers.

    Raises:
        InputError: The preset, file, folder or Hub id does not exist.
    """
    if config.model in PRESETS:
        return None
    if config.model.endswith(".json"):
        values = read_json(config.model, "give a CrossEarth configuration")
        check_config(values, config.model)
        names = {int(number): name for number, name in (values.get("id2label") or {}).items()}
        found = label_set_for(names, values.get("class_colors"))
    else:
        found = label_set_of(load_config(_folder(config)))
    if are_numbers(found.classes):
        return None
    return found


def build_processor(config: TrainConfig) -> CrossEarthImageProcessor:
    """The saved image processor of the model that `config` starts from, or the default one.

    It takes mean and deviation from a pretrained backbone. It is extended if it has fewer channels than `config.bands`.
    """
    processor = CrossEarthImageProcessor()
    if not config.from_scratch:
        folder = model_folder(config.model)
        if (folder / PROCESSOR).exists():
            processor = load_processor(folder)
    elif config.backbone is not None:
        processor = processor_for(config.backbone)
    processor.extend_channels(config.num_channels)
    return processor


def lora_settings(config: TrainConfig) -> LoraSettings:
    """The settings of LoRA in `config`."""
    targets = tuple(config.lora_targets)
    return LoraSettings(
        config.lora_rank, config.lora_alpha, config.lora_dropout, targets, config.lora_init
    )


def _is_peer(config: TrainConfig) -> bool:
    """Whether `config.model` is the folder of a convolutional peer; raises `InputError` if it cannot do this run."""
    path = Path(config.model) / CONFIG
    if not path.is_file():  # not a folder, or loading will raise an error
        return False
    if FeaturePyramidSegmenter.__name__ not in (
        read_json(path, "save the model again").get("architectures") or []
    ):
        return False
    if (config.objective, config.adaptation) != ("segmentation", "full"):
        raise InputError(
            f"'{config.model}' is the convolutional peer, which knows no objective '{config.objective}' with "
            f"adaptation '{config.adaptation}'; train it with objective 'segmentation' and adaptation 'full'"
        )
    if config.gradient_checkpointing:
        raise InputError(
            f"'{config.model}' is the convolutional peer: leave gradient_checkpointing out, it has none"
        )
    return True


def _new(
    config: TrainConfig,
    model_class: type[CrossEarthForSemanticSegmentation],
    labels: dict[str, Any],
) -> CrossEarthForSemanticSegmentation:
    """A model from a preset or a .json file; its weights are random, except those of `config.backbone`."""
    if "lora" in config.adaptation and config.backbone is None:
        raise InputError(
            f"adaptation '{config.adaptation}' adapts trained weights and '{config.model}' has none; set model to the "
            "folder or Hub id of a trained model, or add backbone"
        )
    network = _network_config(config, labels)
    if config.backbone is None:
        return model_class(network)
    return _on_backbone(config, model_class, network)


def _network_config(config: TrainConfig, labels: dict[str, Any]) -> CrossEarthConfig:
    """The architecture that a preset or a .json file describes."""
    fields = dict(labels)
    if config.num_channels > 3 and config.backbone is None:
        fields["num_channels"] = config.num_channels
    try:
        if config.model in PRESETS:
            return CrossEarthConfig.from_preset(config.model, **fields)
        values = read_json(config.model, "give a CrossEarth configuration")
        check_config(values, config.model)
        network = CrossEarthConfig(**(values | fields))
        _check_size(network, config.model)
        return network
    except InputError:
        raise
    except Exception as error:  # unknown fields of a file make transformers raise anything
        raise InputError(
            f"{config.model} is not a CrossEarth configuration ({reason_of(error)}); correct it"
        ) from error


def _on_backbone(
    config: TrainConfig,
    model_class: type[CrossEarthForSemanticSegmentation],
    network: CrossEarthConfig,
) -> CrossEarthForSemanticSegmentation:
    """A new model on the pretrained ViT that `config.backbone` names."""
    backbone = read_backbone(str(config.backbone))
    try:
        return model_class.from_backbone(backbone.vit, network, config.backbone_blocks)
    except ValueError as error:
        raise InputError(
            f"no model can be made on backbone '{config.backbone}': {reason_of(error)}"
        ) from error


def _check_size(config: CrossEarthConfig, path: str) -> None:
    """Raises `InputError` for a network that is too large to train, before it takes all memory."""
    with torch.device("meta"):
        numbers = sum(
            parameter.numel()
            for parameter in CrossEarthForSemanticSegmentation(config).parameters()
        )
    if numbers > MOST_PARAMETERS:
        raise InputError(
            f"{path} describes a network of {numbers} weights, above {MOST_PARAMETERS}; correct it"
        )


def _fit_bands(
    model: CrossEarthPreTrainedModel, config: TrainConfig, tell: Callable[[str], object]
) -> None:
    """Extends a model with fewer channels than `config.bands` and tells so; raises `InputError` if it has more."""
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
    """Writes the fields of `config` that belong to the model; raises `InputError` if hidden blocks exceed the crops."""
    for name in MODEL_FIELDS:
        value = getattr(config, name)
        if value is not None:
            setattr(model.config, name, value)
    crop, block = config.crop_size or model.config.image_size, model.config.mim_block_size
    if config.mim_block_size and block > crop:
        raise InputError(f"mim_block_size is {block}; it must not exceed the crop's {crop} pixels")


def _pretrained(config: TrainConfig, model_class: type[Any], labels: dict[str, Any]) -> Any:
    """Loads a saved model in float32; its classifier is new if the number of classes differs."""
    folder = _folder(config)
    if model_class is not FeaturePyramidSegmenter:
        check_count(load_config(folder), folder)
    try:
        # hides its alarming report of keys; the check of missing keys follows
        with quiet_loaders():
            model, info = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                use_safetensors=True,
                **labels,
            )
    except Exception as error:  # loading a damaged folder can raise anything
        raise InputError(
            f"'{config.model}' cannot be loaded: {reason_of(error)}; save or convert the model again"
        ) from error
    wrong = sorted(_wrong_keys(info))
    if wrong:
        raise InputError(
            f"the weights of '{config.model}' do not fit its config at {wrong[:3]}; repair or convert it again"
        )
    check_weights(
        model.state_dict(),
        f"'{config.model}'",
        "save or convert it again, or start from another model",
    )
    return model


def _wrong_keys(info: dict[str, Any]) -> Iterator[str]:
    """Names of missing weights and of weights of another shape, except those that training makes anew."""
    for key in info["missing_keys"]:
        if not key.startswith("multitask."):
            yield key
    for entry in info["mismatched_keys"]:
        key = entry
        if isinstance(entry, tuple):  # with the two shapes
            key = entry[0]
        if not key.startswith(_CLASSIFIERS):
            yield key


def _folder(config: TrainConfig) -> Path:
    try:
        return model_folder(config.model)
    except InputError as error:
        raise InputError(
            f"'{config.model}' is not a preset ({', '.join(PRESETS)}), and {error}"
        ) from error


def _round_frozen_layers(model: nn.Module) -> None:
    """Converts frozen linear and convolution layers to bfloat16; autocast computes the others in float32."""
    for layer in model.modules():
        parameters = list(layer.parameters())
        if isinstance(layer, nn.Linear | nn.Conv2d) and not any(
            weight.requires_grad for weight in parameters
        ):
            layer.to(torch.bfloat16)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype != torch.bfloat16:
            # otherwise the file of weights stays mapped into memory
            tensor.data = tensor.data.clone()
