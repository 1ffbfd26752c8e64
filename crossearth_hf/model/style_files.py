"""Files of style networks and style banks: safetensors, in which weights of 8 bits stay so."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

_INT8 = ".int8_scale"  # suffix of the scales of a weight that a file stores as int8


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    if not Path(path).is_file():
        raise ValueError(
            f"{path} does not exist or is not a file; give one that EarthStyle or StyleBank saved"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}); give one that crossearth_hf wrote"
        ) from error


def write_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file beside its place first: the old file may be memory-mapped, and a write may fail."""
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(
            f"{path} must end in .safetensors, for that is what is written; choose another name"
        )
    stage = Path(f"{path}.partial")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    stage.write_bytes(save(contiguous, {"format": "pt", **metadata}))
    stage.replace(path)


def packed(state: dict[str, Any]) -> dict[str, Tensor]:
    """Stores weights that are 8-bit numbers times one scale per output channel as both; others do not change."""
    stored = {}
    for name, weight in state.items():
        stored[name] = weight
        if weight.ndim < 2:
            continue
        scale = weight.abs().flatten(1).amax(dim=1).div(127).view(-1, *[1] * (weight.ndim - 1))
        numbers = (weight / scale.clamp_min(1e-30)).round().to(torch.int8)
        if torch.equal(numbers * scale, weight):
            stored |= {name: numbers, name + _INT8: scale}
    return stored


def unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `packed`, exact."""
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith(_INT8)}
    weights = {name: tensor for name, tensor in tensors.items() if name not in scales}
    return {name: tensor * scales.get(name + _INT8, 1) for name, tensor in weights.items()}


__all__ = ["packed", "read_tensors", "unpacked", "write_tensors"]
