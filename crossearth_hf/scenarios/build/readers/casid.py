"""CASID (Liu et al. 2023): satellite images of four climates in Asia, five classes.

In each climate's folder `all_train` and `all_test` with `image/NAME.png` beside `label/NAME-label.png`, as the data
set classes of CrossEarth's authors read them; images larger than 1024 pixels are cut. How the climates' folders are
called is assumed from these classes and from the data set's own names: `--path` names others.

Labels start at 0 by the authors' check, at 1 by their description: the base is found over all label files of a climate.
"""

from collections.abc import Mapping
from functools import partial
from glob import escape

import numpy as np

from ....errors import InputError
from ...domains import Domain
from ..archives import RawFile, RawFolder
from ..label_values import mapped_ids
from ..pairs import DomainSource, RawPair, by_key, paired, stem
from ..survey import count_values

PATHS: Mapping[str, str] = {
    name: f"folder or zip of the {climate} climate, with all_train and all_test"
    for name, climate in (
        ("casid_sub", "subtropical monsoon"),
        ("casid_tem", "temperate monsoon"),
        ("casid_tms", "tropical monsoon"),
        ("casid_trf", "tropical rainforest"),
    )
}
_PARTS = {"all_train": "train", "all_test": "test"}
_BASES = (0, 1)


def read(raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
    """Images and labels of one climate."""
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for part, split in _PARTS.items():
        images = by_key(_files(raw, domain, paths, f"{part}/image/*.png"), stem)
        # The authors' archive has the ids of one climate's tests in a folder of their own.
        files = _files(raw, domain, paths, f"{part}/label_id/*.png")
        files = files or _files(raw, domain, paths, f"{part}/label/*-label.png")
        labels = by_key(files, lambda file: file.stem.removesuffix("-label"))
        found, lonely = paired(images, labels, split)
        pairs, unpaired = pairs + found, unpaired + lonely
    if pairs:
        base = label_base(count_values(pairs, domain), domain)
    else:
        base = 0
    return DomainSource(
        pairs,
        partial(_labels, base=base, classes=len(domain.labels.classes)),
        unpaired=unpaired,
        layout="assumed",
        notes=(f"labels start at {base}, found by counting over all of them",),
    )


def label_base(counts: np.ndarray, domain: Domain) -> int:
    """The number of the first class, 0 or 1, told by the only values that decide it: 0 and the number of classes.

    Raises:
        InputError: Both numbers occur, neither occurs, or there are values beyond them.
    """
    values, last = np.flatnonzero(counts).tolist(), len(domain.labels.classes)
    fitting = [base for base in _BASES if all(base <= value < base + last for value in values)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        which = "both"
    else:
        which = "neither of"
    raise InputError(
        f"the label files of {domain.name} hold the values {', '.join(map(str, values[:9]))}, which fit {which} "
        f"0..{last - 1} and 1..{last}; give all label files of the climate, or convert them to 0..{last - 1}"
    )


def _labels(pair: RawPair, base: int, classes: int) -> np.ndarray:
    return mapped_ids(pair.label, {base + index: index for index in range(classes)})


def _files(
    raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder], pattern: str
) -> list[RawFile]:
    """Files of a climate: in the folder of `--path`, else in folders with the name of the climate."""
    if domain.name in paths:
        return paths[domain.name].files(pattern)
    depth = -len(pattern.split("/"))
    folders = {
        entry.relative.split("/")[depth - 1]
        for entry in raw.entries
        if entry.relative.count("/") >= -depth
    }
    named = sorted(folder for folder in folders if climate(folder) == domain.name)
    return [file for folder in named for file in raw.files(f"{escape(folder)}/{pattern}")]


def climate(folder: str) -> str | None:
    """The domain that a folder is called after, such as SubMs, sub, Subtropical monsoon; None for others."""
    name = "".join(letter for letter in folder.lower() if letter.isalpha())
    for prefixes, domain in _NAMES:
        if name.startswith(prefixes):
            return domain
    return None


_NAMES = (
    (("sub",), "casid_sub"),
    (("tem",), "casid_tem"),
    (("trf", "trorf", "tropicalrainforest", "tropicalrf"), "casid_trf"),
    (("tms", "troms", "tropicalmonsoon", "tropicalms"), "casid_tms"),
)
