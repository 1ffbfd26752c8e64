"""Values of the records of Hugging Face `datasets`: images and masks as files, maps of ids, the size of a pixel."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from ..errors import InputError
from .image_files import File

PIXEL_SIZE_COLUMN = "pixel_size"
"""Column with meters on the ground per pixel, written by `crossearth build-dataset` for a person's own data."""


def pixel_size_of(record: Mapping[str, Any]) -> float | None:
    """Meters on the ground per pixel; None if a record does not hold it."""
    value = record.get(PIXEL_SIZE_COLUMN)
    if isinstance(value, int | float) and value > 0:
        return float(value)
    return None


def flat(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Removes an additional axis of length one from an array of (H, W) `size`; others do not change."""
    shapes = {(1, *size): (0,), (*size, 1): (-1,)}
    if values.shape in shapes:
        return np.squeeze(values, axis=shapes[values.shape])
    return values


def file_of(value: Any, name: str) -> File:
    """Path or bytes of an undecoded value."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return value["bytes"]
    if isinstance(value, Mapping) and value.get("path"):
        return _fetched(value["path"], name)
    raise InputError(
        f"{name} holds a {type(value).__name__} where an image is wanted; store it as an Image feature"
    )


def _fetched(path: str, name: str) -> File:
    """A local path, or the bytes of a remote file."""
    if os.path.isfile(path):
        return Path(path)
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} cannot be fetched from {path} ({error}); check the network and go on"
        ) from error
