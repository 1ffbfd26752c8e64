"""Class ids from names or ids in a person's files, and the words for pixels without a label."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, shown
from ..labels import IGNORE_INDEX, LabelSet
from ..model.loss_crossearth import UNLABELED_INDEX
from .labeled_images import PartialLabels

if TYPE_CHECKING:
    from ..raster.vector_layers import Features  # needs packages of the extras

IGNORED = "ignored"
"""The word for no class, in a column of classes and for pixels without a polygon or mask."""
OTHERS = "others"
"""The word for pixels without a polygon or mask that are certainly none of the shown classes."""


def class_id_of(name: str, field: str, label_set: LabelSet) -> int:
    """The id of the class that a field names, 255 for "ignored"; raises `InputError` for an unknown class."""
    class_id = _class_id(name, label_set)
    if class_id is None:
        raise InputError(
            f"{field} is {shown(name)}{_meant(name, label_set)}; it must be '{IGNORED}' or one of "
            f"{', '.join(label_set.classes)}"
        )
    return class_id


def unlabeled_id(name: str, field: str, label_set: LabelSet) -> int:
    """The id of pixels without a polygon or mask: `UNLABELED_INDEX` for "others", else as `class_id_of`."""
    if _is_others(name, label_set):
        return UNLABELED_INDEX
    return class_id_of(name, field, label_set)


def partial_of(
    name: str, labeled: Iterable[int], label_set: LabelSet, place: str
) -> PartialLabels | None:
    """The labeled classes if pixels without a polygon or mask are "others"; None otherwise.

    Args:
        name: Class or word for these pixels.
        labeled: Ids of the classes that polygons or masks show; it may hold 255.
        label_set: Classes of the run.
        place: Name of the data source in messages.

    Raises:
        InputError: No class is left for these pixels, or there are too many classes.
    """
    if not _is_others(name, label_set):
        return None
    ids = tuple(sorted(set(labeled) - {IGNORE_INDEX}))
    if len(ids) == len(label_set.classes):
        raise InputError(
            f"{place} has unlabeled '{OTHERS}' and shows all classes, {label_set.listed}: no other is left; name the "
            f"class of the rest, or write '{IGNORED}'"
        )
    return PartialLabels(ids, complete=True, is_marked=True).checked(label_set, place)


def column_ids(features: "Features", column: str, layer: str, label_set: LabelSet) -> np.ndarray:
    """(N,) uint8 ids of features by the values of a column: names of classes, or ids as numbers or text.

    Args:
        features: Features with the column's values.
        column: Name of the column.
        layer: Name of the layer in messages.
        label_set: The classes.

    Raises:
        InputError: A value is missing or names no class.
    """
    texts: list[str] = []
    if features.values is not None:
        texts = [str(value).strip() for value in features.values.tolist()]
    known = {text: _class_id(text, label_set) for text in set(texts)}
    for number, text in zip(features.numbers, texts, strict=True):
        if known[text] is not None:
            continue
        where = f"feature {number} of {layer}"
        if text in ("", "None", "nan"):
            raise InputError(
                f"{where} has no class in column '{column}'; fill it in, or delete the feature"
            )
        numbered = ", ".join(f"{name} ({index})" for index, name in enumerate(label_set.classes))
        raise InputError(
            f"{where} has the unknown class {shown(text)} in column '{column}'{_meant(text, label_set)}; the classes "
            f"are {numbered}, and '{IGNORED}': correct it, or name your own classes with --classes"
        )
    return np.array([known[text] for text in texts], dtype=np.uint8)


def _is_others(name: str, label_set: LabelSet) -> bool:
    """Whether a name is the word `OTHERS` and not a class of this name."""
    return name == OTHERS and name not in label_set.label2id


def _class_id(text: str, label_set: LabelSet) -> int | None:
    """The id of a name or a number; None if it is no class."""
    if text in label_set.label2id:
        return label_set.label2id[text]
    if text.lower() == IGNORED:
        return IGNORE_INDEX
    whole = text.removesuffix(".0")  # a column with a missing number holds fractions
    if whole.isdecimal() and int(whole) in (*range(len(label_set.classes)), IGNORE_INDEX):
        return int(whole)
    return None


def _meant(text: str, label_set: LabelSet) -> str:
    """A suggestion for a mistyped class."""
    lower = {name.lower(): name for name in label_set.classes}
    nearest = difflib.get_close_matches(text.lower(), lower, n=1, cutoff=0.6)
    if nearest:
        return f" (did you mean '{lower[nearest[0]]}'?)"
    return ""
