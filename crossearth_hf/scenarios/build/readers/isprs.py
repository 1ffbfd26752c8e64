"""Common parts of the two ISPRS data sets: the colors of their label files and the conversion to ids."""

from functools import partial

import numpy as np

from ....labels import IGNORE_INDEX, LabelSet, get_label_set
from ...domains import Domain
from ..label_values import Color, palette_ids
from ..pairs import RawPair

_BOUNDARY: Color = (0, 0, 0)
_MERGED = {
    "low_vegetation": "vegetation",
    "tree": "vegetation",
}  # ISPRS class -> class of the set "rescue"
_LEVEL = 128


def isprs_palette(label_set: LabelSet) -> dict[Color, int]:
    """Ids in `label_set` ("isprs", or "rescue", which merges low vegetation and tree) of the published colors.

    Black marks the boundaries of objects in the eroded ("noBoundary") files: ignored.
    """
    isprs = get_label_set("isprs")
    ids: dict[Color, int] = {}
    for name, color in zip(isprs.classes, isprs.colors, strict=True):
        if name not in label_set.classes:
            name = _MERGED[name]
        ids[color] = label_set.label2id[name]
    ids[_BOUNDARY] = IGNORE_INDEX
    return ids


def isprs_labels(pair: RawPair, domain: Domain, defective: frozenset[str]) -> np.ndarray:
    """(H, W) uint8 ids of a pair; label files of the pairs in `defective` are rounded to pure colors first."""
    repair = None
    if pair.name in defective:
        repair = to_pure_colors
    return palette_ids(pair.label, isprs_palette(domain.labels), repair)


def to_pure_colors(values: np.ndarray) -> np.ndarray:
    """Rounds every channel of (H, W, 3) uint8 to 0 or 255, because all published colors consist of these."""
    return np.where(values >= _LEVEL, np.uint8(255), np.uint8(0))


def label_reader(domain: Domain, defective: frozenset[str] = frozenset()) -> partial[np.ndarray]:
    """The `labels` of a `DomainSource`."""
    return partial(isprs_labels, domain=domain, defective=defective)
