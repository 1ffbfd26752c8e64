"""JSON and YAML that people hand over, and headers of weight files: read within bounds, or refused in a sentence."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ..errors import InputError, reason_of, shown

LARGEST_JSON = 16 << 20
"""Bytes of a JSON document or a header of weights; our choice: a model of 1000 blocks has a header of 4 MiB."""

LARGEST_YAML = 256 << 10
"""Bytes of a YAML document; our choice: reading that takes some seconds."""


def read_json(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        path: A regular file of at most `LARGEST_JSON` bytes, UTF-8.
        remedy: What to do about a wrong one; ends the sentence.

    Raises:
        InputError: no such file, no regular one, too large, no text, no JSON, no object.
    """
    try:
        return _json_object(_text(Path(path), LARGEST_JSON))
    except _Unreadable as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from error


def read_yaml(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """The mapping that a YAML file of at most `LARGEST_YAML` bytes holds; `InputError` as in `read_json`."""
    try:
        return _yaml_mapping(_text(Path(path), LARGEST_YAML))
    except _Unreadable as error:
        raise InputError(f"{path} cannot be read as YAML or JSON ({error}); {remedy}") from error


def tensor_shapes(path: str | os.PathLike[str], remedy: str) -> dict[str, tuple[int, ...]]:
    """Name to shape of the tensors in a .safetensors file, by its header alone; `InputError` if that is damaged."""
    try:
        with _opened(Path(path)) as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LARGEST_JSON:
                raise _Unreadable(f"it gives its header {size} bytes, of which at most {LARGEST_JSON} are read")
            header = _json_object(file.read(size))
        header.pop("__metadata__", None)
        return {name: _shape(name, entry) for name, entry in header.items()}
    except _Unreadable as error:
        raise InputError(f"{path} is not a weight file or is incomplete ({error}); {remedy}") from error


class _Unreadable(Exception):
    """Why a file is not what it should be."""


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise _Unreadable("it is no JSON: it is nested too deeply") from None
    except ValueError as error:
        raise _Unreadable(f"it is no JSON: {reason_of(error)}") from error
    if not isinstance(value, dict):
        raise _Unreadable("it holds no JSON object")
    return value


def _yaml_mapping(text: str) -> dict[str, Any]:
    try:
        value = yaml.load(text, _PlainLoader)
    except RecursionError:
        raise _Unreadable("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # invalid dates, lists as keys
        raise _Unreadable(reason_of(error)) from error
    if not isinstance(value, dict):
        raise _Unreadable("it holds no fields, is not a list of 'name: value' lines")
    return value


def _shape(name: str, entry: Any) -> tuple[int, ...]:
    if isinstance(entry, dict):
        shape = entry.get("shape")
    else:
        shape = None
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise _Unreadable(f"the tensor {shown(name)} has no shape")
    return tuple(shape)


class _PlainLoader(yaml.SafeLoader):
    """Without references to other places of the document: a few lines of them make billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references such as *name are not read")
        return super().compose_node(parent, index)


def _text(path: Path, limit: int) -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    with _opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _Unreadable(f"it is larger than {limit >> 10} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable("it is not text in UTF-8") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file: a pipe would never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Unreadable("it is not a regular file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise _Unreadable(error.strerror or type(error).__name__) from error
    except ValueError as error:  # a path with a zero byte
        raise _Unreadable(reason_of(error)) from error
