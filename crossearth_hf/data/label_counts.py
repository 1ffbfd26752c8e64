"""What is labeled, before the work: pixels and images of every class, as a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..labels import IGNORE_INDEX, LabelSet
from .hub import HubStream
from .sources import Source

STREAMED = 16
"""Records of a stream that are counted. Our choice: a second or two on a network."""

_TWO_CLASSES = (
    "if 0 and 255 are two classes, choose a label set of two, such as --label-set building, and add --mask-values 0,255"
)


@dataclass(frozen=True)
class LabelCounts:
    """What images hold.

    Attributes:
        pixels: Of every id, 255 ignored, over the images that were counted.
        images: How many of them hold the id.
        counted: Those that were counted.
        total: All; None with a stream, which has no end.
    """

    pixels: Mapping[int, int]
    images: Mapping[int, int]
    counted: int
    total: int | None

    def check(self, what: str, classes: Sequence[str], label_set: LabelSet) -> None:
        """Raises `InputError` where all images of `what` were counted and none holds a pixel of the `classes`."""
        if self.counted == self.total and not any(self.pixels.get(label_set.label2id[name]) for name in classes):
            if self._is_black_and_white(label_set):
                remedy = _TWO_CLASSES
            else:
                remedy = "check masks, label set and nodata"
            raise InputError(
                f"{what} holds no pixel with data of {', '.join(classes)} in {_images(self.counted)}; {remedy}"
            )

    def table(self, what: str, label_set: LabelSet) -> str:
        """Lines for a person: a heading, a line for every class and for ignored pixels, what is missing."""
        rows = [*enumerate(label_set.classes), (IGNORE_INDEX, "(ignored)")]
        total = max(1, sum(self.pixels.values()))
        width = max(len(name) for _, name in rows)
        titles = f"{'id':>5}  {'class':{width}}  {'pixels':>8}  {'images':>6}"
        lines = [f"labels of {what}{self._extent()}:", titles]
        for index, name in rows:
            share = _share(self.pixels.get(index, 0) / total)
            lines.append(f"{index:>5}  {name:{width}}  {share:>8}  {self.images.get(index, 0):>6}")
        return "\n".join(lines + self._notes(label_set))

    def _extent(self) -> str:
        """How much of the data was counted."""
        if self.total is None:
            return f", in {_images(self.counted)}, of streams the first {STREAMED} records"
        if not self.counted:
            return ", not known before they are drawn"
        return f", in {_images(self.counted)}" + (f" of {self.total}" if self.counted < self.total else "")

    def _notes(self, label_set: LabelSet) -> list[str]:
        """What a person should look at."""
        names, notes = label_set.classes, []
        absent = [index for index in range(len(names)) if not self.pixels.get(index)]
        if absent and self.counted:
            notes.append(f"no pixel of {', '.join(names[index] for index in absent)}")
        if 0 in absent and len(names) - len(absent) > 1:
            numbers = ",".join(str(index + 1) for index in range(len(names)))
            notes.append(f"if the masks count classes from 1, add --mask-values {numbers}")
        if self._is_black_and_white(label_set):
            notes.append(_TWO_CLASSES)
        return notes

    def _is_black_and_white(self, label_set: LabelSet) -> bool:
        """Whether there are 0 and 255 alone where there might be more."""
        return len(label_set.classes) > 2 and set(self.pixels) == {0, IGNORE_INDEX}


def count_labels(sources: Iterable[Source]) -> LabelCounts:
    """What the images of sources hold, as far as it is known without drawing scenes or reading a stream to its end."""
    pixels: dict[int, int] = {}
    images: dict[int, int] = {}
    counted, total, endless = 0, 0, False
    for source in sources:
        endless |= isinstance(source, HubStream)
        each = source.first_counts(STREAMED) if isinstance(source, HubStream) else [i.label_counts() for i in source]
        total += len(each)
        for held in each:
            counted += held is not None
            for index, number in (held or {}).items():
                pixels[index] = pixels.get(index, 0) + number
                images[index] = images.get(index, 0) + 1
    return LabelCounts(pixels, images, counted, None if endless else total)


def _share(share: float) -> str:
    """A share for the table, in which something is never nothing."""
    if not share:
        return "-"
    if share >= 5e-5:
        return f"{100 * share:.2f} %"
    return "<0.01 %"


def _images(number: int) -> str:
    if number == 1:
        return "1 image"
    return f"{number} images"
