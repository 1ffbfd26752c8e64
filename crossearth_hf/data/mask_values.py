"""Converts values of masks to class ids and checks them before the work; messages name the remedy."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX, LABEL_SETS, Color, LabelSet, label_set_for

_NO_CLASS = -1
# Place of ignored colors where 255 is the place of no label; classes have lower places.
_EXCLUDED = 254


@dataclass(frozen=True)
class MaskReading:
    """The meaning of the values of masks.

    Attributes:
        label_set: Classes of the labels: ids are positions in it.
        values: The value of every class in the masks; None if values are ids. 255 is ignored unless it is listed.
        offset: Value of the first class, if values are ids; lower values are ignored. 1 for masks that count from 1.
        of_masks: The classes of the masks in the order of their values; None for those of `label_set`.
        no_label: Id of 255 and of values below the offset; another than 255 distinguishes them from ignored values.
    """

    label_set: LabelSet
    values: tuple[int, ...] | None = None
    offset: int = 0
    of_masks: LabelSet | None = None
    no_label: int = IGNORE_INDEX

    @property
    def classes(self) -> LabelSet:
        """The classes of the masks in the order of their values."""
        return self.of_masks or self.label_set

    @property
    def is_plain(self) -> bool:
        """Whether values are ids without offset."""
        return self.values is None and not self.offset

    @property
    def counts_only(self) -> bool:
        """Whether a person said that values are ids: the colors of a color table do not matter then."""
        return self.values == tuple(range(len(self.classes.classes)))

    @property
    def colors(self) -> tuple[Color, ...] | None:
        """The colors in which masks may show the classes; None if no colors were chosen."""
        if self.classes.has_chosen_colors:
            return self.classes.colors
        return None

    @property
    def colors_decide(self) -> bool:
        """Whether the colors of a color table decide: only if a person gave colors, not for a known set."""
        known = self.classes.colors == getattr(LABEL_SETS.get(self.classes.name), "colors", None)
        return self.is_plain and self.colors is not None and not known

    @property
    def ignored_place(self) -> int:
        """Place of ignored colors, beside the places of the classes."""
        if self.no_label == IGNORE_INDEX:
            return IGNORE_INDEX
        return _EXCLUDED

    @cached_property
    def table(self) -> np.ndarray:
        """(256,) int16: the id of every value or place, -1 for values without id."""
        return _table(self)

    def check(self) -> "MaskReading":
        """Itself; raises `InputError` unless there is one distinct value in 0..255 for each class."""
        names, values = self.classes.classes, self.values
        if values is not None and self.offset:
            raise InputError(
                f"{_flag(values)} and {_offset_flag(self.offset)} both set the values of the classes; give one"
            )
        if not 0 <= self.offset <= IGNORE_INDEX - len(names):
            raise InputError(
                f"{_offset_flag(self.offset)} is out of range; it is the value of the first class, 0 or 1 as a rule"
            )
        if values is not None:
            _check_values(values, self.classes)
        known = dict(zip(self._class_values(), names, strict=True))
        for value in self.classes.ignored:
            if value in known and value != IGNORE_INDEX:
                raise InputError(
                    f"the value {value} is both '{known[value]}' and ignored; if the masks count classes "
                    f"from 1, add {_offset_flag(1)}, else remove it from either"
                )
        for name in names:
            if name not in self.label_set.label2id:
                raise InputError(
                    f"the masks have the class '{name}', but the run has {self.label_set.listed}; add it "
                    "to the list of classes, or rename it to match"
                )
        return self

    def _class_values(self) -> Sequence[int]:
        """The value of every class."""
        return self.values or range(self.offset, self.offset + len(self.classes.classes))


ANY_IDS = MaskReading(label_set_for({value: f"class {value}" for value in range(IGNORE_INDEX)}))
"""For masks without named classes: every value is an id."""


def read_as(
    label_set: LabelSet,
    mask_values: Sequence[int] | None = None,
    mask_offset: int = 0,
    of_masks: LabelSet | None = None,
) -> MaskReading:
    """A checked `MaskReading` of given settings; an empty list of values means None."""
    values = tuple(mask_values or ()) or None
    return MaskReading(label_set, values, mask_offset, of_masks).check()


def to_ids(values: np.ndarray, masks: MaskReading, name: str) -> np.ndarray:
    """(H, W) uint8 ids of a mask's (H, W) uint8 values; raises `InputError` for a value of no class."""
    if masks.is_plain and masks.of_masks is None and not masks.classes.ignored:
        return values
    ids = masks.table[values]
    if (ids < 0).any():
        _refuse_unknown(name, np.unique(values[ids < 0]).tolist(), masks, set())
    return ids.astype(np.uint8)


def check_masks(
    source: str,
    counted: Sequence[tuple[str, np.ndarray]],
    masks: MaskReading,
    *,
    in_color: bool = False,
    partly: bool = False,
) -> list[dict[int, int]]:
    """Pixels of every id in each mask.

    Args:
        source: Name of all masks in messages.
        counted: Name of every mask and its (256,) pixels of each value.
        masks: Meaning of the mask values.
        in_color: Whether some masks show classes by colors or bands: their ignored pixels are certainly no class.
        partly: Whether masks label only some classes: 255 then has a meaning too.

    Raises:
        InputError: A value belongs to no class, all pixels are ignored, or masks of two classes hold only 0 and 255.
    """
    found = set(np.flatnonzero(np.sum([pixels for _, pixels in counted], axis=0)).tolist())
    for name, pixels in counted:
        unknown = [value for value in np.flatnonzero(pixels).tolist() if masks.table[value] < 0]
        if unknown:
            _refuse_unknown(name, unknown, masks, found)
    if not partly:
        _check_informative(source, found, masks, in_color)
    return [_by_id(pixels, masks.table) for _, pixels in counted]


def check_palette(
    name: str, palette: Mapping[int, Color] | None, found: Collection[int], masks: MaskReading
) -> None:
    """Raises `InputError` if a mask's color table shows a class in the color of another class.

    Args:
        name: Name of the mask.
        palette: Color of every value; None for a mask without a color table.
        found: The values that the mask holds.
        masks: Meaning of the mask values; colors do not matter if the values are given as ids in their order.
    """
    if (
        palette is None
        or is_ramp(palette)
        or masks.counts_only
        or masks.colors is None
        or masks.colors_decide
    ):
        return
    names = masks.classes.classes
    classes = {
        color: masks.label_set.label2id[shown]
        for color, shown in zip(masks.colors, names, strict=True)
    }
    for value in found:
        shown = classes.get(palette.get(value, (-1, -1, -1)))
        if (
            shown is None
            or shown == masks.table[value]
            or (value == IGNORE_INDEX and masks.table[value] == masks.no_label)
        ):
            continue
        raise InputError(
            f"{name} shows the value {value} in the color of '{masks.label_set.classes[shown]}', which is class "
            f"{shown} of {masks.label_set.title}: its color table has another order; "
            f"{_palette_remedies(palette, found, masks)}"
        )


def is_ramp(palette: Mapping[int, Color]) -> bool:
    """Whether a color table shows every value as the same gray."""
    return all(len({value, *color}) == 1 for value, color in palette.items())


def named_flags(found: Collection[int]) -> str:
    """The flags that name the classes of masks with these values: `--classes` and related flags."""
    values = sorted(set(found) - {IGNORE_INDEX})
    if set(found) == {0, IGNORE_INDEX}:
        return f"--classes background,NAME {_flag((0, IGNORE_INDEX))}"
    names = ",".join(f"NAME_OF_{value}" for value in values)
    if values == list(range(len(values))):
        return f"--classes {names}"
    if values == list(range(1, len(values) + 1)):
        return f"--classes {names} {_offset_flag(1)}"
    return f"--classes {names} {_flag(values)}"


@lru_cache(maxsize=64)
def _table(masks: MaskReading) -> np.ndarray:
    names = masks.classes.classes
    table = np.full(IGNORE_INDEX + 1, _NO_CLASS, dtype=np.int16)
    table[: masks.offset] = masks.no_label
    for value in masks.classes.ignored:
        if isinstance(value, int):
            table[value] = IGNORE_INDEX
        else:
            table[masks.ignored_place] = IGNORE_INDEX
    table[IGNORE_INDEX] = masks.no_label
    table[list(masks._class_values())] = [masks.label_set.label2id[name] for name in names]
    return table


def _by_id(pixels: np.ndarray, table: np.ndarray) -> dict[int, int]:
    """Pixels of every id, from the pixels of every value."""
    counts = Counter[int]()
    for value in np.flatnonzero(pixels).tolist():
        counts[int(table[value])] += int(pixels[value])
    return counts


def _check_values(values: Sequence[int], classes: LabelSet) -> None:
    given, names = _flag(values), classes.classes
    if len(values) != len(names):
        raise InputError(
            f"{given} names {len(values)} values and {classes.title} has {len(names)} classes ({classes.listed}); "
            "give one value for each, in this order"
        )
    if len(set(values)) < len(names) or not all(0 <= value <= IGNORE_INDEX for value in values):
        raise InputError(
            f"{given} holds a value twice or outside 0 to {IGNORE_INDEX}; give every class its own"
        )


def _refuse_unknown(name: str, unknown: Sequence[int], masks: MaskReading, found: set[int]) -> None:
    """Raises `InputError` for values without a class; the remedy depends on the values of all masks."""
    classes, last = masks.classes, len(masks.classes.classes) - 1 + masks.offset
    if masks.values is not None:
        raise InputError(
            f"{name} holds the values {list(unknown)[:8]}, which {_flag(masks.values)} gives to no class; write "
            f"{IGNORE_INDEX} for pixels without label, or name the values of another label set"
        )
    remedy = "remap the file, or name the classes that it has with --classes"
    proposal = _proposal(found, len(classes.classes))
    if proposal is not None and masks.is_plain:
        remedy = f"if they are {classes.listed}, in this order, add {proposal}, or {remedy}"
    raise InputError(
        f"{name} holds the label ids {list(unknown)[:8]}; {classes.title} knows {masks.offset} to {last} and "
        f"{IGNORE_INDEX} (ignored): {remedy}"
    )


def _check_informative(source: str, found: set[int], masks: MaskReading, in_color: bool) -> None:
    """Raises `InputError` if nothing is labeled, or if masks of two classes hold only one of them and 255."""
    last = masks.classes.classes[-1]
    ignored = {value for value in found if masks.table[value] == IGNORE_INDEX}
    binary = len(masks.classes.classes) == 2 and masks.is_plain and not in_color
    as_classes = _flag((0, IGNORE_INDEX))
    if ignored == found:
        remedy = "give the labeled pixels their class"
        if binary:
            remedy = f"if it means '{last}', add {as_classes}"
        what = ", ".join(map(str, sorted(found)))
        raise InputError(
            f"every pixel of the masks of {source} is {what}, which is ignored; {remedy}"
        )
    if binary and found == {0, IGNORE_INDEX}:
        raise InputError(
            f"the masks of {source} hold only 0 and {IGNORE_INDEX}, and {IGNORE_INDEX} is ignored; if it means "
            f"'{last}', add {as_classes}, and if no pixel is '{last}', {_flag((0, 1))}"
        )


def _proposal(found: set[int], classes: int) -> str | None:
    """A flag that gives the values to so many classes; None if there is none."""
    inner = found - {IGNORE_INDEX}
    if inner and min(inner) >= 1 and max(inner) == classes:
        return _offset_flag(1)
    if inner and min(inner) == 0 and max(inner) == classes:
        return f"{_offset_flag(1)} where 0 means no label"
    if len(inner) == classes:
        return _flag(sorted(inner))
    if classes == 2 == len(found):
        return _flag(sorted(found))
    return None


def _palette_remedies(
    palette: Mapping[int, Color], found: Collection[int], masks: MaskReading
) -> str:
    """Remedies for the order of a color table that work for this mask."""
    classes = masks.classes
    values = {color: value for value, color in reversed(list(palette.items()))}
    by_color = [values[color] for color in classes.colors if color in values]
    by_number = list(range(len(classes.classes)))
    remedies = ["write the ids without a color table"]
    for chosen, what in ((by_color, "its colors hold"), (by_number, "its values are ids")):
        if len(chosen) == len(classes.classes) and set(found) <= {*chosen, IGNORE_INDEX}:
            remedies.append(f"add {_flag(chosen)} if {what}")
    return ", or ".join(remedies)


def _flag(values: Sequence[int]) -> str:
    return f"--mask-values {','.join(map(str, values))}"


def _offset_flag(offset: int) -> str:
    return f"--mask-offset {offset}"
