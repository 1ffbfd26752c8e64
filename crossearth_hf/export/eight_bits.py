"""Weights, and activations where they are calibrated, in 8 bits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import InputError
from ..inference.normalization import normalize_pixels
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..synthetic import DOMAINS, generate_scene

_IMAGES = 64  # of calibration; our choice


class Calibration(NamedTuple):
    """Images by which ranges of activations are found: SynthEarth, `side` pixels high and wide, normalized."""

    processor: CrossEarthImageProcessor
    side: int

    def images(self) -> Iterator[np.ndarray]:
        """(1, 3, side, side) float32 each, of all domains in turn; `InputError` for other than three channels."""
        mean, std = self.processor.image_mean, self.processor.image_std
        if len(mean) != 3:
            raise InputError(
                f"OpenVINO's int8 is calibrated on RGB images, and the model takes {len(mean)} channels; export it "
                "without --int8"
            )
        names = list(DOMAINS)
        for index in range(_IMAGES):
            scene = generate_scene(names[index % len(names)], index, self.side, self.side)
            pixels = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
            factor = self.processor.rescale_factor
            yield normalize_pixels(pixels, mean=mean, std=std, rescale_factor=factor).numpy()


def quantize_onnx(source: Path, target: Path) -> None:
    """Weights of matrix products in 8 bits, one scale per channel; activations get theirs when the file runs."""
    import onnx  # noqa: PLC0415
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    graph = onnx.load(source).graph
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    # onnxruntime has no scale per channel for stacks of matrices, such as the factors of Rein's tokens.
    stacks = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and axes.get(node.input[1], 2) != 2
    ]
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=stacks,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )


def quantize_openvino(model: Any, calibration: Calibration) -> Any:
    """An `openvino.Model` for normalized images with weights and activations in 8 bits."""
    import nncf  # noqa: PLC0415

    return nncf.quantize(
        model,
        nncf.Dataset(list(calibration.images())),
        subset_size=_IMAGES,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )
