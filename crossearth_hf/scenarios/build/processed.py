"""Images and labels that somebody has cut and relabeled: the archives of CrossEarth's authors, folders named by a flag.

The authors' archives lie in the data set repository "Cusyoung/CrossEarth-Benchmark" on the Hub. Folders and numbers are
what their configurations and their page benchmarks/README.md (https://github.com/Cuzyoung/CrossEarth) say; the archives
themselves were not at hand, so that such a layout is called "assumed".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from ...errors import InputError
from ...labels import IGNORE_INDEX
from ..domains import Domain
from .archives import RawFile, RawFolder
from .label_values import mapped_ids
from .pairs import DomainSource, RawPair, by_key, paired
from .survey import binary_source, count_values

NOTE = "read from archives that CrossEarth's authors have processed"
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_ENDINGS = ("_sat", "_mask", "_lab", "-label", "_label", "_noBoundary")
_KINDS = ("images", "labels")


def folder_keys(domain: Domain) -> dict[str, str]:
    """Keys of `--path` for the folders of a domain, with what each names."""
    return {
        f"{domain.name}.{split}.{kind}": f"folder or zip with the {kind} of {split}"
        for split in domain.counts
        for kind in _KINDS
    }


def named_folders(domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource | None:
    """A domain whose folders are given by `folder_keys`; None if no key is given.

    Raises:
        InputError: Images have no labels, labels have no images, or the numbers in the labels are ambiguous, see
            `id_source`.
    """
    given = [
        split
        for split in domain.counts
        if any(f"{domain.name}.{split}.{kind}" in paths for kind in _KINDS)
    ]
    if not given:
        return None
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for split in given:
        for kind in _KINDS:
            if f"{domain.name}.{split}.{kind}" not in paths:
                raise InputError(
                    f"--path {domain.name}.{split}.{kind}=FOLDER is missing beside its partner; give both"
                )
        images, labels = (
            by_key(pictures(paths[f"{domain.name}.{split}.{kind}"]), plain_stem) for kind in _KINDS
        )
        found, lonely = paired(images, labels, split)
        pairs, unpaired = pairs + found, unpaired + lonely
    return replace(
        id_source(pairs, unpaired, domain, "folders were named one by one"), splits=tuple(given)
    )


def pictures(folder: RawFolder) -> list[RawFile]:
    """All pictures and rasters of a folder or zip."""
    return [file for suffix in _PICTURES for file in folder.files(f"*{suffix}")]


def plain_stem(file: RawFile) -> str:
    """Name without the endings by which data sets tell images from labels."""
    stem = file.stem
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def id_source(
    pairs: tuple[RawPair, ...], unpaired: tuple[str, ...], domain: Domain, note: str = NOTE
) -> DomainSource:
    """A domain whose label files hold numbers; their first value is found by counting all files.

    Raises:
        InputError: The numbers fit no way to count the classes, or more than one.
    """
    if domain.label_set in ("road", "building"):
        source = binary_source(pairs, unpaired, domain, layout="assumed")
        return replace(source, notes=(*source.notes, note))
    if pairs:
        counts = count_values(pairs, domain)
        base = first_id(np.flatnonzero(counts).tolist(), domain)
    else:
        base = 1
    notes = (f"labels start at {base}, found by counting over all of them", note)
    table = id_table(base, len(domain.labels.classes))
    return DomainSource(
        pairs, partial(_ids, table=table), unpaired=unpaired, layout="assumed", notes=notes
    )


def id_table(base: int, classes: int) -> dict[int, int]:
    """Number to id: classes start at `base`; 255 is ignored, and 0 too if classes start at 1."""
    ignored = {
        number: IGNORE_INDEX for number in (0, IGNORE_INDEX) if not base <= number < base + classes
    }
    return ignored | {base + index: index for index in range(classes)}


def first_id(values: Iterable[int], domain: Domain) -> int:
    """The number of the first class, told by the only numbers that decide it: the number of classes, and 0 without it.

    Raises:
        InputError: There are other numbers, or neither of the two occurs.
    """
    last, found = len(domain.labels.classes), set(values) - {IGNORE_INDEX}
    if found <= set(range(last + 1)):
        if last in found:
            return 1
        if 0 in found and domain.labels.classes[0] == "background" and domain.label_set == "casid":
            return 0
    listed = ", ".join(map(str, sorted(found)[:9]))
    raise InputError(
        f"the label files of {domain.name} hold the values {listed}; the processed ones "
        f"hold 1 to {last}, and 0 where nothing is labeled: give all label files, or number them so"
    )


def _ids(pair: RawPair, table: Mapping[int, int]) -> np.ndarray:
    return mapped_ids(pair.label, table)


def with_part(files: Iterable[RawFile], word: str, other: str, folder: str) -> list[RawFile]:
    """Files that lie in `folder`, such as "img_dir/train", below a folder named `word` and none named `other`."""
    found = []
    for file in files:
        above, _, name = f"/{file.relative}".rpartition(f"/{folder}/")
        parts = re.split(r"[/_-]", above.lower())
        if name and "/" not in name and word.lower() in parts and other.lower() not in parts:
            found.append(file)
    return found
