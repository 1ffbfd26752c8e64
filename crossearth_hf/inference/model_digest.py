"""A hash by which two processes or two runs know that they have the same model."""

import hashlib
import json
from typing import Any

import torch

import crossearth_hf

from ..model.image_processing_crossearth import CrossEarthImageProcessor
from .windows import Network

_INCIDENTAL = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "transformers_version",
}  # no effect on maps


def model_digest(model: Network, processor: CrossEarthImageProcessor) -> str:
    """A hash of all that determines a model's output: configuration, weights, normalization, version of the package.

    Weights enter as the sum of the bits of each tensor, which is fast and the same on every device.
    """
    config = json.loads(json.dumps(model.config.to_dict(), default=str), object_hook=_lasting)
    normalization = [processor.image_mean, processor.image_std, processor.rescale_factor]
    digest = hashlib.sha256(
        json.dumps([crossearth_hf.__version__, config, normalization], sort_keys=True).encode()
    )
    for name, tensor in model.state_dict().items():
        bits = tensor.detach().contiguous().flatten().view(torch.uint8)
        wide = bits.numel() % 8 == 0 and bits.storage_offset() % 8 == 0
        # wide integers are much faster
        total = (bits.view(torch.int64) if wide else bits).sum(dtype=torch.int64)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {int(total)}\n".encode())
    return digest.hexdigest()


def _lasting(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _INCIDENTAL}
