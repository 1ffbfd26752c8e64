"""onnxruntime and OpenVINO in PyTorch's place: they compute the exported network, on the processor, in float32."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import cached_assets_path
from torch import Tensor

from ..arguments import check_texts
from ..errors import InputError, reason_of, shown
from ..files.outputs import staged
from ..inference.model_digest import model_digest
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor, semantic_scores
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .graph import check_packages, logits_graph
from .networks import CLASSES, INPUT, MASKS

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Computes outputs by their names from (B, C, H, W) float32 pixels; both have memory of their own."""

_SIDES = 96, 160  # of the images by which an engine is checked
_MOST_OFF = 1e-4  # of the largest score; right engines differ by 1e-6


class QueryLogits(NamedTuple):
    """What windows need of a model's output: (B, Q, K+1) and (B, Q, H/4, W/4)."""

    class_queries_logits: Tensor
    masks_queries_logits: Tensor


class EngineNetwork:
    """A model that an engine computes, for `WindowScorer` and maps.

    Args:
        model: In float32, on the processor.
        run: Computes its graph.
    """

    def __init__(self, model: CrossEarthForSemanticSegmentation, run: Run) -> None:
        self.config: CrossEarthConfig = model.config
        self._model, self._run = model, run

    @property
    def device(self) -> torch.device:
        """The processor."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The precision of pixels and logits."""
        return torch.float32

    def state_dict(self) -> Mapping[str, Tensor]:
        """The model's weights."""
        return self._model.state_dict()

    def __call__(self, *, pixel_values: Tensor) -> QueryLogits:
        """Logits of (B, C, H, W) normalized windows; raises `RuntimeError` or `MemoryError`."""
        outputs = self._run(pixel_values.contiguous().numpy())
        return QueryLogits(torch.from_numpy(outputs[CLASSES]), torch.from_numpy(outputs[MASKS]))


@dataclass(frozen=True)
class _Engine:
    """An engine: the packages it needs, the extra that has them, and what opens a graph's file."""

    packages: tuple[str, ...]
    extra: str
    opened: Callable[[Path], Run]


def check_engine(engine: str) -> None:
    """Raises `TypeError` for what is no text, `InputError` for an unknown engine or one that is not installed."""
    check_texts(engine=engine)
    if engine not in ENGINES:
        raise InputError(
            f"unknown engine {shown(engine)}; choose one of {', '.join(ENGINES)}, or leave it out for PyTorch"
        )
    needed = ENGINES[engine]
    check_packages(f"the engine {engine}", needed.packages, needed.extra)


def engine_network(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    engine: str,
    *,
    tell: Callable[[str], None] | None = None,
) -> EngineNetwork:
    """The model as an engine computes it, with as many threads as PyTorch has.

    Tracing a model takes minutes, so its graph is kept in the Hugging Face library's cache of assets, under a hash of
    the model. A graph whose scores of an image are not those of the model is never used, wherever it comes from; one
    from the cache is traced again.

    Args:
        model, processor: As `load_model` returns them.
        engine: One of `ENGINES`.
        tell: Receives a sentence before a long wait; None for silence.

    Raises:
        InputError: As `check_engine`; or the model is not in float32 on the processor, cannot be traced or comes out
            wrong, or the cache cannot be written.
    """
    check_engine(engine)
    if model.device.type != "cpu" or model.dtype != torch.float32:
        precision = str(model.dtype).removeprefix("torch.")
        raise InputError(
            f"the engine {engine} computes in float32 on the processor, not in {precision} on {model.device.type}; "
            "leave out --dtype and --device, or --engine"
        )
    path = _kept_graph(model, processor)
    if path.is_file():
        try:
            return _checked(model, engine, path)
        except InputError:  # a damaged file
            path.unlink(missing_ok=True)
            shutil.rmtree(_compiled(path), ignore_errors=True)
    if tell is not None:
        tell(
            f"the model is traced for {engine}, once, which takes minutes; its graph is kept in {path}"
        )
    _write_graph(model, path)
    return _checked(model, engine, path)


def _kept_graph(
    model: CrossEarthForSemanticSegmentation, processor: CrossEarthImageProcessor
) -> Path:
    try:
        folder = cached_assets_path("crossearth_hf", "graphs")
    except OSError as error:
        raise InputError(
            f"the cache of graphs cannot be made: {reason_of(error)}; name a folder that can be written in the "
            "environment variable HF_ASSETS_CACHE"
        ) from error
    return folder / f"{model_digest(model, processor)}.onnx"


def _write_graph(model: CrossEarthForSemanticSegmentation, path: Path) -> None:
    try:
        graph = logits_graph(model).SerializeToString()
    except Exception as error:  # the exporter wraps whatever a network of a new kind makes it raise
        raise InputError(
            f"the model cannot be traced: {reason_of(error)}; leave out --engine"
        ) from error
    with staged([path]) as (stage,):
        stage.write_bytes(graph)


@torch.inference_mode()
def _checked(model: CrossEarthForSemanticSegmentation, engine: str, path: Path) -> EngineNetwork:
    """The graph in a file, opened; `InputError` unless its scores of two images are those of the model."""
    try:
        network = EngineNetwork(model, ENGINES[engine].opened(path))
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(2, model.config.num_channels, *_SIDES, generator=generator)
        found, expected = (
            semantic_scores(each.class_queries_logits, each.masks_queries_logits, _SIDES)
            for each in (network(pixel_values=pixels), model(pixel_values=pixels))
        )
    except Exception as error:  # engines raise errors of their own
        raise InputError(
            f"{engine} cannot compute this model: {reason_of(error)}; leave out --engine"
        ) from error
    off = float((found - expected).abs().max() / expected.abs().max())
    if not off <= _MOST_OFF:
        raise InputError(
            f"{engine} computes this model wrongly: scores are off by {off:.1%} of the largest one; leave out --engine"
        )
    return network


def _onnxruntime(path: Path) -> Run:
    import onnxruntime  # noqa: PLC0415 - an optional dependency

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait would take the cores from PyTorch's, which add up scores between two batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return dict(zip(names, session.run(names, {INPUT: pixels}), strict=True))
        # Its errors, lack of memory too, are of no class that others know.
        except Exception as error:
            raise RuntimeError(str(error)) from error

    return run


def _compiled(path: Path) -> Path:
    """The folder in which OpenVINO keeps what it compiles of a graph."""
    return path.with_suffix(".openvino")


def _openvino(path: Path) -> Run:
    import openvino  # noqa: PLC0415 - an optional dependency

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # processes that share a machine would all be on its first cores
    }
    core = openvino.Core()
    core.set_property({"CACHE_DIR": _compiled(path)})  # compiling takes seconds
    compiled = core.compile_model(path, "CPU", settings)

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        outputs = compiled({INPUT: pixels}, share_inputs=True, share_outputs=False)
        return {name: outputs[name] for name in (CLASSES, MASKS)}

    return run


_EXPORTER = ("onnx", "onnxscript")

ENGINES = {
    "onnxruntime": _Engine((*_EXPORTER, "onnxruntime"), "onnx", _onnxruntime),
    "openvino": _Engine((*_EXPORTER, "openvino"), "openvino", _openvino),
}
"""Engines by their names."""
