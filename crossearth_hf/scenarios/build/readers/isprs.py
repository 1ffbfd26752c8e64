"""What the two ISPRS data sets share: the colors of their label files and how these become ids."""

from functools import partial

import numpy as np

from ....labels import IGNORE_INDEX, LabelSet, get_label_set
from ...scenarios import Domain
from ..label_values import Color, palette_ids
from ..pairs import RawPair

_BOUNDARY: Color = (0, 0, 0)
_MERGED = {"low_vegetation": "vegetation", "tree": "vegetation"}  # ISPRS class -> class of the set "rescue"
_LEVEL = 128


def isprs_palette(label_set: LabelSet) -> dict[Color, int]:
    """Ids in `label_set` ("isprs", or "rescue", which merges low vegetation and tree) of the published colors.

    Black marks the boundaries of objects in the eroded ("noBoundary") files: ignored.
    """
    isprs = get_label_set("isprs")
    names = {name: name if name in label_set.classes else _MERGED[name] for name in isprs.classes}
    ids = {color: label_set.label2id[names[name]] for name, color in zip(isprs.classes, isprs.colors, strict=True)}
    return {**ids, _BOUNDARY: IGNORE_INDEX}


def isprs_labels(pair: RawPair, domain: Domain, defective: frozenset[str]) -> np.ndarray:
    """(H, W) uint8 ids of a pair; label files of the pairs in `defective` are rounded to pure colors first."""
    if pair.name in defective:
        repair = to_pure_colors
    else:
        repair = None
    return palette_ids(pair.label, isprs_palette(domain.labels), repair)


def to_pure_colors(values: np.ndarray) -> np.ndarray:
    """Every channel of (H, W, 3) uint8 to the nearer of 0 and 255, of which all published colors are made."""
    return np.where(values >= _LEVEL, np.uint8(255), np.uint8(0))


def label_reader(domain: Domain, defective: frozenset[str] = frozenset()) -> partial[np.ndarray]:
    """The `labels` of a `DomainSource`."""
    return partial(isprs_labels, domain=domain, defective=defective)
