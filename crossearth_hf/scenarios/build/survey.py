"""Counts the values in the label files of a domain before any is used: encodings are detected, never guessed."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from ...errors import InputError
from ...progress import progress_bar
from ..domains import Domain
from .archives import RawFile
from .pairs import DomainSource, RawPair
from .rasters import open_raster

_BINARY_LIMIT = (
    0.5  # roads and buildings cover a few percent of the published sets, nowhere near a half
)
_UNKNOWN = 254


def mask_values(file: RawFile) -> np.ndarray:
    """(H, W) uint8 of a label file with one band, or with equal ones; raises `InputError` for any other."""
    with open_raster(file) as raster:
        first, *others = raster.read(0, 0, *raster.size).transpose(2, 0, 1)  # (bands, H, W)
    if first.dtype != np.uint8 or any((band != first).any() for band in others):
        raise InputError(
            f"{file} is in color or of type {first.dtype}; the label files of this data set are gray and of 8 bits: "
            "name the right label files"
        )
    return first


def count_values(pairs: Sequence[RawPair], domain: Domain) -> np.ndarray:
    """(256,) pixels per value over all label files of a domain; raises as `mask_values`."""
    files = list(dict.fromkeys(pair.label for pair in pairs))
    counts = np.zeros(256, np.int64)
    for file in progress_bar(files, desc=f"{domain.name}: label values", unit="file"):
        counts += np.bincount(mask_values(file).ravel(), minlength=256)
    return counts


def foreground_value(counts: np.ndarray, domain: Domain) -> int:
    """The value of the foreground in a binary set: 255 or 1; the background is 0.

    Args:
        counts: (256,) pixels per value over the whole set.
        domain: Named in messages.

    Raises:
        InputError: There are other values or only one of them, or the foreground has more than half of all pixels,
            which means that the values are swapped.
    """
    values = np.flatnonzero(counts).tolist()
    if values not in ([0, 255], [0, 1]):
        raise InputError(
            f"the label files of {domain.name} hold the values {_listed(values)}; 0 with 255, or 0 with 1, tell which "
            "is the foreground: download the label files again, or convert them to 0 and 255"
        )
    check_share(counts[values[1]] / counts.sum(), domain)
    return values[1]


def check_share(share: float, domain: Domain) -> None:
    """Raises `InputError` if a foreground has no pixel or covers more than half of a binary set."""
    if not 0 < share <= _BINARY_LIMIT:
        raise InputError(
            f"'{domain.labels.classes[1]}' covers {100 * share:.1f} % of {domain.name}, where a few percent are true: "
            "the values of its label files are swapped or wrong; download them again, or invert them"
        )


def binary_source(
    pairs: tuple[RawPair, ...], unpaired: tuple[str, ...], domain: Domain, layout: str = "confirmed"
) -> DomainSource:
    """A binary domain whose label files tell themselves which value is the foreground, see `foreground_value`."""
    if pairs:
        foreground = foreground_value(count_values(pairs, domain), domain)
    else:
        foreground = 255
    note = f"{domain.labels.classes[1]} is {foreground} in the label files, found by counting over all of them"
    labels = partial(table_ids, table=two_values(foreground))
    return DomainSource(pairs, labels, unpaired=unpaired, layout=layout, notes=(note,))


def two_values(foreground: int) -> tuple[int, ...]:
    """Table for `table_ids`: 0 is class 0, `foreground` class 1, all other values none."""
    table = [_UNKNOWN] * 256
    table[0] = 0
    table[foreground] = 1
    return tuple(table)


def threshold(level: int) -> tuple[int, ...]:
    """Table for `table_ids`: values from `level` on are class 1, those below class 0."""
    return tuple(int(value >= level) for value in range(256))


def table_ids(pair: RawPair, table: tuple[int, ...]) -> np.ndarray:
    """(H, W) uint8 ids of a gray label file, each value looked up in a table of 256; `InputError` on unknown ones."""
    values = mask_values(pair.label)
    ids = np.array(table, np.uint8)[values]
    unknown = np.unique(values[ids == _UNKNOWN]).tolist()
    if unknown:
        raise InputError(
            f"{pair.label} holds the values {_listed(unknown)}, which the others do not; download it again"
        )
    return ids


def _listed(values: Sequence[int]) -> str:
    first = ", ".join(map(str, values[:8]))
    if len(values) > 8:
        return f"{first} and others"
    return first
