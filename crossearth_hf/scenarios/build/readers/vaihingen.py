"""ISPRS Vaihingen: 33 infrared-red-green orthophotos at 9 cm, of many sizes."""

import re
from collections.abc import Mapping

from ...domains import Domain
from ..archives import RawFile, RawFolder
from ..pairs import DomainSource, by_key, listed
from .isprs import label_reader

PATHS: Mapping[str, str] = {}

# The 16 areas whose labels the contest gave to its participants, and the 17 that it kept: as listed in torchgeo
# (torchgeo/datasets/vaihingen.py) and mmsegmentation (tools/dataset_converters/vaihingen.py).
SPLITS = {
    "train": [
        f"area{number}" for number in (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
    ],
    "test": [
        f"area{number}"
        for number in (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)
    ],
}


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images of the folder `top` with their eroded labels; areas that no list names are left out."""
    images = by_key(raw.files("top/top_mosaic_09cm_area*.tif"), _area)
    labels = by_key(raw.files("top_mosaic_09cm_area*_noBoundary.tif"), _area)
    pairs, unpaired = listed(SPLITS, images, labels)
    return DomainSource(pairs, label_reader(domain), unpaired=unpaired)


def _area(file: RawFile) -> str | None:
    """'area11' of top_mosaic_09cm_area11.tif."""
    match = re.match(r"top_mosaic_09cm_(area\d+)(_noBoundary)?\.tif$", file.name)
    return match and match[1]
