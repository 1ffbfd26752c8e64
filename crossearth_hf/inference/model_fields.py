"""Checks of the JSON files of a model folder, field by field, before transformers reads them."""

import math
from collections.abc import Mapping
from os import PathLike
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from transformers import AutoConfig
from transformers.activations import ACT2FN

from ..errors import InputError, shown
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import (
    CrossEarthImageProcessor,
    CrossEarthImageProcessorKwargs,
)

_KINDS = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "text",
    list: "a list", dict: "an object in braces", NoneType: "null",
}  # fmt: skip
_JSON: dict[Any, type] = {tuple: list, Literal: str}  # annotations of kinds that JSON does not have
_UNANNOTATED = {"auto_map": dict, "out_features": list[str] | None, "out_indices": list[int] | None}
_FLOATING = ("float32", "bfloat16", "float16", "float64")
_DTYPES = ("dtype", "torch_dtype")
_ACTIVATIONS = ("activation_function", "hidden_act")
_SHARES = ("dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")


def check_config(values: Mapping[str, Any], source: str | PathLike[str]) -> None:
    """Raises `InputError` with the rule for the first invalid field of a model's configuration.

    Args:
        values: Content of config.json.
        source: The file, for the message.
    """
    _check_fields(values, CrossEarthConfig, source)
    if "quantization_config" in values:
        value = shown(values["quantization_config"])
        raise InputError(
            f"{source} has quantization_config {value}, and quantized weights are not read; leave the field out and "
            "save the weights in float32, bfloat16 or float16"
        )
    backbone = values.get("backbone_config")
    if backbone is not None:
        kind, known = backbone.get("model_type"), CrossEarthConfig.backbones_supported
        if kind not in known:
            _refuse(source, "backbone_config.model_type", kind, " or ".join(known))
        _check_fields(backbone, type(AutoConfig.for_model(kind)), source, "backbone_config.")


def check_processor(values: Mapping[str, Any], source: str | PathLike[str]) -> None:
    """Raises `InputError` for the first invalid field of an image processor's settings."""
    _check_kinds(values, get_type_hints(CrossEarthImageProcessorKwargs), source)
    lists = {
        name: values.get(name, getattr(CrossEarthImageProcessor, name))
        for name in ("image_mean", "image_std")
    }
    for name, numbers in lists.items():
        if not isinstance(numbers, list):
            _refuse(source, name, numbers, "a list of numbers, one for each channel")
    means, deviations = lists.values()
    if not all(deviation > 0 for deviation in deviations):
        _refuse(source, "image_std", deviations, "above 0; 1 leaves the deviation as it is")
    if len(means) != len(deviations):
        raise InputError(
            f"{source} has image_mean {shown(means)} and image_std {shown(deviations)}, which must have the same "
            "length; give one number of each per channel"
        )
    if values.get("rescale_factor", 1) is None:
        _refuse(source, "rescale_factor", None, "a number; 1 leaves pixels as they are")


def _check_fields(
    values: Mapping[str, Any], of: type, source: str | PathLike[str], prefix: str = ""
) -> None:
    """Raises `InputError` for invalid fields of a configuration of the class `of`."""
    hints = _UNANNOTATED | get_type_hints(of, localns={"torch": torch})
    _check_kinds(values, hints, source, prefix)
    for name, value in values.items():
        is_strict = hints.get(name) is float and name not in CrossEarthConfig.__annotations__
        if is_strict and type(value) is int:  # transformers refuses whole numbers here
            _refuse(source, prefix + name, value, f"written with a decimal point: {value}.0")
    for name in _DTYPES:
        if values.get(name) is not None and values[name] not in _FLOATING:
            _refuse(source, prefix + name, values[name], f"one of {', '.join(_FLOATING)}")
    for name in _ACTIVATIONS:
        if name in values and values[name] not in ACT2FN:
            _refuse(
                source,
                prefix + name,
                values[name],
                "a function that transformers knows, such as relu or gelu",
            )
    for name in _SHARES:
        if not 0 <= values.get(name, 0) <= 1:
            _refuse(source, prefix + name, values[name], "a number from 0 to 1")
    _check_labels(values, source, prefix)


def _check_labels(values: Mapping[str, Any], source: str | PathLike[str], prefix: str) -> None:
    names, ids = values.get("id2label"), values.get("label2id")
    if names is not None:
        expected = {str(number) for number in range(len(names))}
        if (
            not names
            or set(names) != expected
            or not all(isinstance(name, str) for name in names.values())
        ):
            _refuse(
                source,
                f"{prefix}id2label",
                names,
                'the names of the classes by their ids from 0: {"0": "road"}',
            )
    if ids is not None and not all(type(number) is int for number in ids.values()):
        _refuse(
            source, f"{prefix}label2id", ids, 'the ids of the classes by their names: {"road": 0}'
        )


def _check_kinds(
    values: Mapping[str, Any],
    hints: Mapping[str, Any],
    source: str | PathLike[str],
    prefix: str = "",
) -> None:
    """Raises `InputError` for values that do not fit the annotation of their field."""
    for name, value in values.items():
        if name in hints:
            kinds = _kinds(hints[name])
        else:
            kinds = {}
        if kinds and not _is_of(value, kinds):
            _refuse(source, prefix + name, value, " or ".join(_KINDS[kind] for kind in kinds))


def _kinds(annotation: Any) -> dict[type, Any]:
    """The kinds of JSON values that an annotation allows, each with the annotation of its items, if any."""
    if get_origin(annotation) in (Union, UnionType):
        parts = get_args(annotation)
    else:
        parts = (annotation,)
    kinds = {
        _JSON.get(get_origin(part), get_origin(part)) or part: next(iter(get_args(part)), None)
        for part in parts
    }
    return {kind: item for kind, item in kinds.items() if kind in _KINDS}


def _is_of(value: Any, kinds: Mapping[type, Any]) -> bool:
    """Whether a value has one of the kinds, and its numbers are finite."""
    if type(value) is int and int not in kinds:
        kind = float
    else:
        kind = type(value)
    if kind not in kinds or (kind is float and not math.isfinite(value)):
        return False
    item = kinds[kind]
    return kind is not list or item is None or all(_is_of(each, _kinds(item)) for each in value)


def _refuse(source: str | PathLike[str], name: str, value: Any, rule: str) -> None:
    raise InputError(
        f"{source} has {name} {shown(value)}, which must be {rule}; correct it, or save the model again"
    )


__all__ = ["check_config", "check_processor"]
