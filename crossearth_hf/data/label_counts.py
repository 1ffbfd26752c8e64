"""Counts of labels before the work: pixels and images of every class, as a table."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..labels import IGNORE_INDEX, LabelSet
from ..model.loss_crossearth import UNLABELED_INDEX
from .hub_stream import HubStream
from .sources import Source

STREAMED = 16
"""Number of counted records of a stream. Our choice: a second or two on a network."""

_TWO_CLASSES = (
    "if 0 and 255 are two classes, name two, such as --classes background,building, "
    "and add --mask-values 0,255"
)


@dataclass(frozen=True)
class LabelCounts:
    """Counts of the labels of images.

    Attributes:
        pixels: Pixels of every id, 255 ignored, in the counted images.
        images: Number of counted images with each id.
        counted: Number of counted images.
        total: Number of all images; None for a stream, which has no end.
    """

    pixels: Mapping[int, int]
    images: Mapping[int, int]
    counted: int
    total: int | None

    def check(self, what: str, classes: Sequence[str], label_set: LabelSet) -> None:
        """Raises `InputError` if all images of `what` were counted and none holds a pixel of the `classes`."""
        if self.counted != self.total or any(
            self.pixels.get(label_set.label2id[name]) for name in classes
        ):
            return
        remedy = "check masks, label set and nodata"
        if self._is_black_and_white(label_set):
            remedy = _TWO_CLASSES
        raise InputError(
            f"{what} holds no pixel with data of {', '.join(classes)} in {_images(self.counted)}; {remedy}"
        )

    def check_black_and_white(self, what: str, label_set: LabelSet) -> None:
        """Raises `InputError` if all pixels are 0 or 255 but there are more classes: only one would be learned."""
        if self.counted == self.total and self._is_black_and_white(label_set):
            as_they_are = ",".join(map(str, range(len(label_set.classes))))
            raise InputError(
                f"the masks of {what} hold only 0 and 255, and 255 is ignored, so only '{label_set.classes[0]}' would "
                f"be learned; {_TWO_CLASSES}; if this is right, add --mask-values {as_they_are}"
            )

    def check_from_zero(self, what: str, label_set: LabelSet) -> None:
        """Raises `InputError` if the ids of all pixels count from 1 although there is a class 0.

        Data with ignored pixels pass, because they may label only a part of the classes.
        """
        found = sorted(self.pixels)
        if self.counted != self.total or len(found) < 2 or found != list(range(1, len(found) + 1)):
            return
        first, as_they_are = label_set.classes[0], ",".join(map(str, range(len(label_set.classes))))
        raise InputError(
            f"the masks of {what} hold the ids 1 to {found[-1]} but never 0, which is '{first}'; if they count "
            f"classes from 1, add --mask-offset 1, and if no pixel is '{first}', --mask-values {as_they_are}"
        )

    def table(self, what: str, label_set: LabelSet) -> str:
        """Lines for a person: a heading, a line for every class and for ignored pixels, and notes."""
        rows = [*enumerate(label_set.classes), (IGNORE_INDEX, "(ignored)")]
        if self.pixels.get(UNLABELED_INDEX) and len(label_set.classes) <= UNLABELED_INDEX:
            rows.insert(-1, (UNLABELED_INDEX, "(others)"))
        total = max(1, sum(self.pixels.values()))
        width = max(len(name) for _, name in rows)
        titles = f"{'id':>5}  {'class':{width}}  {'pixels':>8}  {'images':>6}"
        lines = [f"labels of {what}{self._extent()}:", titles]
        for index, name in rows:
            share = _share(self.pixels.get(index, 0) / total)
            lines.append(f"{index:>5}  {name:{width}}  {share:>8}  {self.images.get(index, 0):>6}")
        return "\n".join(lines + self._notes(label_set))

    def _extent(self) -> str:
        """The counted part of the data."""
        if self.total is None:
            return f", in {_images(self.counted)}, of streams the first {STREAMED} records"
        if not self.counted:
            return ", not known before they are drawn"
        counted = f", in {_images(self.counted)}"
        if self.counted < self.total:
            return f"{counted} of {self.total}"
        return counted

    def _notes(self, label_set: LabelSet) -> list[str]:
        """Hints for a person."""
        names, notes = label_set.classes, []
        absent = [index for index in range(len(names)) if not self.pixels.get(index)]
        if absent and self.counted:
            notes.append(f"no pixel of {', '.join(names[index] for index in absent)}")
        if 0 in absent and len(names) - len(absent) > 1 and UNLABELED_INDEX not in self.pixels:
            notes.append("if the masks count classes from 1, add --mask-offset 1")
        if self._is_black_and_white(label_set):
            notes.append(_TWO_CLASSES)
        return notes

    def _is_black_and_white(self, label_set: LabelSet) -> bool:
        """Whether the labels hold only 0 and 255 although there are more than two classes."""
        return len(label_set.classes) > 2 and set(self.pixels) == {0, IGNORE_INDEX}


def count_labels(sources: Iterable[Source]) -> LabelCounts:
    """Counts the labels of data sources, without drawing scenes and without reading streams to the end."""
    pixels, images = Counter[int](), Counter[int]()
    counts: list[Mapping[int, int] | None] = []
    endless = False
    for source in sources:
        if isinstance(source, HubStream):
            endless = True
            counts += source.first_counts(STREAMED)
        else:
            counts += [image.label_counts() for image in source]
    known = [held for held in counts if held is not None]
    for held in known:
        pixels.update(held)
        images.update(held.keys())
    total = None
    if not endless:
        total = len(counts)
    return LabelCounts(pixels, images, len(known), total)


def _share(share: float) -> str:
    """A share for the table; a small share never reads as zero."""
    if not share:
        return "-"
    if share >= 5e-5:
        return f"{100 * share:.2f} %"
    return "<0.01 %"


def _images(number: int) -> str:
    if number == 1:
        return "1 image"
    return f"{number} images"
