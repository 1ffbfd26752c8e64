"""`export_model`, from a model folder to a file that runs without Python."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import crossearth_hf

from ..arguments import check_flags, check_paths, check_texts
from ..errors import InputError, reason_of, shown
from ..files.outputs import check_output, staged
from ..inference.loading import load_model, model_folder
from .eight_bits import Calibration
from .graph import check_packages, file_graph, logits_graph
from .metadata import deepness_metadata, file_metadata
from .networks import scores_form, tile_form
from .writing import write_onnx, write_openvino

if TYPE_CHECKING:
    from onnx import ModelProto

_LARGEST = 2**31 - 2**20  # bytes; protocol buffers, which ONNX consists of, end at 2 GiB


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        files: The files, that to name first.
        input, output: What goes in and what comes out, in a sentence each.
        bytes: Size of all files.
    """

    files: tuple[Path, ...]
    input: str
    output: str
    bytes: int


@dataclass(frozen=True)
class _Format:
    """A format: its suffix, that of a second file, the packages it needs, for 8 bits too, what writes it."""

    suffix: str
    beside: tuple[str, ...]
    packages: tuple[str, ...]
    packages_int8: tuple[str, ...]
    write: Callable[["ModelProto", Path, "Calibration | None"], None]


def export_model(
    model: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    format: str = "onnx",
    full_resolution: bool = False,
    deepness: bool = False,
    int8: bool = False,
    overwrite: bool = False,
) -> ExportReport:
    """Writes a model as a file for other programs, as `crossearth export` does.

    Args:
        model: Folder or Hub id; None for the bundled model.
        out: File to write: .onnx, or .xml for OpenVINO, whose weights go to a .bin beside it.
        format: "onnx" or "openvino".
        full_resolution: Whether scores are as large as the images, not a quarter of it.
        deepness: Whether the file is one for QGIS's plugin Deepness: square tiles of one size, shares of the classes.
        int8: Whether to compute in 8 bits: in ONNX the products of matrices, whose inputs are measured when the file
            runs; in OpenVINO what NNCF finds, with inputs measured on SynthEarth.
        overwrite: Whether files that exist are replaced.

    Raises:
        TypeError: An argument has the wrong type.
        InputError: The format is unknown, options exclude each other, a package is missing, the model does not load or
            is too large for the format, or the path cannot be written.
    """
    check_paths(out=out)
    check_texts(format=format)
    check_flags(full_resolution=full_resolution, deepness=deepness, int8=int8, overwrite=overwrite)
    if format not in FORMATS:
        raise InputError(f"unknown format {shown(format)}; choose one of {', '.join(FORMATS)}")
    if deepness and format != "onnx":
        raise InputError(f"Deepness reads ONNX, not {format}; leave out --format, or --deepness")
    chosen = FORMATS[format]
    needed = chosen.packages
    if int8:
        needed += chosen.packages_int8
    check_packages(f"the format {format}", needed, format)
    target = check_output(out, (chosen.suffix,), overwrite=overwrite)
    targets = [
        target,
        *(check_output(target.with_suffix(s), (s,), overwrite=overwrite) for s in chosen.beside),
    ]
    folder = model_folder(model)
    loaded, processor = load_model(folder, device="cpu")
    if deepness:
        form = tile_form(loaded, processor)
        extra = deepness_metadata(loaded)
    else:
        form = scores_form(loaded, full_resolution=full_resolution)
        extra = {}
    try:
        proto = file_graph(logits_graph(loaded), form)
    except Exception as error:  # the exporter wraps whatever a network of a new kind makes it raise
        raise InputError(
            f"{folder} cannot be exported: {reason_of(error)}; export a model that crossearth train or convert made"
        ) from error
    described = file_metadata(loaded, processor, folder, form) | extra
    _describe(proto, described)
    _check_size(proto)
    with staged(targets) as stages:
        chosen.write(
            proto,
            stages[0],
            Calibration(processor, int(loaded.config.image_size)) if int8 else None,
        )
    return ExportReport(
        tuple(targets),
        form.input,
        form.output,
        sum(path.stat().st_size for path in targets),
    )


def _describe(proto: "ModelProto", metadata: dict[str, str]) -> None:
    """Puts metadata into a graph."""
    from onnx.helper import set_model_props  # noqa: PLC0415

    proto.producer_name, proto.producer_version = crossearth_hf.__name__, crossearth_hf.__version__
    set_model_props(proto, metadata)


def _check_size(proto: "ModelProto") -> None:
    size = proto.ByteSize()
    if size > _LARGEST:
        raise InputError(
            f"the model has {size / 2**30:.1f} GiB in float32, and a graph holds at most 2; export a smaller one"
        )


FORMATS = {
    "onnx": _Format(".onnx", (), ("onnx", "onnxscript"), ("onnxruntime",), write_onnx),
    "openvino": _Format(
        ".xml",
        (".bin",),
        ("onnx", "onnxscript", "onnxruntime", "openvino"),
        ("nncf",),
        write_openvino,
    ),
}
"""Formats by their names."""
