"""Recipes: turns flags and YAML into a `TrainConfig` and back; knows the names of earlier releases."""

import argparse
import dataclasses
import difflib
import inspect
import json
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..command_line import Parser
from ..errors import InputError, shown
from ..files import documents
from .config import TrainConfig
from .field_types import NO_OTHER, choices_of

_TYPES = typing.get_type_hints(TrainConfig)
RENAMED = {
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "log_every": "logging_steps",
    "eval_every": "eval_steps",
    "save_every": "save_steps",
    "tracker": "report_to",
    "num_workers": "dataloader_num_workers",
    "resume": "resume_from_checkpoint",
    "label_set": "classes",
    "objective masks": "objective segmentation",
}
"""Names of earlier releases, and the names of the same settings in transformers' `TrainingArguments`."""


def parse_train_config(arguments: Sequence[str]) -> TrainConfig:
    """Reads a run from command-line flags: one flag for each field, and `--config FILE.yaml`, which flags override.

    Raises:
        InputError: A flag or field is unknown (the message names its new name or the nearest field), a value has the
            wrong type or is out of range, a required field is missing, or the file is not a YAML mapping.
    """
    parser = _TrainParser(
        prog="crossearth train", description="Trains CrossEarth on labeled images."
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="fields of the same names; flags override it"
    )
    texts = field_descriptions()
    for item in dataclasses.fields(TrainConfig):
        _add_flag(parser, item, texts.get(item.name, ""))
    values = vars(parser.parse_args([_as_field(text) for text in arguments]))
    path = values.pop("config")
    if path:
        values = read_yaml(path) | values
    return build_train_config(values)


def build_train_config(values: Mapping[str, Any]) -> TrainConfig:
    """A `TrainConfig` from names and values; numbers may be text, because YAML reads "3e-4" as text.

    Raises:
        InputError: See `parse_train_config`.
    """
    old = old_name(values)
    if old is not None:
        raise InputError(_renamed(old))
    for name in values:
        if name not in _TYPES:
            raise InputError(_unknown_field(str(name)))
    for item in dataclasses.fields(TrainConfig):
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise InputError(
                f"{item.name} is missing; give --{item.name} or name it in the config file"
            )
    return TrainConfig(
        **{name: _convert(name, value, _TYPES[name]) for name, value in values.items()}
    )


def old_name(values: Mapping[str, Any]) -> str | None:
    """The first key of `RENAMED` in a recipe, or None if the recipe is of this release."""
    names = (*values, f"objective {values.get('objective')}")
    return next((name for name in names if name in RENAMED), None)


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier release with today's names, for display; it may not train the same way."""
    new = {RENAMED.get(name, name): value for name, value in values.items()}
    if new.get("objective") == "masks":
        new["objective"] = "segmentation"
    return new


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads the fields of a YAML file; raises `InputError` if it cannot be read or is not a mapping."""
    return documents.read_yaml(path, "write one TrainConfig field a line, as 'name: value'")


def to_json(config: TrainConfig) -> str:
    """The configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def to_yaml(config: TrainConfig) -> str:
    """The recipe of a run as YAML text: every field that differs from its default, but not the output folder."""
    unset = defaults()
    kept = {
        name: value for name, value in dataclasses.asdict(config).items() if value != unset[name]
    }
    for name in ("output_dir", "resume_from_checkpoint"):
        kept.pop(name, None)
    return yaml.safe_dump(kept, sort_keys=False)


def defaults() -> dict[str, Any]:
    """The default of each field; required fields hold placeholders."""
    return dataclasses.asdict(TrainConfig(model="", output_dir="", train_data=["-"]))


def field_descriptions() -> dict[str, str]:
    """The description of each field in the docstring of `TrainConfig`, on one line."""
    section = inspect.cleandoc(TrainConfig.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w[\w, ]*): ((?:.|\n(?=        ))+)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


class _TrainParser(Parser):
    """Flags are fields, so unknown flags get the same message as unknown fields of a file."""

    def refuse(self, texts: Sequence[str]) -> NoReturn:
        if not texts[0].startswith("--"):
            raise InputError(f"'{texts[0]}' belongs to no flag; remove it")
        name = texts[0].removeprefix("--").partition("=")[0]
        old = name.removeprefix("no-").replace("-", "_")
        if old in RENAMED:
            raise InputError(_renamed(old))
        raise InputError(_unknown_field(name))


def _add_flag(parser: Parser, item: "dataclasses.Field[Any]", text: str) -> None:
    value = item.default
    if item.default_factory is not MISSING:
        value = item.default_factory()
    if value not in (MISSING, None, []):
        text = f"{text} Default: {value}."
    kind = _TYPES[item.name]
    options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
    if bool in (kind, *typing.get_args(kind)):
        parser.add_argument(f"--{item.name}", action=argparse.BooleanOptionalAction, **options)
    elif list in (typing.get_origin(kind), *map(typing.get_origin, typing.get_args(kind))):
        parser.add_argument(f"--{item.name}", nargs="+", metavar="VALUE", **options)
    else:
        parser.add_argument(f"--{item.name}", metavar="VALUE", **options)


def _as_field(argument: str) -> str:
    """Replaces hyphens in the name of a flag by the underscores of its field; other arguments do not change."""
    name, equals, value = argument.removeprefix("--").partition("=")
    field = name.replace("-", "_")
    if argument.startswith("--") and field in _TYPES:
        return f"--{field}{equals}{value}"
    return argument


def _renamed(old: str) -> str:
    return f"'{old}' has a new name; write '{RENAMED[old]}'"


def _unknown_field(name: str) -> str:
    hint = f"the fields are {', '.join(_TYPES)}"
    nearest = difflib.get_close_matches(name, [*_TYPES, "config"], n=1, cutoff=0.5)
    if nearest:
        hint = f"did you mean '{nearest[0]}'?"
    return f"'{name}' is not a field of TrainConfig; {hint}"


def _convert(name: str, value: Any, kind: Any, others: str = "") -> Any:
    """`value` as the annotated type `kind` of a field; `others` are words that the field also takes.

    Raises:
        InputError: The value has another type.
    """
    choices = choices_of(kind)
    if value is None and type(None) in choices:
        return None
    if str in choices[1:]:
        others = f" or '{NO_OTHER}'"
        if _is_no_other(value):
            return NO_OTHER
    target = choices[0]
    try:
        if typing.get_origin(target) is list:
            kind = typing.get_args(target)[0]
            return [_convert(name, item, kind, others) for item in _items(value, kind)]
        return _scalar(value, target)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        expected = f"{getattr(target, '__name__', target)}{others}"
        raise InputError(f"{name} is {shown(value)}; it must be of type {expected}") from error


def _items(value: Any, kind: type) -> list[Any]:
    """The items of a list field; a person may write one item alone, or numbers with commas."""
    if not isinstance(value, list):
        value = [value]
    if kind is str:
        return value
    items = []
    for item in value:
        if isinstance(item, str):
            items += item.split(",")
        else:
            items.append(item)
    return items


def _is_no_other(value: Any) -> bool:
    """Whether a value is the word "none", alone or as the only item of a list."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return isinstance(value, str) and value.strip().lower() == NO_OTHER


def _scalar(value: Any, target: type) -> Any:
    exact = isinstance(value, target) and not (target is int and isinstance(value, bool))
    if exact:
        return value
    if target in (int, float) and isinstance(value, str | int) and not isinstance(value, bool):
        return target(value)
    raise TypeError
