"""From the values of masks to class ids, checked before the work: what cannot be meant is refused with its remedy."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX, LabelSet

Color = tuple[int, int, int]
MaskValues = tuple[int, ...] | None
"""The value of class 0, 1, ... in masks; None where values are ids. 255 is ignored unless it is listed."""


def checked_values(values: Sequence[int] | None, label_set: LabelSet) -> MaskValues:
    """The values as given; `InputError` unless they are as many as the classes, distinct, and in 0..255."""
    if not values:
        return None
    given, classes = _flag(values), len(label_set.classes)
    if len(values) != classes:
        raise InputError(
            f"{given} names {len(values)} values and the label set '{label_set.name}' has {classes} classes "
            f"({', '.join(label_set.classes)}); give one value for each, in this order"
        )
    if len(set(values)) < classes or not all(0 <= value <= IGNORE_INDEX for value in values):
        raise InputError(f"{given} holds a value twice or outside 0 to {IGNORE_INDEX}; give every class its own")
    return tuple(values)


def to_ids(values: np.ndarray, mask_values: MaskValues, name: str) -> np.ndarray:
    """(H, W) uint8 ids of a mask's (H, W) uint8 values; `InputError` for a value that belongs to no class."""
    if mask_values is None:
        return values
    table = _table(mask_values)
    ids = table[values]
    if (ids < 0).any():
        raise InputError(_without_class(name, np.unique(values[ids < 0]).tolist(), mask_values))
    return ids.astype(np.uint8)


def check_masks(
    source: str, masks: Sequence[tuple[str, np.ndarray]], label_set: LabelSet, mask_values: MaskValues
) -> list[dict[int, int]]:
    """How many pixels every mask has of the ids that it holds.

    Args:
        source: All masks, as messages name them.
        masks: Name of every mask and its (256,) pixels of each value.
        label_set: Classes.
        mask_values: As they were asked for.

    Raises:
        InputError: values that belong to no class, masks of ignored pixels alone, masks of 0 and 255 for two classes.
    """
    found = set(np.flatnonzero(np.sum([pixels for _, pixels in masks], axis=0)).tolist())
    for name, pixels in masks:
        _check_known(name, np.flatnonzero(pixels), found, label_set, mask_values)
    _check_informative(source, found, label_set, mask_values)
    table = _table(mask_values)
    return [{int(table[v]): int(pixels[v]) for v in np.flatnonzero(pixels)} for _, pixels in masks]


def check_palette(
    name: str,
    palette: Mapping[int, Color] | None,
    found: Collection[int],
    label_set: LabelSet,
    mask_values: MaskValues,
) -> None:
    """Refuses a mask whose color table shows a class in the color of another one.

    Args:
        name: Of the mask.
        palette: Color of every value; None for a mask without a color table.
        found: The values that the mask holds.
        label_set: Classes and their colors.
        mask_values: As they were asked for; the ids themselves, in their order, mean that colors do not count.
    """
    identity = tuple(range(len(label_set.classes)))
    is_ramp = palette is not None and all(len({value, *color}) == 1 for value, color in palette.items())
    if palette is None or is_ramp or mask_values == identity:
        return
    table, classes = _table(mask_values), {color: index for index, color in enumerate(label_set.colors)}
    for value in found:
        shown = classes.get(palette.get(value, (-1, -1, -1)))
        if shown is None or shown == table[value] or (value == IGNORE_INDEX == table[value]):
            continue
        raise InputError(
            f"{name} shows the value {value} in the color of '{label_set.classes[shown]}', which is class {shown} of "
            f"'{label_set.name}': its color table has another order; {_palette_remedies(palette, found, label_set)}"
        )


def _check_known(name: str, values: np.ndarray, found: set[int], label_set: LabelSet, mask_values: MaskValues) -> None:
    """Refuses values without a class; the remedy looks at what all masks hold."""
    if mask_values is not None:
        unknown = [value for value in values.tolist() if _table(mask_values)[value] < 0]
        if unknown:
            raise InputError(_without_class(name, unknown, mask_values))
        return
    proposal = _proposal(found, len(label_set.classes))
    remedy = "remap the file or choose another label set"
    if proposal is not None:
        remedy = f"if they are {', '.join(label_set.classes)}, in this order, add {_flag(proposal)}, or {remedy}"
    label_set.check(values, name, remedy)


def _check_informative(source: str, found: set[int], label_set: LabelSet, mask_values: MaskValues) -> None:
    """Refuses masks of which nothing is labeled, or probably half."""
    last = label_set.classes[-1]
    ignored = {value for value in found if _table(mask_values)[value] == IGNORE_INDEX}
    binary = len(label_set.classes) == 2 and mask_values is None
    as_classes = _flag((0, IGNORE_INDEX))
    if ignored == found:
        if binary:
            remedy = f"if it means '{last}', add {as_classes}"
        else:
            remedy = "give the labeled pixels their class"
        raise InputError(f"every pixel of the masks of {source} is {IGNORE_INDEX}, which is ignored; {remedy}")
    if binary and found == {0, IGNORE_INDEX}:
        raise InputError(
            f"the masks of {source} hold 0 and {IGNORE_INDEX} alone, and {IGNORE_INDEX} is ignored; if it means "
            f"'{last}', add {as_classes}, and if no pixel is '{last}', {_flag((0, 1))}"
        )


def _proposal(found: set[int], classes: int) -> list[int] | None:
    """The values that may be meant by as many classes."""
    inner = found - {IGNORE_INDEX}
    if len(inner) == classes:
        return sorted(inner)
    if classes == 2 == len(found):
        return sorted(found)
    if inner and min(inner) >= 1 and max(inner) == classes:
        return list(range(1, classes + 1))
    return None


def _palette_remedies(palette: Mapping[int, Color], found: Collection[int], label_set: LabelSet) -> str:
    """What can be done about the order of a color table, as far as it works for this mask."""
    values = {color: value for value, color in reversed(list(palette.items()))}
    by_color = [values[color] for color in label_set.colors if color in values]
    by_number = list(range(len(label_set.classes)))
    remedies = ["write the ids without a color table"]
    for chosen, what in ((by_color, "its colors hold"), (by_number, "its values are ids")):
        if len(chosen) == len(label_set.classes) and set(found) <= {*chosen, IGNORE_INDEX}:
            remedies.append(f"add {_flag(chosen)} if {what}")
    return ", or ".join(remedies)


def _table(mask_values: MaskValues) -> np.ndarray:
    """(256,) int16: the id of every value, -1 for those without one."""
    if mask_values is None:
        return np.arange(IGNORE_INDEX + 1, dtype=np.int16)
    table = np.full(IGNORE_INDEX + 1, -1, dtype=np.int16)
    table[IGNORE_INDEX] = IGNORE_INDEX
    table[list(mask_values)] = np.arange(len(mask_values))
    return table


def _without_class(name: str, unknown: Sequence[int], mask_values: Sequence[int]) -> str:
    return (
        f"{name} holds the values {unknown[:8]}, which {_flag(mask_values)} gives to no class; write {IGNORE_INDEX} "
        "for pixels without label, or name the values of another label set"
    )


def _flag(values: Sequence[int]) -> str:
    return f"--mask-values {','.join(map(str, values))}"
