"""Reads foreign weight files safely: nothing that a file names is ever imported or called."""

import os
import pickle
import re
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError, on_one_line, reason_of, shown
from ..files.documents import tensor_shapes
from ..files.downloads import hub_file

SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_HUB_FILE = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(?:[:/](?P<file>.+))?")
_LONGEST_NAME = 80  # characters of a tensor's or class's name in a sentence
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # what transformers writes, today's name first


@dataclass(frozen=True)
class WeightFile:
    """A file's tensors, memory-mapped where its format allows it.

    Attributes:
        path: Where it lies on this machine.
        tensors: Name to tensor, on the CPU.
        classes: Class names that mmengine's metadata holds, where it does.
        inert_objects: Foreign classes and functions that a pickle names, "module.name"; none of them was used.
    """

    path: Path
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None = None
    inert_objects: tuple[str, ...] = ()


def locate(name: str | os.PathLike[str], *, folder: bool = False) -> Path:
    """The local file that `name` stands for.

    Args:
        name: A file, or a file on the Hub as "org/name:file.pth" or "org/name/file.pth".
        folder: Whether `name` may also be a folder or Hub repository in transformers' layout.

    Raises:
        InputError: no such file here nor on the Hub, a folder where a file is needed, or another file type.
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
        raise InputError(f"{name} ends in '{path.suffix}'; weights are read from {', '.join(SUFFIXES)}")
    return path


def _download(name: str, folder: bool) -> Path:
    match = _HUB_FILE.fullmatch(name)
    file = match and (match["file"] or (_FOLDER_FILES[0] if folder else None))
    # "runs/last/full.pth" looks like a Hub file too: where its first folder is here, so should the file be.
    if match is None or file is None or Path(Path(name).parts[0]).exists():
        raise InputError(f"{name} does not exist; give a weight file, or one on the Hub as ORG/NAME:FILE")
    return hub_file(match["repo"], file)


def read_weights(path: Path) -> WeightFile:
    """Reads a .safetensors file or a PyTorch pickle.

    Pickles are read by PyTorch's `weights_only` unpickler and, where that refuses objects of a training framework, by
    one that puts an inert placeholder in the place of everything but tensors and basic types.

    Raises:
        InputError: the file is empty, truncated, no weight file, or its tensors need foreign code.
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
            raise _unreadable(path, error) from error
    content, inert_objects = _read_pickle(path)
    if isinstance(content, dict):
        holder = content
    else:
        holder = {}
    tensors = holder.get("state_dict", holder)
    if not isinstance(tensors, dict) or not tensors:
        raise InputError(f"{path} holds no tensors by name; give a checkpoint or a state dict")
    return WeightFile(path, _checked(path, tensors), _classes(holder), inert_objects)


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = reason_of(error)
    return InputError(f"{path} is not a weight file or is incomplete ({reason}); download it again or check its type")


def _read_pickle(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The unpickled content and the foreign objects that were made inert."""
    zipped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints for programmers, on files that are refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped), ()
    except pickle.UnpicklingError as error:
        if not zipped:
            raise _unreadable(path, ValueError("neither an archive of PyTorch nor plain tensors")) from error
    except Exception as error:  # a damaged file makes its reader fail in any way
        raise _unreadable(path, error) from error
    found: set[str] = set()
    try:
        content = torch.load(path, "cpu", _inert_pickle(found), weights_only=False, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} names foreign objects ({some(found)}) that cannot be made inert; save its state dict alone, as "
            "plain tensors"
        ) from error
    return content, tuple(sorted(found))


class _Inert:
    """Stands for any foreign class, function and object: takes whatever a pickle does to it and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "_Inert":
        return self


class _RebuildTensor:
    # A pickle can set attributes on what it names: empty slots leave it nothing to set.
    __slots__ = ()

    def __call__(self, storage: Any, offset: int, size: Any, stride: Any, *gradient_and_hooks: Any) -> Tensor:
        return torch._utils._rebuild_tensor(storage, offset, size, stride)


class _RebuildParameter:
    __slots__ = ()

    def __call__(self, data: Tensor, *gradient_and_hooks: Any) -> Tensor:
        return data


_HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
}


def _inert_pickle(found: set[str]) -> types.SimpleNamespace:
    """What `torch.load` takes as its pickle module; the names of foreign objects are added to `found`.

    A pickle can only call what `find_class` returns: `torch.load` itself resolves storage types before it asks.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in _HARMLESS:
                return _HARMLESS[module, name]
            found.add(f"{module}.{name}")
            return type(name, (_Inert,), {"__module__": module})

    return types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler)


def _checked(path: Path, tensors: dict[Any, Any]) -> dict[str, Tensor]:
    """`tensors` as plain names and dense tensors; `InputError` names the first that is neither."""
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = on_one_line(f"{type(value).__module__}.{type(value).__qualname__}", _LONGEST_NAME)
            raise InputError(f"{path}: {shown(name)} is a {kind}, not a tensor; save it as a plain tensor or remove it")
        if value.layout is not torch.strided or value.is_quantized or value.device.type != "cpu":
            raise InputError(f"{path}: {shown(name)} is sparse, quantized or without data; save it as a dense tensor")
    return {name: value.detach() for name, value in tensors.items()}


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
        return tuple(on_one_line(name, _LONGEST_NAME) for name in value)
    return None


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few of `names`, and how many there are."""
    names = sorted(on_one_line(name, _LONGEST_NAME) for name in names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
