"""LoveDA: urban and rural tiles of 1024 x 1024 pixels at 0.3 m; the benchmark tests on its part Val."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from ....labels import IGNORE_INDEX
from ...domains import Domain
from ..archives import RawFolder
from ..label_values import mapped_ids
from ..pairs import DomainSource, RawPair, found_pairs

PATHS: Mapping[str, str] = {}
_PARTS = {"Train": "train", "Val": "test"}  # the labels of Test are not published


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images and masks of the domain's scene type."""
    scene = {"loveda_urban": "Urban", "loveda_rural": "Rural"}[domain.name]
    patterns = {
        split: (f"{part}/{scene}/images_png/*.png", f"{part}/{scene}/masks_png/*.png")
        for part, split in _PARTS.items()
    }
    pairs, unpaired = found_pairs(raw, patterns)
    return DomainSource(
        pairs, partial(_labels, classes=len(domain.labels.classes)), unpaired=unpaired
    )


def _labels(pair: RawPair, classes: int) -> np.ndarray:
    """Published: 0 without data, then the classes from 1."""
    return mapped_ids(
        pair.label, {0: IGNORE_INDEX, **{index + 1: index for index in range(classes)}}
    )
