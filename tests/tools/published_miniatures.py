"""Miniatures of the authors' files: their crops, classes and pickled company, in a network of width 64."""

import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published import random_tensors
from tiny_model import VIT, tiny_config
from torch import Tensor

SIZES = "num_attention_heads: 4\nout_indices: [0, 1, 2, 3]\ngroup_norm_groups: 8\n"
"""A `--config` file for what shapes of the miniature cannot show."""
LISTED = {  # as the authors' data set classes list them
    "isprs": ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter"),
    "rescue": ("impervious_surface", "building", "vegetation", "car", "clutter"),
    "building": ("Building", "Background"),
    "road": ("Road", "Background"),
    "casid": ("Background", "Building", "Forest", "Road", "Water"),
}
TRAINING_ONLY = (
    "auxiliary_head.conv.weight",
    "backbone.reins.image_convs.0.weight",
    "style_augmentor.mean",
    "style_augmentor.transfer",
)


@contextmanager
def training_log() -> Iterator[Any]:
    """A class that pickles as mmengine's log, which is not installed."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = buffer
    names = ("mmengine", "mmengine.logging", module.__name__)
    sys.modules.update(dict.fromkeys(names, module))
    try:
        yield buffer
    finally:
        for name in names:
            del sys.modules[name]


def company(name: str, tensor: Tensor) -> Tensor:
    """`tensor` as training leaves it: a parameter, or a tensor with attributes, by turns."""
    kind = len(name) % 3
    if kind == 0:
        return tensor
    carried = torch.nn.Parameter(tensor) if kind == 1 else tensor.clone()
    carried.init_note = name  # pickled with _rebuild_parameter_with_state or _rebuild_from_type_v2
    return carried


def miniature_tensors(label_set: str, crop: int) -> dict[str, Tensor]:
    """The state dict of a published file, positions of its crop included."""
    return random_tensors(
        tiny_config(backbone_config=VIT | {"image_size": crop}, num_labels=len(LISTED[label_set]))
    )


def write_miniature(path: Path, label_set: str, crop: int) -> dict[str, Tensor]:
    """Writes a file like the authors': tensors of several kinds, modules of training, metadata and a log beside."""
    tensors = miniature_tensors(label_set, crop)
    state = OrderedDict((name, company(name, tensor)) for name, tensor in tensors.items())
    state |= {name: torch.zeros(2, 2) for name in TRAINING_ONLY[:3]}
    state["style_augmentor.transfer"] = torch.eye(3).to_sparse()
    with training_log() as buffer:
        log = buffer()
        log.values = np.zeros(3)
        content = {
            "meta": {"dataset_meta": {"classes": LISTED[label_set], "palette": [[0, 0, 0]]}},
            "state_dict": state,
            "message_hub": {"log_scalars": {"train/loss": log}},
        }
        torch.save(content, path)
    return tensors
