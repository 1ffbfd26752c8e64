"""Graphs to files: ONNX, and OpenVINO's own format (IR), a graph in .xml with its weights in .bin beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .eight_bits import Calibration, quantize_onnx, quantize_openvino
from .networks import INPUT

if TYPE_CHECKING:
    from onnx import ModelProto

_SIDES = 96, 160  # of the image by which OpenVINO is checked
_MOST_OFF = 1e-4  # of the largest score; right graphs differ by 1e-6


def write_onnx(proto: "ModelProto", path: Path, int8: Calibration | None) -> None:
    """Writes a graph as it is, or with its products in 8 bits."""
    if int8 is None:
        path.write_bytes(proto.SerializeToString())
        return
    source = _source(proto, path)
    quantize_onnx(source, path)
    source.unlink()


def write_openvino(proto: "ModelProto", path: Path, int8: Calibration | None) -> None:
    """Writes PATH.xml and PATH.bin in the graph's precision or in 8 bits; metadata goes to `rt_info`, `crossearth`.

    Raises:
        InputError: OpenVINO computes the graph wrongly.
    """
    import openvino  # noqa: PLC0415

    source = _source(proto, path)
    core = openvino.Core()
    model = core.read_model(source)  # `convert_model` would send telemetry
    channels = proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    _check(core, model, source, channels)
    if int8 is not None:
        model = quantize_openvino(model, int8)
    for entry in proto.metadata_props:
        model.set_rt_info(entry.value, ["crossearth", entry.key])
    openvino.save_model(model, path, compress_to_fp16=False)
    source.unlink()


def _check(core: Any, model: Any, source: Path, channels: int) -> None:
    """Raises `InputError` unless OpenVINO's scores of an image are those of onnxruntime.

    OpenVINO 2026.4 computes some graphs wrongly, such as a plain ViT's of one fixed size, and says nothing.
    """
    import onnxruntime  # noqa: PLC0415
    import openvino  # noqa: PLC0415

    pixels = np.random.default_rng(0).standard_normal((1, channels, *_SIDES), dtype=np.float32)
    expected = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"]).run(
        None, {INPUT: pixels}
    )[0]
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({INPUT: pixels})[0]
    off = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not off <= _MOST_OFF:
        raise InputError(
            f"OpenVINO {openvino.__version__.split('-')[0]} computes this model wrongly: scores are off by {off:.1%} "
            "of the largest one; export it to ONNX instead"
        )


def _source(proto: "ModelProto", path: Path) -> Path:
    """A working file beside `path`, in the hidden folder that its caller removes in any case."""
    source = path.with_suffix(".float32.onnx")
    source.write_bytes(proto.SerializeToString())
    return source
