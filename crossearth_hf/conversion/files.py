"""Reads foreign weight files safely: nothing that a file names is ever imported or called."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError, on_one_line, shown
from ..files.documents import tensor_shapes
from ..files.downloads import hub_file
from .pickles import LONGEST_NAME, read_pickle, unreadable

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_HUB_FILE = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(?:[:/](?P<file>.+))?")
_FOLDER_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
)  # what transformers writes, today's name first


@dataclass(frozen=True)
class WeightFile:
    """A file's tensors, memory-mapped where its format allows it.

    Attributes:
        path: Where it lies on this machine.
        tensors: Name to dense tensor, on the CPU.
        unusable: Name to what is wrong with it, for what the file holds among its tensors and is no dense tensor.
        classes: Class names that mmengine's metadata holds, where it does.
        inert_objects: Foreign classes and functions that a pickle names, "module.name"; none of them was used.
    """

    path: Path
    tensors: dict[str, Tensor]
    unusable: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    inert_objects: tuple[str, ...] = ()


def locate(name: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """The local file that `name` stands for.

    Args:
        name: A file, or a file on the Hub as "org/name:file.pth" or "org/name/file.pth".
        folder: Whether `name` may also be a folder or Hub repository in transformers' layout.

    Raises:
        InputError: The file exists neither here nor on the Hub, it is a folder where a file is needed, or it has
            another type.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        candidates = [path / file for file in _FOLDER_FILES if folder]
        path = next((file for file in candidates if file.is_file()), path)
        if path.is_dir():
            if folder:
                wanted = f"holds neither {' nor '.join(_FOLDER_FILES)}"
            else:
                wanted = "is a folder"
            raise InputError(f"{name} {wanted}; name the weight file itself")
    elif not path.exists():
        path = _download(str(name), folder)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{name} ends in '{path.suffix}'; weights are read from {', '.join(SUFFIXES)}"
        )
    return path


def _download(name: str, folder: bool) -> Path:
    match = _HUB_FILE.fullmatch(name)
    file = match and match["file"]
    if match and folder:
        file = file or _FOLDER_FILES[0]
    # "runs/last/full.pth" looks like a Hub file too; if its first folder exists, it means a missing local file.
    if match is None or file is None or Path(Path(name).parts[0]).exists():
        raise InputError(
            f"{name} does not exist; give a weight file, or one on the Hub as ORG/NAME:FILE"
        )
    return hub_file(match["repo"], file)


def read_weights(path: Path) -> WeightFile:
    """Reads a .safetensors file or a PyTorch pickle.

    Pickles run nothing that they name, see `read_pickle`.

    Raises:
        InputError: The file is empty or truncated, it is not a weight file, or its tensors need foreign code.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; download it again")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; name a file of weights")
    if path.suffix == ".safetensors":
        tensor_shapes(path, "download it again")
        try:
            return WeightFile(path, load_file(path))
        except (SafetensorError, OSError) as error:
            raise unreadable(path, error) from error
    content, inert_objects = read_pickle(path)
    if isinstance(content, dict):
        holder = content
    else:
        holder = {}
    tensors = holder.get("state_dict", holder)
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(f"{path} holds no tensors by name; give a checkpoint or a state dict")
    dense, unusable = _sorted_out(path, tensors)
    return WeightFile(path, dense, unusable, _classes(holder), inert_objects)


def _sorted_out(path: Path, tensors: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Dense tensors by name, and what is wrong with each of the others; `InputError` for a name that is not text."""
    dense, unusable = {}, {}
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: {shown(name)} is not a tensor's name; save a state dict")
        if not isinstance(value, Tensor):
            kind = on_one_line(f"{type(value).__module__}.{type(value).__qualname__}", LONGEST_NAME)
            unusable[name] = f"is a {kind}, not a tensor; save it as a plain tensor or remove it"
        elif value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            unusable[name] = "is sparse, quantized or without data; save it as a dense tensor"
        else:
            dense[name] = value.detach()
    return dense, unusable


def _classes(holder: dict[Any, Any]) -> tuple[str, ...] | None:
    """Class names of mmengine's checkpoints (`meta`, `dataset_meta`, `classes`)."""
    value: Any = holder
    for key in ("meta", "dataset_meta", "classes"):
        if isinstance(value, dict):
            value = value.get(key)
        else:
            value = None
    named = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    if named:
        return tuple(on_one_line(name, LONGEST_NAME) for name in value)
    return None
