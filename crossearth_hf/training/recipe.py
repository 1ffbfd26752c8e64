"""Recipes: a `TrainConfig` from flags and YAML, and back; names of earlier releases."""

import argparse
import dataclasses
import difflib
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..command_line import Parser
from ..errors import InputError, shown
from ..files import documents
from .config import NO_OTHER, TrainConfig

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
    "objective masks": "objective segmentation",
}
"""Names of earlier releases, and those that transformers' `TrainingArguments` has for the same."""


def parse_train_config(arguments: Sequence[str]) -> TrainConfig:
    """The run that command-line flags describe: one flag per field, and `--config FILE.yaml`; flags win over the file.

    Raises:
        InputError: an unknown flag or field (its new name or the nearest known one is named), a value of the wrong type
            or out of range, a required field that is missing, a file that is no YAML mapping.
    """
    parser = _TrainParser(prog="crossearth train", description="Trains CrossEarth on labeled images.")
    parser.add_argument("--config", metavar="FILE.yaml", help="fields of the same names; flags win over it")
    texts = field_descriptions()
    for item in dataclasses.fields(TrainConfig):
        _add_flag(parser, item, texts.get(item.name, ""))
    values = vars(parser.parse_args([_as_field(text) for text in arguments]))
    path = values.pop("config")
    return build_train_config((read_yaml(path) if path else {}) | values)


def build_train_config(values: Mapping[str, Any]) -> TrainConfig:
    """A `TrainConfig` from names and values; numbers may be text, as YAML leaves "3e-4". Raises `InputError`."""
    old = old_name(values)
    if old is not None:
        raise InputError(_renamed(old))
    for name in values:
        if name not in _TYPES:
            raise InputError(_unknown_field(str(name)))
    for item in dataclasses.fields(TrainConfig):
        if item.default is MISSING and item.default_factory is MISSING and item.name not in values:
            raise InputError(f"{item.name} is missing; give --{item.name} or name it in the config file")
    return TrainConfig(**{name: _convert(name, value, _TYPES[name]) for name, value in values.items()})


def old_name(values: Mapping[str, Any]) -> str | None:
    """The first key of `RENAMED` that a recipe of an earlier release holds, if any."""
    return next((name for name in (*values, f"objective {values.get('objective')}") if name in RENAMED), None)


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier release in the names of this one: to be shown, not to be trained again."""
    new = {RENAMED.get(name, name): value for name, value in values.items()}
    if new.get("objective") == "masks":
        new["objective"] = "segmentation"
    return new


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Fields of a YAML file; `InputError` if it cannot be read or is not a mapping."""
    return documents.read_yaml(path, "write one TrainConfig field a line, as 'name: value'")


def to_json(config: TrainConfig) -> str:
    """The configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def to_yaml(config: TrainConfig) -> str:
    """The recipe of a run as YAML text: every field that differs from its default, except where it wrote."""
    unset = defaults()
    kept = {name: value for name, value in dataclasses.asdict(config).items() if value != unset[name]}
    for name in ("output_dir", "resume_from_checkpoint"):
        kept.pop(name, None)
    return yaml.safe_dump(kept, sort_keys=False)


def defaults() -> dict[str, Any]:
    """What the fields are when nobody sets them; those that somebody has to set hold nothing of use."""
    return dataclasses.asdict(TrainConfig(model="", output_dir="", train_data=["-"]))


def field_descriptions() -> dict[str, str]:
    """What the docstring of `TrainConfig` says of each field, on one line."""
    section = inspect.cleandoc(TrainConfig.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w[\w, ]*): ((?:.|\n(?=        ))+)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}


class _TrainParser(Parser):
    """Flags are fields: unknown ones are told as they are in a file."""

    def refuse(self, texts: Sequence[str]) -> NoReturn:
        name = texts[0].removeprefix("--").partition("=")[0]
        is_flag = texts[0].startswith("--")
        old = name.removeprefix("no-").replace("-", "_")
        if is_flag and old in RENAMED:
            raise InputError(_renamed(old))
        raise InputError(_unknown_field(name) if is_flag else f"'{texts[0]}' belongs to no flag; remove it")


def _add_flag(parser: Parser, item: "dataclasses.Field[Any]", text: str) -> None:
    options: dict[str, Any]
    if item.default_factory is MISSING:
        value = item.default
    else:
        value = item.default_factory()
    if value in (MISSING, None, []):
        known = ""
    else:
        known = f" Default: {value}."
    kind, options = _TYPES[item.name], {"default": argparse.SUPPRESS, "help": (text + known).replace("%", "%%")}
    if bool in (kind, *typing.get_args(kind)):
        parser.add_argument(f"--{item.name}", action=argparse.BooleanOptionalAction, **options)
    elif list in (typing.get_origin(kind), *map(typing.get_origin, typing.get_args(kind))):
        parser.add_argument(f"--{item.name}", nargs="+", metavar="VALUE", **options)
    else:
        parser.add_argument(f"--{item.name}", metavar="VALUE", **options)


def _as_field(argument: str) -> str:
    """A flag with the underscores of its field where a person wrote hyphens; other arguments as they are."""
    name, equals, value = argument.removeprefix("--").partition("=")
    known = argument.startswith("--") and name.replace("-", "_") in _TYPES
    if known:
        return f"--{name.replace('-', '_')}{equals}{value}"
    return argument


def _renamed(old: str) -> str:
    return f"'{old}' has a new name; write '{RENAMED[old]}'"


def _unknown_field(name: str) -> str:
    nearest = difflib.get_close_matches(name, [*_TYPES, "config"], n=1, cutoff=0.5)
    if nearest:
        hint = f"did you mean '{nearest[0]}'?"
    else:
        hint = f"the fields are {', '.join(_TYPES)}"
    return f"'{name}' is not a field of TrainConfig; {hint}"


def _convert(name: str, value: Any, kind: Any, others: str = "") -> Any:
    """`value` as the annotated type `kind` of a field; `InputError` if it is none, nor one of the `others`."""
    if isinstance(kind, types.UnionType):
        choices = typing.get_args(kind)
    else:
        choices = (kind,)
    if value is None and type(None) in choices:
        return None
    if str in choices[1:]:
        others = f" or '{NO_OTHER}'"
        if _is_no_other(value):
            return NO_OTHER
    target = choices[0]
    try:
        if typing.get_origin(target) is list:
            kind, items = typing.get_args(target)[0], value if isinstance(value, list) else [value]
            if kind in (int, float):
                items = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
            return [_convert(name, item, kind, others) for item in items]
        return _scalar(value, target)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        expected = f"{getattr(target, '__name__', target)}{others}"
        raise InputError(f"{name} is {shown(value)}; it must be of type {expected}") from error


def _is_no_other(value: Any) -> bool:
    """Whether the word "none" stands in place of numbers, as YAML or a flag of several values gives it."""
    if isinstance(value, list) and len(value) == 1:
        alone = value[0]
    else:
        alone = value
    return isinstance(alone, str) and alone.strip().lower() == NO_OTHER


def _scalar(value: Any, target: type) -> Any:
    exact = isinstance(value, target) and not (target is int and isinstance(value, bool))
    if exact:
        return value
    if target in (int, float) and isinstance(value, str | int) and not isinstance(value, bool):
        return target(value)
    raise TypeError
