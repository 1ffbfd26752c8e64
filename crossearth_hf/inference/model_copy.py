"""A model's folder written anew with something changed: other fields of its configuration, other weights."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..files.documents import read_json
from ..files.downloads import CONFIG, WEIGHTS
from ..files.outputs import check_outside, check_place, check_replaced, staged

_OF_A_RUN = ("checkpoint", "log.jsonl", "split.json", "best", "adapter", "tensorboard")
"""What a training run leaves beside its model, which a copy does not need."""
REMEDY = "save or convert the model again"

NO_READ_OUT = {"class_factors": None, "confidence_temperature": None}
"""Fields of a configuration for a model whose scores are not those that `crossearth calibrate` has seen."""


def check_copy(
    folders: Sequence[Path], output_dir: str | os.PathLike[str], *, overwrite: bool
) -> Path:
    """The folder of the copy; arguments and errors are those of `model_copy`."""
    target = check_place(Path(output_dir).expanduser(), overwrite=overwrite)
    check_outside(folders, target)
    if target.exists():
        check_replaced(target, folders[0])
    return target


@contextmanager
def model_copy(
    folders: Sequence[Path], output_dir: str | os.PathLike[str], *, overwrite: bool
) -> Iterator[Path]:
    """Yields a copy of the first folder without what only its training needs; at a regular end it takes its place.

    Args:
        folders: The models that are read; none of them may lie in `output_dir`.
        output_dir: The new folder.
        overwrite: Whether an existing model folder may be replaced.

    Raises:
        InputError: `output_dir` exists, holds other files or cannot be written.
    """
    target = check_copy(folders, output_dir, overwrite=overwrite)
    with staged([target]) as (stage,):
        shutil.copytree(folders[0], stage, ignore=shutil.ignore_patterns(".*", *_OF_A_RUN))
        yield stage
        if target.exists():
            check_replaced(target, stage)


def change_config(folder: Path, fields: Mapping[str, Any]) -> None:
    """Writes fields into the configuration of a copy; those with None are removed."""
    config = {**read_json(folder / CONFIG, REMEDY), **fields}
    kept = {
        name: value for name, value in config.items() if value is not None or name not in fields
    }
    (folder / CONFIG).write_text(f"{json.dumps(kept, indent=2)}\n", encoding="utf-8")


def replace_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes the weights of a copy."""
    (folder / WEIGHTS).unlink()
    save_file(dict(weights), folder / WEIGHTS, {"format": "pt"})
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors lets only the owner read
