"""All that a map depends on; finished parts and maps are used again only if nothing of it has changed."""

import hashlib
import json
import os
from dataclasses import asdict
from typing import Any

import crossearth_hf

from ..inference.windows import Network
from ..raster.remote import is_url
from ..raster.scene import Reading, Scene
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


def map_job(
    reading: Reading,
    model: Network,
    digest: str,
    *,
    window: int,
    stride: int,
    tta: bool,
    engine: str | None,
) -> str:
    """The version of the package, and a hash of what decides the classes of a map besides its scene.

    Files of scenes may be moved or copied, and devices and batch sizes may differ: the map is the same.

    Args:
        reading: How scenes are read, as a person asked for it.
        model: The model.
        digest: Its `model_digest`.
        window, stride, tta, engine: As in `PartSettings`.
    """
    identity = {
        "reading": [reading.bands, reading.nodata, reading.palette_as_image, reading.resolution],
        "area": None if reading.area is None else reading.area.digest,
        "model": [digest, str(model.dtype), engine],
        "windows": [window, stride, tta],
    }
    return f"{crossearth_hf.__version__} {digest_of(identity)}"


def is_of_another_job(found: str | None, job: str) -> bool:
    """Whether a map with one `map_job` is not that of another; maps of other versions of the package may be."""
    return found is not None and found != job and _version(found) == _version(job)


def _version(job: str) -> str:
    return job.partition(" ")[0]
