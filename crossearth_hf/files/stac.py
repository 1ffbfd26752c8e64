"""What the STAC items (https://stacspec.org, version 1.1) of maps and of models share."""

import json
import os
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import crossearth_hf

from ..errors import InputError
from ..labels import LabelSet
from .outputs import check_place, staged

CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_SOFTWARE = "crossearth-hf"


def check_item(path: Path, of: str) -> None:
    """Checks that an item may be written.

    Args:
        path: The item.
        of: What the item describes, such as "a map".

    Raises:
        InputError: Something else than our item is in its place, or the folder is not writable.
    """
    check_place(path, overwrite=True)
    if os.path.lexists(path) and not _is_own(path):
        raise InputError(
            f"{path} is not a STAC item of {of} and would be lost; move it, or choose another name"
        )


def write_item(path: Path, item: dict[str, Any]) -> None:
    """Writes an item, or replaces it in one step.

    Raises:
        InputError: The item cannot be written.
    """
    text = json.dumps(item, indent=1, ensure_ascii=False, allow_nan=False)
    with staged([path]) as (stage,):
        stage.write_text(text + "\n", encoding="utf-8")


def creation(now: datetime) -> dict[str, Any]:
    """The properties that say when and with what an item was made, by which we know our items again."""
    return {
        "created": time_text(now),
        "processing:software": {_SOFTWARE: crossearth_hf.__version__},
    }


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def time_text(moment: datetime) -> str:
    """A time in UTC as STAC writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def described_classes(label_set: LabelSet) -> list[dict[str, Any]]:
    """The classes in the terms of the extension `classification`."""
    classes: list[dict[str, Any]] = []
    for value, (name, color) in enumerate(zip(label_set.classes, label_set.colors, strict=True)):
        plain = re.sub(r"[^0-9A-Za-z_-]+", "_", name) or f"class_{value}"
        hint = "".join(f"{part:02X}" for part in color)
        classes.append(
            {"value": value, "name": plain, "title": name, "description": name, "color_hint": hint}
        )
    return classes


def _is_own(path: Path) -> bool:
    """Whether a file is an item that this package has written."""
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
        return _SOFTWARE in item["properties"]["processing:software"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
