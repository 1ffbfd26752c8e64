"""Label sets: the only place where class ids, names and colors exist."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError, on_one_line

if TYPE_CHECKING:
    from .model.configuration_crossearth import CrossEarthConfig

Color = tuple[int, int, int]
"""Red, green and blue in 0..255."""

IGNORE_INDEX = 255
"""Id of pixels without a label or without data, at every seam of the package."""

OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (153, 153, 153),
)
"""Colors that color-blind people tell apart (Okabe & Ito, 2008), gray in place of black."""

LONGEST_CLASS_NAME = 80
"""Characters of a class name out of a stranger's configuration; our choice."""

MOST_LISTED = 20
"""Names that a sentence lists."""

OWN = "custom"
"""Name of all sets of classes that are not in `LABEL_SETS`."""


@dataclass(frozen=True)
class LabelSet:
    """Classes of a segmentation task: ids are positions 0..K-1, `IGNORE_INDEX` is never a class.

    Attributes:
        name: Key of the set in `LABEL_SETS`, or `OWN`.
        classes: K class names.
        colors: K colors as (red, green, blue) in 0..255.
        ignored: Mask values and colors that mean no label, besides `IGNORE_INDEX`.
        has_chosen_colors: Whether somebody chose the colors; those that the package gives to mere names mean nothing
            in a mask.
    """

    name: str
    classes: tuple[str, ...]
    colors: tuple[Color, ...]
    ignored: tuple[int | Color, ...] = ()
    has_chosen_colors: bool = True

    @property
    def title(self) -> str:
        """What messages call the set."""
        if self.name == OWN:
            return f"the list of classes {self.listed}"
        return f"the label set '{self.name}'"

    @property
    def listed(self) -> str:
        """The names for a sentence, of many the first."""
        return listed(self.classes)

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
        self,
        labels: np.ndarray,
        source: str,
        remedy: str = "remap the file or choose another label set",
    ) -> None:
        """Raises `InputError`, with a `remedy`, if integer `labels` of `source` hold an id that is not a class."""
        unknown = sorted(
            set(np.unique(labels).tolist()) - set(range(len(self.classes))) - {IGNORE_INDEX}
        )
        if unknown:
            raise InputError(
                f"{source} holds the label ids {unknown[:8]}; {self.title} knows 0 to {len(self.classes) - 1} and "
                f"{IGNORE_INDEX} (ignored): {remedy}"
            )


def listed(names: Sequence[str]) -> str:
    """Names for a sentence, of many the first."""
    if len(names) <= MOST_LISTED:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_LISTED])} and {len(names) - MOST_LISTED} more"


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


def label_set_for(
    id2label: Mapping[int, str], colors: Sequence[Sequence[int]] | None = None
) -> LabelSet:
    """The label set of class names, which are cut to a line each: they end up on terminals, in pages and in maps.

    Args:
        id2label: Names by ids.
        colors: Chosen for them, if any; as many as the names. Without, the known set of the same names gives them, else
            they are ours.
    """
    classes = tuple(
        on_one_line(str(id2label[index]), LONGEST_CLASS_NAME) for index in sorted(id2label)
    )
    known = next(
        (label_set for label_set in LABEL_SETS.values() if label_set.classes == classes), None
    )
    if colors is not None and len(colors) == len(classes):
        chosen = tuple((int(red), int(green), int(blue)) for red, green, blue in colors)
        if known is None or known.colors != chosen:
            return LabelSet(OWN if known is None else known.name, classes, chosen)
    if known is not None:
        return known
    return LabelSet(OWN, classes, tuple(_distinct_colors(classes)), has_chosen_colors=False)


def label_set_of(config: "CrossEarthConfig") -> LabelSet:
    """The classes of a model, in the colors that its configuration carries or those of `label_set_for`."""
    return label_set_for(config.id2label or {}, config.class_colors)


def config_fields(label_set: LabelSet) -> dict[str, Any]:
    """The fields of a model's configuration from which `label_set_of` makes the same classes and colors."""
    if label_set.has_chosen_colors and label_set != LABEL_SETS.get(label_set.name):
        colors = [list(color) for color in label_set.colors]
    else:
        colors = None
    return {"id2label": label_set.id2label, "label2id": label_set.label2id, "class_colors": colors}


def _distinct_colors(classes: Sequence[str]) -> list[Color]:
    """A color for each class: that of the land cover of its name, else the next of `OKABE_ITO`, then of PASCAL VOC."""
    land_cover = dict(
        zip(LABEL_SETS["land-cover"].classes, LABEL_SETS["land-cover"].colors, strict=True)
    )
    known = [
        land_cover.pop(name.lower(), None) for name in classes
    ]  # of names that differ by case the first has it
    free = (color for color in chain(OKABE_ITO, _voc_colors()) if color not in known)
    return [color or next(free) for color in known]


def _voc_colors() -> Iterator[Color]:
    """Colors spread over the RGB cube by the bits of their index, as in PASCAL VOC's color map, without end."""
    for index in count(1):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        yield channels[0], channels[1], channels[2]
