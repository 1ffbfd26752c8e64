"""RescueNet (Rahnemoonfar et al. 2023): drone images of about 4000 x 3000 pixels taken after Hurricane Michael.

`{train,val,test}-org-img/ID.jpg` with `{train,val,test}-label-img/ID_lab.png` of 11 ids. CrossEarth's authors score
five classes shared with Potsdam; their mapping is not published. `MAPPING` is ours, by the names of the classes:
ISPRS calls its last class "clutter/background" and puts water and pools there.
"""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import numpy as np

from ...scenarios import Domain
from ..archives import RawFolder
from ..label_values import mapped_ids
from ..pairs import DomainSource, RawPair, by_key, paired

PATHS: Mapping[str, str] = MappingProxyType({})
MAPPING = {  # the data set's class, in the order of its ids -> class of the label set "rescue"
    "background": "clutter",
    "water": "clutter",
    "building, no damage": "building",
    "building, medium damage": "building",
    "building, major damage": "building",
    "building, total destruction": "building",
    "vehicle": "car",
    "road, clear": "impervious_surface",
    "road, blocked": "impervious_surface",
    "tree": "vegetation",
    "pool": "clutter",
}
"""Ids above 10 belong to the data set's first version, whose 12 classes are others: refused."""
_PARTS = {"train": "train", "val": "validation", "test": "test"}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images and labels of the three splits."""
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for part, split in _PARTS.items():
        images = by_key(raw.files(f"{part}-org-img/*.jpg"), lambda file: file.stem)
        labels = by_key(raw.files(f"{part}-label-img/*_lab.png"), lambda file: file.stem.removesuffix("_lab"))
        found, lonely = paired(images, labels, split)
        pairs, unpaired = pairs + found, unpaired + lonely
    table = {index: domain.labels.label2id[name] for index, name in enumerate(MAPPING.values())}
    mapping = ", ".join(f"{name} -> {target}" for name, target in MAPPING.items())
    return DomainSource(
        pairs, partial(_labels, table=table), unpaired=unpaired, notes=(f"classes are mapped by our choice: {mapping}",)
    )


def _labels(pair: RawPair, table: Mapping[int, int]) -> np.ndarray:
    return mapped_ids(pair.label, table)
