"""Label sets: the only place where class ids, names and colors exist."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .errors import InputError, on_one_line

IGNORE_INDEX = 255
"""Id of pixels without a label or without data, at every seam of the package."""

LONGEST_CLASS_NAME = 80
"""Characters of a class name out of a stranger's configuration; our choice."""


@dataclass(frozen=True)
class LabelSet:
    """Classes of a segmentation task: ids are positions 0..K-1, `IGNORE_INDEX` is never a class.

    Attributes:
        name: Key of the set in `LABEL_SETS`.
        classes: K class names.
        colors: K colors as (red, green, blue) in 0..255.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]

    @property
    def id2label(self) -> dict[int, str]:
        """Mapping from id to name, as model configs hold it."""
        return dict(enumerate(self.classes))

    @property
    def label2id(self) -> dict[str, int]:
        """Mapping from name to id."""
        return {name: index for index, name in enumerate(self.classes)}

    def colorize(self, labels: np.ndarray) -> np.ndarray:
        """Paints a label map.

        Args:
            labels: (H, W) integer ids; ids outside the set are painted black.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: len(self.colors)] = self.colors
        return palette[labels]

    def check(
        self, labels: np.ndarray, source: str, remedy: str = "remap the file or choose another label set"
    ) -> None:
        """Raises `InputError`, with a `remedy`, if integer `labels` of `source` hold an id that is not a class."""
        unknown = sorted(set(np.unique(labels).tolist()) - set(range(len(self.classes))) - {IGNORE_INDEX})
        if unknown:
            raise InputError(
                f"{source} holds the label ids {unknown[:8]}; the label set '{self.name}' knows 0 to "
                f"{len(self.classes) - 1} and {IGNORE_INDEX} (ignored): {remedy}"
            )


# Colors of "land-cover": ours, from the color-blind-safe palette of Okabe and Ito (2008).
# The other sets carry the classes and colors of their benchmarks.
LABEL_SETS = {
    label_set.name: label_set
    for label_set in (
        LabelSet(
            "land-cover",
            ("land", "building", "road", "water", "vegetation"),
            ((240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178), (0, 158, 115)),
        ),
        LabelSet(
            "isprs",
            ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter"),
            ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
        ),
        LabelSet(
            "rescue",
            ("impervious_surface", "building", "vegetation", "car", "clutter"),
            ((255, 255, 255), (0, 0, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
        ),
        LabelSet(
            "loveda",
            ("background", "building", "road", "water", "barren", "forest", "agricultural"),
            (
                (255, 255, 255),
                (255, 0, 0),
                (255, 255, 0),
                (0, 0, 255),
                (159, 129, 183),
                (0, 255, 0),
                (255, 195, 128),
            ),
        ),
        LabelSet(
            "casid",
            ("background", "building", "forest", "road", "water"),
            ((0, 0, 0), (255, 255, 0), (85, 255, 0), (255, 0, 0), (0, 112, 255)),
        ),
        LabelSet("road", ("background", "road"), ((0, 0, 0), (255, 255, 255))),
        LabelSet("building", ("background", "building"), ((0, 0, 0), (255, 255, 255))),
    )
}


def get_label_set(name: str) -> LabelSet:
    """The label set called `name`; raises `InputError` naming the known ones."""
    if name not in LABEL_SETS:
        raise InputError(f"'{name}' is not a label set; the known ones are {', '.join(LABEL_SETS)}")
    return LABEL_SETS[name]


def label_set_for(id2label: dict[int, str]) -> LabelSet:
    """The label set of a model: the known one with the same class names, else those names in colors of our choice."""
    # Printable and short, for they end up on terminals, in pages and in tags of maps.
    classes = tuple(on_one_line(str(id2label[index]), LONGEST_CLASS_NAME) for index in sorted(id2label))
    for label_set in LABEL_SETS.values():
        if label_set.classes == classes:
            return label_set
    return LabelSet("custom", classes, tuple(_distinct_colors(len(classes))))


def _distinct_colors(count: int) -> Iterable[tuple[int, int, int]]:
    """`count` colors spread over the RGB cube by the bits of their index, as in PASCAL VOC's color map."""
    for index in range(1, count + 1):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        yield channels[0], channels[1], channels[2]
