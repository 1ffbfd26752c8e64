"""build.json: what a built domain says of itself."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from .archives import JSON_ERRORS

BUILD_FILE = "build.json"


def read_build(folder: Path) -> dict[str, Any]:
    """The build.json of a built domain; `InputError` if there is none that can be read."""
    try:
        return json.loads((folder / BUILD_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no built domain; build it with `crossearth build-dataset`") from error
    except JSON_ERRORS as error:
        raise InputError(f"{folder / BUILD_FILE} cannot be read ({error}); build the domain again") from error
