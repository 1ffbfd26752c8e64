"""build.json: the facts about a built domain."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.documents import read_json

BUILD_FILE = "build.json"

_SOFTWARE = ("crossearth-hf", "datasets", "pyarrow", "pillow", "numpy", "rasterio")


def software() -> dict[str, str]:
    """The versions of the packages that decide what a build writes, and Python's."""
    return {name: importlib.metadata.version(name) for name in _SOFTWARE} | {
        "python": platform.python_version()
    }


def read_build(folder: Path) -> dict[str, Any]:
    """The build.json of a built domain; raises `InputError` if there is none that can be read."""
    if not (folder / BUILD_FILE).exists():
        raise InputError(
            f"{folder} is not a built domain; build it with `crossearth build-dataset`"
        )
    return read_json(folder / BUILD_FILE, "build the domain again")
