"""A YAML file that names rasters and the polygons that label them."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from .polygon_sources import PolygonSource

FIELDS = (
    *("images", "polygons", "layer", "class_column", "class_name"),
    *("unlabeled", "labeled_area", "labeled_area_layer"),
)
"""Fields of the file; `PolygonSource` documents them."""


def polygon_source(content: Mapping[str, Any], file: Path) -> PolygonSource:
    """Reads the polygons and rasters that a YAML file describes.

    Args:
        content: Content of the file. Paths start from its folder; an image may be a pattern such as tiles/*.tif.
        file: Path of the file.

    Raises:
        InputError: A field is missing, unknown or no text, or a pattern matches nothing.
    """
    for name in content:
        if name not in FIELDS:
            raise InputError(
                f"{file} has the field {shown(name)}; those of polygons are {', '.join(FIELDS)}"
            )
    fields: dict[str, Any] = {}
    for name in FIELDS:
        if name != "images" and content.get(name) is not None:
            fields[name] = _text(content[name], name, file)
    if "polygons" not in fields:
        raise InputError(f"{file} has no field 'polygons'; name the file that holds the labels")
    for name in ("polygons", "labeled_area"):
        if name in fields:
            fields[name] = file.parent / fields[name]
    return PolygonSource(images=_images(content.get("images"), file), **fields)


def _images(value: Any, file: Path) -> list[Path]:
    """The rasters by path or pattern, each once."""
    names = value
    if not isinstance(value, list):
        names = [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"{file} has images {shown(value)}; write a path, a pattern such as tiles/*.tif, or a list"
        )
    found: dict[Path, None] = {}
    for name in names:
        path = file.parent / name
        if path.exists() or not glob.has_magic(name):
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise InputError(f"{file}: no file matches the images {shown(name)}; check the pattern")
        found |= dict.fromkeys(matches)
    return list(found)


def _text(value: Any, name: str, file: Path) -> str:
    """The value of a text field."""
    if isinstance(value, str) and value:
        return value
    raise InputError(
        f"{file} has {name} {shown(value)}; write it as one text, in quotes where it is a number"
    )
