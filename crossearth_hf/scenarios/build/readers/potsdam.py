"""ISPRS Potsdam: 38 orthophotos of 6000 x 6000 pixels at 5 cm, as RGB and as infrared-red-green.

Beside the contest's archives: `img_dir/{train,val}` with `ann_dir/{train,val}` below a folder called RGB or IRRG, in
the five classes shared with RescueNet, as CrossEarth's authors publish them (Potsdam_Res).
"""

import re
from collections.abc import Mapping

from ...domains import Domain
from ..archives import RawFile, RawFolder
from ..pairs import DomainSource, RawPair, by_key, listed, paired
from ..processed import id_source, with_part
from .isprs import label_reader

PATHS: Mapping[str, str] = {}

# Rows and columns of the 24 tiles whose labels the contest gave to its participants, and of the 14 that it kept: as
# listed in torchgeo (torchgeo/datasets/potsdam.py) and mmsegmentation (tools/dataset_converters/potsdam.py).
_COLUMNS = {
    "train": {2: (10, 12), 3: (10, 12), 4: (10, 12), 5: (10, 12), 6: (7, 12), 7: (7, 12)},
    "test": {2: (13, 14), 3: (13, 14), 4: (13, 15), 5: (13, 15), 6: (13, 15), 7: (13, 13)},
}
SPLITS = {
    split: [
        f"{row}_{column}"
        for row, (first, last) in rows.items()
        for column in range(first, last + 1)
    ]
    for split, rows in _COLUMNS.items()
}

# Published defects of two label files, as users of the data have measured them: 4_12 was compressed with loss (24,850
# colors near the six), 6_7 has most cars as (252, 255, 0). Rounding each channel to 0 or 255 restores both.
DEFECTIVE = frozenset({"4_12", "6_7"})


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images of the domain's bands with their eroded labels."""
    if "irrg" in domain.name.split("_"):
        bands = "IRRG"
    else:
        bands = "RGB"
    images = by_key(raw.files(f"top_potsdam_*_{bands}.tif"), _tile)
    labels = by_key(raw.files("top_potsdam_*_label_noBoundary.tif"), _tile)
    if not images and domain.label_set == "rescue":
        return _processed(raw, domain, bands)
    pairs, unpaired = listed(SPLITS, images, labels)
    return DomainSource(
        pairs=pairs,
        labels=label_reader(domain, DEFECTIVE),
        unpaired=unpaired,
        notes=(
            "The published label files of the tiles 4_12 and 6_7 hold colors near, not in, the palette: each channel "
            "is rounded to 0 or 255. Users of the data report wrong annotations in tile 7_10, which the benchmark "
            "keeps; so do we.",
        ),
    )


def _processed(raw: RawFolder, domain: Domain, bands: str) -> DomainSource:
    """Tiles that are cut and relabeled: 1 to 5, 0 without a label."""
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    other = {"RGB": "IRRG", "IRRG": "RGB"}[bands]
    for part, split in (("train", "train"), ("val", "test")):
        images, labels = (
            by_key(with_part(raw.entries, bands, other, f"{kind}/{part}"), lambda file: file.stem)
            for kind in ("img_dir", "ann_dir")
        )
        found, lonely = paired(images, labels, split)
        pairs, unpaired = pairs + found, unpaired + lonely
    if not pairs and raw.files("img_dir/train/*"):
        unpaired = (f"no folder above img_dir is called {bands}, so that the bands are not known",)
    return id_source(pairs, unpaired, domain)


def _tile(file: RawFile) -> str | None:
    """'2_10' of top_potsdam_2_10_RGB.tif."""
    match = re.match(r"top_potsdam_(\d+)_(\d+)_", file.name)
    return match and f"{int(match[1])}_{int(match[2])}"
