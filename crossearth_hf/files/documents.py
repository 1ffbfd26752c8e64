"""JSON, YAML and headers of weight files from strangers: read within limits, or refused in one sentence."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from ..errors import InputError, reason_of, shown

LARGEST_JSON = 16 << 20
"""Largest JSON document or header of weights, in bytes; our choice: a model of 1000 blocks has a header of 4 MiB."""

LARGEST_YAML = 256 << 10
"""Largest YAML document, in bytes; our choice: reading it takes some seconds."""

_BARE_COLOR = re.compile(
    r"^[^#'\"]*:[ \t]+(#[0-9a-fA-F]{6})\b", re.MULTILINE
)  # YAML takes it for a comment


def read_json(
    path: str | os.PathLike[str], remedy: str, largest: int = LARGEST_JSON
) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: A regular file, UTF-8.
        remedy: What to do about a wrong one; ends the sentence.
        largest: Bytes that are read at most.

    Raises:
        InputError: The file is missing, not regular, too large, or not a JSON object.
    """
    try:
        return _json_object(_text(Path(path), largest))
    except _Unreadable as error:
        raise InputError(f"{path} cannot be read ({error}); {remedy}") from error


def read_yaml(path: str | os.PathLike[str], remedy: str) -> dict[str, Any]:
    """The mapping in a YAML file of at most `LARGEST_YAML` bytes; raises `InputError` as in `read_json`."""
    try:
        return _yaml_mapping(_text(Path(path), LARGEST_YAML))
    except _Unreadable as error:
        raise InputError(f"{path} cannot be read as YAML or JSON ({error}); {remedy}") from error


def tensor_shapes(path: str | os.PathLike[str], remedy: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in a .safetensors file by their names, from its header; `InputError` if it is damaged."""
    try:
        with _opened(Path(path)) as file:
            size = int.from_bytes(file.read(8), "little")
            if size > LARGEST_JSON:
                raise _Unreadable(
                    f"its header would have {size} bytes, and the limit is {LARGEST_JSON}"
                )
            header = _json_object(file.read(size))
        header.pop("__metadata__", None)
        return {name: _shape(name, entry) for name, entry in header.items()}
    except _Unreadable as error:
        raise InputError(
            f"{path} is not a weight file or is incomplete ({error}); {remedy}"
        ) from error


class _Unreadable(Exception):
    """The reason why a file is refused."""


def _json_object(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise _Unreadable("its JSON is nested too deeply") from None
    except ValueError as error:
        raise _Unreadable(f"it is not JSON: {reason_of(error)}") from error
    if not isinstance(value, dict):
        raise _Unreadable("it is not a JSON object")
    return value


def _yaml_mapping(text: str) -> dict[str, Any]:
    color = _BARE_COLOR.search(text)
    if color is not None:
        raise _Unreadable(
            f"the color {color[1]} is not in quotes, and what follows a # is a comment"
        )
    try:
        value = yaml.load(text, _PlainLoader)
    except RecursionError:
        raise _Unreadable("it is nested too deeply") from None
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        OverflowError,
    ) as error:  # invalid dates, lists as keys
        raise _Unreadable(reason_of(error)) from error
    if not isinstance(value, dict):
        raise _Unreadable("it does not consist of 'name: value' lines")
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
    """Raises an error for references within the document, because a few lines can expand to billions of values.

    It also refuses a name that stands twice, of which YAML's own reader would keep the last value alone.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references such as *name are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"it has {shown(name)} twice")
        return super().construct_mapping(node, deep=deep)


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
    """Opens a regular file; a pipe might never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _Unreadable("it is not a regular file")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise _Unreadable(error.strerror or type(error).__name__) from error
    except ValueError as error:  # a path with a zero byte
        raise _Unreadable(reason_of(error)) from error
