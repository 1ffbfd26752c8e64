"""Reads PyTorch's pickles without running anything that they name."""

import pickle
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, on_one_line, reason_of

LONGEST_NAME = 80  # characters of a tensor's or class's name in a sentence


def read_pickle(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The unpickled content and the foreign objects that were made inert.

    PyTorch's `weights_only` unpickler reads first; where it refuses objects of a training framework, one that puts an
    inert placeholder in the place of everything but tensors and basic types.

    Raises:
        InputError: The file is not a pickle of PyTorch, it is damaged, or it names objects that cannot be made inert.
    """
    zipped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints for programmers, on files that are refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped), ()
    except pickle.UnpicklingError as error:
        if not zipped:
            raise unreadable(
                path, ValueError("neither an archive of PyTorch nor plain tensors")
            ) from error
    except Exception as error:  # a damaged file makes its reader fail in any way
        raise unreadable(path, error) from error
    found: set[str] = set()
    try:
        content = torch.load(path, "cpu", _inert_pickle(found), weights_only=False, mmap=True)
    except Exception as error:
        raise InputError(
            f"{path} names foreign objects ({some(found)}) that cannot be made inert; save its state dict alone, as "
            "plain tensors"
        ) from error
    return content, tuple(sorted(found))


def unreadable(path: Path, error: BaseException) -> InputError:
    """The error for a file that cannot be read."""
    reason = reason_of(error)
    return InputError(
        f"{path} is not a weight file or is incomplete ({reason}); download it again or check its type"
    )


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few of `names`, and the number of the others."""
    names = sorted(on_one_line(name, LONGEST_NAME) for name in names)
    first = ", ".join(names[:limit])
    if len(names) > limit:
        return f"{first} and {len(names) - limit} more"
    return first


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

    def __call__(
        self, storage: Any, offset: int, size: Any, stride: Any, *gradient_and_hooks: Any
    ) -> Any:
        try:
            return torch._utils._rebuild_tensor(storage, offset, size, stride)
        except Exception:  # senseless arguments; it may be among the tensors that nobody needs
            return _Inert()


class _RebuildParameter:
    """`_rebuild_parameter` and `_rebuild_parameter_with_state`: gradient, hooks and state are left out."""

    __slots__ = ()

    def __call__(self, data: Any, *gradient_hooks_and_state: Any) -> Any:
        return data


class _RebuildFromType:
    """A tensor that carries attributes or is of a subclass: the plain tensor, which one of the above rebuilds."""

    __slots__ = ()

    def __call__(self, rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
        if isinstance(rebuild, _RebuildTensor | _RebuildParameter) and isinstance(arguments, tuple):
            return rebuild(*arguments)
        return _Inert()


_HARMLESS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch._tensor", "_rebuild_from_type_v2"): _RebuildFromType(),
}
_TENSOR_TYPES = {("torch", "Tensor"), ("torch.nn.parameter", "Parameter")}
"""What a rebuilt tensor names as its type: inert like all that is foreign, yet nothing to tell a person about."""


def _inert_pickle(found: set[str]) -> types.SimpleNamespace:
    """The pickle module for `torch.load`; it adds the names of foreign objects to `found`.

    A pickle can only call what `find_class` returns: `torch.load` itself resolves storage types before it asks.
    """

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in _HARMLESS:
                return _HARMLESS[module, name]
            if (module, name) not in _TENSOR_TYPES:
                found.add(f"{module}.{name}")
            return type(name, (_Inert,), {"__module__": module})

    return types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler)
