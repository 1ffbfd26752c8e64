"""Labeled images held out for validation: by image, by group, or by blocks of a single scene; never by crop.

The images of a group, and a file that is listed twice, stay together across all data sources. The choice depends on the
images, their order and the seed.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX
from .hub_stream import HubStream
from .image_blocks import ImageBlock, blocks_of
from .labeled_images import LabeledImage
from .sources import Source

BLOCKS_HELD_OUT = 2
"""Least number of blocks held out of a single scene, because blocks differ; our choice."""
_STREAM = 0x5711  # separates the random numbers of the split from others of the same seed

_Key = tuple[Any, ...]


@dataclass(frozen=True)
class ValidationSplit:
    """Images for training and images held out.

    Attributes:
        train: The data sources without the images held out.
        validation: The images held out.
        line: A line about the split for a person.
        record: The names of both parts, for the folder of the run.
    """

    train: list[Source]
    validation: list[LabeledImage]
    line: str
    record: dict[str, Any]


def hold_out(
    names: Sequence[str], sources: Sequence[Source], fraction: float, seed: int
) -> ValidationSplit:
    """Holds out about a fraction of the images.

    Groups are drawn at random and held out if they fit into the fraction; if none fits, the smallest group is held out.
    Every data source keeps an image, and groups without a label are not held out. A single image is cut into blocks.

    Args:
        names: Names of the data sources.
        sources: Their images.
        fraction: Above 0 and below 1.
        seed: Seed of the choice.

    Raises:
        InputError: A data source is a stream, or all images belong together.
    """
    pool: list[list[LabeledImage]] = []
    for name, source in zip(names, sources, strict=True):
        if isinstance(source, HubStream):
            raise InputError(
                f"validation_fraction cannot split {name}, which is a stream; use hf: or eval_data"
            )
        pool.append(list(source))
    images = [image for own in pool for image in own]
    single = None
    if len(images) == 1:
        single = images[0]
        pool = [list(blocks_of(single, round(BLOCKS_HELD_OUT / fraction)))]
        if single.places is not None:  # blocks without labels teach nothing
            pool = [list(filter(_has_labels, pool[0]))]
    keys_of = _keys(pool)
    keys = _chosen(pool, keys_of, fraction, seed)
    if not keys:
        raise InputError(
            f"validation_fraction {fraction} holds out nothing: the {sum(map(len, pool))} images with labels belong "
            "together, or are the only ones of their source; give eval_data, or other groups"
        )
    train = _part(pool, keys_of, keys, held=False)
    validation = _part(pool, keys_of, keys, held=True)
    return ValidationSplit(
        train=list(train),
        validation=[image for images in validation for image in images],
        line=_line(pool, validation, keys, single),
        record={
            "fraction": fraction,
            "seed": seed,
            "train": _names(names, train),
            "validation": _names(names, validation),
        },
    )


def _part(
    pool: Sequence[Sequence[LabeledImage]],
    keys_of: Sequence[Sequence[_Key]],
    keys: set[_Key],
    *,
    held: bool,
) -> list[list[LabeledImage]]:
    """The images of every data source that are held out, or those that are not."""
    return [
        [image for image, key in zip(images, own, strict=True) if (key in keys) == held]
        for images, own in zip(pool, keys_of, strict=True)
    ]


def _keys(pool: Sequence[Sequence[LabeledImage]]) -> list[list[_Key]]:
    """The key of every image; images of a group have the same one, and so have those of a file."""
    joined: dict[_Key, _Key] = {}  # a key -> another one of the same images

    def last(key: _Key) -> _Key:
        while key in joined:
            key = joined[key]
        return key

    keys: list[list[_Key]] = []
    for place, images in enumerate(pool):
        keys.append([])
        for index, image in enumerate(images):
            key: _Key = ("image", place, index)
            if image.file is not None:
                key = ("file", os.path.realpath(image.file))
            if image.group is not None:
                group = last(("group", image.group))
                if image.file is not None and last(key) != group:
                    joined[last(key)] = group
                key = group
            keys[-1].append(key)
    return [[last(key) for key in own] for own in keys]


def _chosen(
    pool: Sequence[Sequence[LabeledImage]],
    keys_of: Sequence[Sequence[_Key]],
    fraction: float,
    seed: int,
) -> set[_Key]:
    """Keys of the groups and images to hold out."""
    members: dict[_Key, list[int]] = {}  # number of the data source of every image of a key
    labeled: set[_Key] = set()
    for place, images in enumerate(pool):
        for image, key in zip(images, keys_of[place], strict=True):
            members.setdefault(key, []).append(place)
            if key not in labeled and _has_labels(image):
                labeled.add(key)
    wanted = max(1, round(fraction * sum(map(len, pool))))
    keys = [key for key in members if key in labeled]
    drawn = [keys[index] for index in np.random.default_rng((seed, _STREAM)).permutation(len(keys))]
    fitting = [key for key in drawn if len(members[key]) <= wanted]
    smallest = sorted(drawn, key=lambda key: len(members[key]))
    counts = [len(images) for images in pool]
    return _taken(fitting, members, counts, wanted) or _taken(smallest, members, counts, 1)


def _taken(
    keys: Sequence[_Key], members: Mapping[_Key, Sequence[int]], counts: Sequence[int], wanted: int
) -> set[_Key]:
    """The first keys until `wanted` images are held out; keys that would empty a data source are skipped."""
    left, taken = list(counts), set[_Key]()
    for key in keys:
        held = sum(counts) - sum(left)
        places = members[key]
        empties = any(places.count(place) >= left[place] for place in set(places))
        if held >= wanted or empties or (held and held + len(places) > wanted):
            continue
        taken.add(key)
        for place in places:
            left[place] -= 1
    return taken


def _has_labels(image: LabeledImage) -> bool:
    counts = image.label_counts()
    return counts is None or any(
        number for value, number in counts.items() if value != IGNORE_INDEX
    )


def _line(
    pool: Sequence[Sequence[LabeledImage]],
    validation: Sequence[Sequence[LabeledImage]],
    keys: set[_Key],
    single: LabeledImage | None,
) -> str:
    number, total = sum(map(len, validation)), sum(map(len, pool))
    if single is not None:
        height, width = pool[0][0].size
        sides = f"{width} x {height}"
        return f"{single.name} is cut into {total} blocks of about {sides} pixels, of which {number} are held out"
    line = f"{number} of {total} images are held out for validation"
    if number == 1:
        line = f"1 of {total} images is held out for validation"
    groups = sorted(key[1] for key in keys if key[0] == "group")
    if groups:
        line += f", of the groups {', '.join(groups[:5])}"
    if len(groups) > 5:
        line += " ..."
    return line


def _names(names: Sequence[str], parts: Sequence[Sequence[LabeledImage]]) -> list[dict[str, Any]]:
    """Data source, name, group and block of every image."""
    found = []
    for name, images in zip(names, parts, strict=True):
        for image in images:
            entry: dict[str, Any] = {"source": name, "image": image.name}
            if image.group is not None:
                entry["group"] = image.group
            if isinstance(image, ImageBlock):
                entry["window"] = list(image.window)
            found.append(entry)
    return found
