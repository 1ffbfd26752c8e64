"""The interface between readers of data sets and the builder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...errors import InputError
from ..domains import Domain
from .archives import RawFile, RawFolder


@dataclass(frozen=True)
class RawPair:
    """An image with its label file.

    Attributes:
        name: Unique within the split; tiles append their corners to it.
        split: "train", "validation" or "test".
        image: Any raster; its values are kept exactly.
        label: The label file, which the reader's `labels` turns into ids.
    """

    name: str
    split: str
    image: RawFile
    label: RawFile


@dataclass(frozen=True)
class DomainSource:
    """Everything that the builder needs to know about a domain's raw data.

    Attributes:
        pairs: Images with labels, in the order of the built splits.
        labels: From a pair to its (H, W) uint8 ids 0..K-1, 255 ignored, at the size of the image; called in worker
            processes, so a function of a module or a `functools.partial` of one. Raises `InputError` on values that
            are not a class.
        bands: Bands of the image to keep, counted from 1, in this order; None for all as they are.
        unpaired: A phrase for each image without label, label without image and missing file of an official list.
        layout: "confirmed", or "assumed" where the layout could not be confirmed or came by `paths`.
        splits: Those that such an archive holds, where it has fewer than the domain; None for all.
        notes: Sentences for the card, such as repaired defects or a detected label base.
    """

    pairs: tuple[RawPair, ...]
    labels: Callable[[RawPair], np.ndarray]
    bands: tuple[int, ...] | None = None
    unpaired: tuple[str, ...] = ()
    layout: str = "confirmed"
    notes: tuple[str, ...] = ()
    splits: tuple[str, ...] | None = None


class Reader(Protocol):
    """A module per data set."""

    PATHS: Mapping[str, str]
    """Keys of `--path KEY=PATH` with what each names; empty if the published layout is confirmed."""

    def read(self, raw: RawFolder, domain: Domain, paths: Mapping[str, RawFolder]) -> DomainSource:
        """Finds the domain's files under the raw folder or in `paths`; avoids reading pixels."""


def stem(file: RawFile) -> str:
    """The usual key of a file: its name without folders and ending."""
    return file.stem


def found_pairs(
    raw: RawFolder,
    patterns: Mapping[str, tuple[str, str]],
    label_key: Callable[[RawFile], str] = stem,
) -> tuple[tuple[RawPair, ...], tuple[str, ...]]:
    """Pairs of each split, and what lacks its partner.

    Args:
        raw: Where to look.
        patterns: For each split where its images and its labels lie, see `RawFolder.files`.
        label_key: From a label file to the stem of its image.
    """
    pairs: tuple[RawPair, ...] = ()
    unpaired: tuple[str, ...] = ()
    for split, (images, labels) in patterns.items():
        found, lonely = paired(
            by_key(raw.files(images), stem), by_key(raw.files(labels), label_key), split
        )
        pairs += found
        unpaired += lonely
    return pairs, unpaired


def paired(
    images: Mapping[str, RawFile], labels: Mapping[str, RawFile], split: str
) -> tuple[tuple[RawPair, ...], tuple[str, ...]]:
    """Pairs of images and labels with the same key, and what lacks its partner."""
    pairs = tuple(RawPair(key, split, images[key], labels[key]) for key in images if key in labels)
    lonely = [f"no label for {file}" for key, file in images.items() if key not in labels]
    lonely += [f"no image for {file}" for key, file in labels.items() if key not in images]
    return pairs, tuple(lonely)


def listed(
    splits: Mapping[str, Sequence[str]],
    images: Mapping[str, RawFile],
    labels: Mapping[str, RawFile],
) -> tuple[tuple[RawPair, ...], tuple[str, ...]]:
    """Pairs in the order of official lists, and what is missing of them; files that no list names are left out."""
    pairs, missing = [], []
    for split, keys in splits.items():
        for key in keys:
            if key in images and key in labels:
                pairs.append(RawPair(key, split, images[key], labels[key]))
            else:
                what = [
                    word
                    for word, files in (("image", images), ("label", labels))
                    if key not in files
                ]
                missing.append(f"no {' and no '.join(what)} for {key} of {split}")
    return tuple(pairs), tuple(missing)


def by_key(files: list[RawFile], key: Callable[[RawFile], str | None]) -> dict[str, RawFile]:
    """Files by a key made of their names; None leaves a file out; raises `InputError` if two share one."""
    found: dict[str, RawFile] = {}
    for file in files:
        name = key(file)
        if name is None:
            continue
        if name in found:
            raise InputError(
                f"{found[name]} and {file} are both '{name}'; leave one of them in the raw folder"
            )
        found[name] = file
    return found
