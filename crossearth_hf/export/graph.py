"""From a network to a graph in ONNX, for every size of images."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from .networks import INPUT, PATCH, Traceable

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

OPSET = 20
"""Version of ONNX's operators: the first with all that the network needs as one node each."""

# Batch, height and width that no part of a network treats as a special case.
_EXAMPLE = (2, 6 * PATCH, 10 * PATCH)


def check_packages(what: str, packages: Sequence[str], extra: str) -> None:
    """Raises `InputError` if packages are missing, or PyTorch is too old to trace networks.

    Args:
        what: What needs them, the subject of the message.
        packages: Names of modules.
        extra: The package's extra that has them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing or not hasattr(torch.compiler, "is_exporting"):
        needed = ", ".join(missing) or "a newer PyTorch"
        raise InputError(f"{what} needs {needed}; run: pip install 'crossearth-hf[{extra}]'")


def traced(network: Traceable, channels: int) -> "ModelProto":
    """The graph of a network in float32 for images of `channels` channels."""
    form = network.form
    if form.sides is None:
        batch, height, width = _EXAMPLE
        rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        free = {0: torch.export.Dim("batch", min=1), 2: PATCH * rows, 3: PATCH * columns}
    else:
        batch, (height, width), free = 1, form.sides, {}
    example = torch.zeros(batch, channels, height, width)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(form.outputs),
            dynamic_shapes={INPUT: free},
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None only where a path to write to is given
    proto = program.model_proto
    if form.sides is None:
        _name_sides(proto.graph.input[0], ("height", "width"))
        _name_sides(proto.graph.output[0], form.output_sides)
        del proto.graph.value_info[:]  # they have other names for these sides
    return proto


def _name_sides(value: "ValueInfoProto", names: tuple[str, str]) -> None:
    dims = value.type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = names


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out the exporter's remarks on itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
