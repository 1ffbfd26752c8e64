"""build.json: what a built domain says of itself."""

from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files.documents import read_json

BUILD_FILE = "build.json"


def read_build(folder: Path) -> dict[str, Any]:
    """The build.json of a built domain; `InputError` if there is none that can be read."""
    if not (folder / BUILD_FILE).exists():
        raise InputError(f"{folder} is not a built domain; build it with `crossearth build-dataset`")
    return read_json(folder / BUILD_FILE, "build the domain again")
