"""Manifests: JSON files that list image and mask pairs of many sets, with the labeled classes of each pair."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import InputError, shown
from ..files.documents import read_json
from .labeled_images import PartialLabels

FORM = "FILE.json[:SET[@REGION]], where SET and REGION may be patterns such as 'naip_*'"
_NAMED = 12  # sets or regions in a message
_REMEDY = (
    'write {"pairs": [{"image": PATH, "mask": PATH, "labeled": [IDS], "complete": true}, ...]}'
)


@dataclass(frozen=True)
class ManifestEntry:
    """A pair in a manifest.

    Attributes:
        name: Set and name, joined by a slash.
        image, mask: Paths.
        region: Common name of pairs that a split keeps together.
        pixel_size: Meters on the ground per pixel; None if not given.
        partial: The labeled classes; None for all.
    """

    name: str
    image: Path
    mask: Path
    region: str
    pixel_size: float | None
    partial: PartialLabels | None


def is_manifest(source: str) -> bool:
    """Whether a data source names a manifest."""
    return ".json" in source and _parts(source)[0].endswith(".json")


def manifest_path(source: str) -> Path:
    """The file of the manifest."""
    return Path(_parts(source)[0])


def read_manifest(source: str) -> list[ManifestEntry]:
    """Reads the pairs of `FILE.json[:SET[@REGION]]`, in the order of the file.

    A manifest is a JSON object. Its "pairs" are objects with "image" and "mask", paths relative to the file, and may
    have "set", "name", "region", "gsd_m" (meters per pixel), "labeled" (ids of the labeled classes, by default all;
    "labelled" also works) and "complete" (whether the mask shows every pixel of these classes).

    Raises:
        InputError: The file does not exist or has another form, or a pattern matches no pair.
    """
    path, set_pattern, region_pattern = _parts(source)
    pairs = read_json(path, _REMEDY).get("pairs")
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) for pair in pairs):
        raise InputError(f"{path} holds no list of pairs; {_REMEDY}")
    chosen = [pair for pair in pairs if fnmatch(_of(pair, "set"), set_pattern)]
    entries = [
        _entry(pair, Path(path)) for pair in chosen if fnmatch(_of(pair, "region"), region_pattern)
    ]
    if entries:
        return entries
    choices = "the file holds none"
    if chosen:
        choices = (
            f"the regions of '{set_pattern}' are {_first(_of(pair, 'region') for pair in chosen)}"
        )
    elif pairs:
        choices = f"the sets are {_first(_of(pair, 'set') for pair in pairs)}"
    raise InputError(f"'{source}' matches no pair; its form is {FORM}, and {choices}")


def _of(pair: Mapping[str, Any], field: str) -> str:
    """Set or region of a pair as text."""
    return str(pair.get(field, ""))


def _first(names: Iterable[str]) -> str:
    """The first of some names, each once."""
    distinct = sorted(set(names))
    if len(distinct) > _NAMED:
        distinct = [*distinct[:_NAMED], "..."]
    return "; ".join(distinct)


def _parts(source: str) -> tuple[str, str, str]:
    """File, pattern of sets and pattern of regions."""
    head, json, tail = source.partition(".json")
    if not tail.startswith(":"):
        return source, "*", "*"
    sets, at, regions = tail[1:].partition("@")
    if not at:
        regions = "*"
    return head + json, sets or "*", regions


def _entry(pair: Mapping[str, Any], path: Path) -> ManifestEntry:
    for key in ("image", "mask"):
        if not isinstance(pair.get(key), str):
            raise InputError(f"{path} has a pair whose {key} is {shown(pair.get(key))}; {_REMEDY}")
    size = pair.get("gsd_m")
    if size is not None and not (isinstance(size, int | float) and size > 0):
        raise InputError(
            f"{path} gives {pair['image']} the gsd_m {shown(size)}; write meters per pixel, or null"
        )
    return ManifestEntry(
        name="/".join(str(pair[key]) for key in ("set", "name") if key in pair)
        or Path(pair["image"]).stem,
        image=path.parent / pair["image"],
        mask=path.parent / pair["mask"],
        region=str(pair.get("region", "")),
        pixel_size=size,
        partial=_partial(pair, path),
    )


def _partial(pair: Mapping[str, Any], path: Path) -> PartialLabels | None:
    labeled = pair.get("labeled", pair.get("labelled"))
    if labeled is None:
        return None
    complete = pair.get("complete", False)
    ids = isinstance(labeled, list) and labeled and all(type(index) is int for index in labeled)
    if not ids or not isinstance(complete, bool):
        raise InputError(
            f"{path} says of {pair['image']} labeled {shown(labeled)} and complete {shown(complete)}; write a list of "
            "class ids, and true or false"
        )
    return PartialLabels(tuple(labeled), complete)
