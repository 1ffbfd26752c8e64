"""All that a map depends on; finished parts are used again only if nothing of it has changed."""

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any

from ..inference.windows import Network
from ..raster.remote import is_url
from ..raster.scene import Scene
from .part_jobs import PartSettings


def place_of(scene: str | os.PathLike[str]) -> str:
    """A scene's path without links, or its URL."""
    name = os.fspath(scene)
    if is_url(name):
        return name
    return os.path.realpath(name)


def digest_of(identity: dict[str, Any]) -> str:
    """A hash of `job_identity`, or of more that a map depends on."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def job_identity(
    scene: Scene,
    model: Network,
    settings: PartSettings,
) -> dict[str, Any]:
    """All that a map depends on: the files, how they are read, the model and its settings."""
    return {
        "scene": [place_of(scene.path), list(scene.stamps.values()), scene.bands],
        "reading": [scene.nodata, scene.palette_as_image],
        "area": None if scene.area is None else scene.area.digest,
        "grid": [scene.grid.width, scene.grid.height, list(scene.grid.transform)],
        "dtype": str(model.dtype),
        **asdict(settings),
    }
