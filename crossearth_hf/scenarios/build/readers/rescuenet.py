"""RescueNet (Rahnemoonfar et al. 2023): drone images of about 4000 x 3000 pixels taken after Hurricane Michael.

`{train,val,test}-org-img/ID.jpg` with `{train,val,test}-label-img/ID_lab.png` of 11 ids. CrossEarth's authors score
five classes shared with Potsdam; their mapping is not published. `MAPPING` is ours, by the names of the classes:
ISPRS calls its last class "clutter/background" and puts water and pools there.

The archive that the authors publish anew has the same folders, with their own mapping: 1 to 5, and 0 without a label.
The data set's ids run to 10, so that the first label file with one above 5 tells the two apart.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from ...domains import Domain
from ..archives import RawFolder
from ..label_values import mapped_ids
from ..pairs import DomainSource, RawPair, found_pairs
from ..processed import id_source
from ..survey import mask_values

PATHS: Mapping[str, str] = {}
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
    patterns = {
        split: (f"{part}-org-img/*.jpg", f"{part}-label-img/*_lab.png")
        for part, split in _PARTS.items()
    }
    pairs, unpaired = found_pairs(raw, patterns, lambda file: file.stem.removesuffix("_lab"))
    if pairs and not any(_has_own_ids(pair, domain) for pair in pairs):
        source = id_source(pairs, unpaired, domain)
        return replace(source, splits=tuple(dict.fromkeys(pair.split for pair in pairs)))
    table = {index: domain.labels.label2id[name] for index, name in enumerate(MAPPING.values())}
    mapping = ", ".join(f"{name} -> {target}" for name, target in MAPPING.items())
    return DomainSource(
        pairs,
        partial(_labels, table=table),
        unpaired=unpaired,
        notes=(f"classes are mapped by our choice: {mapping}",),
    )


def _has_own_ids(pair: RawPair, domain: Domain) -> bool:
    return bool(mask_values(pair.label).max() > len(domain.labels.classes))


def _labels(pair: RawPair, table: Mapping[int, int]) -> np.ndarray:
    return mapped_ids(pair.label, table)
