"""From a model to a graph in ONNX, for every size of images.

The network is traced alone, which takes minutes; what a kind of file adds to it is traced in seconds and joined to it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .networks import CLASSES, INPUT, MASKS, PATCH, SCORES, Form, LogitsNetwork

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

OPSET = 20
"""Version of ONNX's operators: the first with all that the network needs as one node each."""

# Batch, rows and columns of patches that no part of a network treats as a special case.
_BATCH, _ROWS, _COLUMNS = 2, 6, 10


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


def logits_graph(model: CrossEarthForSemanticSegmentation) -> "ModelProto":
    """The graph of a model in float32, from normalized images to the logits of its queries."""
    images = torch.zeros(_BATCH, model.config.num_channels, PATCH * _ROWS, PATCH * _COLUMNS)
    return _traced(LogitsNetwork(model), {INPUT: images}, [MASKS, CLASSES], PATCH)


def file_graph(logits: "ModelProto", form: Form) -> "ModelProto":
    """The graph of a file: that of the logits, with what comes before and after it.

    Args:
        logits: What `logits_graph` returns.
        form: What goes into the file and what comes out.
    """
    channels = _dims(logits.graph.input[0])[1].dim_value
    _, queries, classes = (dim.dim_value for dim in _dims(logits.graph.output[1]))
    examples = {
        MASKS: torch.zeros(_BATCH, queries, 4 * _ROWS, 4 * _COLUMNS),
        CLASSES: torch.zeros(_BATCH, queries, classes),
    }
    graph = _joined(logits, _traced(form.after, examples, [SCORES]))
    if form.before is not None:
        images = torch.zeros(_BATCH, channels, PATCH * _ROWS, PATCH * _COLUMNS)
        graph = _joined(_traced(form.before, {INPUT: images}, ["normalized"]), graph)
    ends = (graph.graph.input[0], ("height", "width")), (graph.graph.output[0], form.output_sides)
    for value, sides in ends:
        _name_sides(value, sides)
        if form.side is not None:
            for index, size in ((0, 1), (2, form.side), (3, form.side)):
                _dims(value)[index].dim_value = size
    del graph.graph.value_info[:]  # they have other names for these sides
    return graph


def _traced(
    network: nn.Module, examples: Mapping[str, Tensor], outputs: Sequence[str], multiple: int = 1
) -> "ModelProto":
    """The graph of a network whose batch is free, and whose height and width are free multiples.

    Args:
        network: Takes the examples in their order.
        examples: Inputs by their names; images have four dimensions.
        outputs: Names of what it returns.
        multiple: What heights and widths are multiples of.
    """
    batch = torch.export.Dim("batch", min=1)
    rows, columns = (multiple * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    free = tuple(
        {0: batch, 2: rows, 3: columns} if x.ndim == 4 else {0: batch} for x in examples.values()
    )
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=free,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None only where a path to write to is given
    return program.model_proto


def _joined(first: "ModelProto", second: "ModelProto") -> "ModelProto":
    """The second graph behind the first, whose outputs become its inputs in their order."""
    from onnx.compose import add_prefix, merge_models  # noqa: PLC0415

    prefix = f"{first.graph.output[0].name}/"
    second = add_prefix(second, prefix, rename_outputs=False)
    ends = zip(first.graph.output, second.graph.input, strict=True)
    merged = merge_models(first, second, [(output.name, input.name) for output, input in ends])
    del merged.opset_import[1:]  # both have the same
    return merged


def _dims(value: "ValueInfoProto") -> Any:
    return value.type.tensor_type.shape.dim


def _name_sides(value: "ValueInfoProto", names: tuple[str, str]) -> None:
    dims = _dims(value)
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
