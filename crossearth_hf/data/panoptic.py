"""Panoptic masks in COCO's format: a picture whose colors number segments, and a JSON file with their categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..files.documents import read_json
from ..labels import IGNORE_INDEX, Color, LabelSet
from ..raster.scene import Reading
from .class_list import FEWEST, color_of, label_set_of_names
from .image_files import (
    Window,
    histogram,
    image_size,
    mask_size,
    occurring,
    pixel_size,
    read_colors,
)
from .labeled_images import FilePair
from .pairs import check_fit

LARGEST = 1 << 30
"""Largest JSON file in bytes; our choice: three times the file of COCO's training images."""
NO_SEGMENT = 0
"""Id of pixels that belong to no segment."""

_REMEDY = "name a file with categories and annotations, as COCO's panoptic ones have them"


@dataclass(frozen=True)
class PanopticMask:
    """The labels of an image as a picture of segments; the id of a segment is red + 256 green + 256² blue.

    Attributes:
        path: The picture.
        segments: Id and class id of every segment, ordered by id; 255 for ignored ones, and `no_label` of
            `load_panoptic` for pixels without a segment.
    """

    path: Path
    segments: tuple[tuple[int, int], ...]

    @property
    def paths(self) -> Sequence[Path]:
        """The picture."""
        return [self.path]

    def read(self) -> np.ndarray:
        """(H, W) uint8 ids, 255 ignored; raises `InputError` for a damaged file or an unlisted segment."""
        red, green, blue = np.moveaxis(read_colors(self.path).astype(np.int64), -1, 0)
        segments = red + 256 * green + 256**2 * blue
        known = np.array([segment for segment, _ in self.segments])
        places = np.searchsorted(known, segments).clip(max=len(known) - 1)
        unknown = np.unique(segments[known[places] != segments]).tolist()
        if unknown:
            raise InputError(
                f"{self.path} holds the segments {unknown[:8]}, which the JSON file does not list for it; export both "
                "together, and the picture without smoothing"
            )
        return np.array([class_id for _, class_id in self.segments], dtype=np.uint8)[places]

    def read_window(self, window: Window) -> np.ndarray:
        """(h, w) uint8 ids of a window."""
        row, col, height, width = window
        return self.read()[row : row + height, col : col + width]


@dataclass(frozen=True)
class PanopticFile:
    """The content of a panoptic JSON file.

    Attributes:
        path: The file.
        categories: Name of every category by its id.
        colors: Colors of the categories, in their order; None if a category has none.
        segments: Segments of every picture by its file name: id, category id and whether it is a crowd.
    """

    path: Path
    categories: Mapping[int, str]
    colors: Sequence[Any] | None
    segments: Mapping[str, Sequence[tuple[int, int, bool]]]

    def classes(self, ignored: Sequence[str]) -> LabelSet | None:
        """The categories that are not ignored, in the order of the file; None for fewer than two."""
        named = [name for name in self.categories.values() if name not in ignored]
        if len(named) < FEWEST:
            return None
        return label_set_of_names(named, str(self.path), self._distinct_colors(ignored))

    def _distinct_colors(self, ignored: Sequence[str]) -> list[Color] | None:
        """Colors of the categories that are not ignored; None if two are equal or one is missing."""
        if self.colors is None:
            return None
        pairs = zip(self.categories.values(), self.colors, strict=True)
        colors = [
            color_of(color, f"{self.path}: {shown(name)}")
            for name, color in pairs
            if name not in ignored
        ]
        if len(set(colors)) < len(colors):
            return None
        return colors

    def class_ids(self, label_set: LabelSet, ignored: Sequence[str]) -> dict[int, int]:
        """Class id of every category that occurs, 255 for ignored ones; raises `InputError` if the run lacks one."""
        for name in ignored:
            if name not in self.categories.values():
                raise InputError(
                    f"{self.path} has no category {shown(name)}, which is to be ignored; correct it"
                )
        known = label_set.label2id | dict.fromkeys(ignored, IGNORE_INDEX)
        ids = {}
        for category in sorted(
            {category for own in self.segments.values() for _, category, _ in own}
        ):
            name = self.categories[category]
            if name not in known:
                raise InputError(
                    f"{self.path} has segments of the category {shown(name)}, but the run has {label_set.listed}; add "
                    "it to the list of classes, or name it under 'ignored' beside 'panoptic'"
                )
            ids[category] = known[name]
        return ids


def read_panoptic(path: Path) -> PanopticFile:
    """Reads a JSON file with `categories` (id, name, optional color) and `annotations` (file_name, segments_info).

    Raises:
        InputError: The file does not exist, a field is missing or has another form, a category is repeated, or a
            segment has an unlisted category.
    """
    content = read_json(path, _REMEDY, LARGEST)
    try:
        listed = [(item["id"], item["name"], item.get("color")) for item in content["categories"]]
        segments = {
            item["file_name"]: _segments(item["segments_info"]) for item in content["annotations"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is of another form ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error
    categories = {number: name for number, name, _ in listed}
    if len(categories) < len(listed) or not all(
        isinstance(name, str) for name in categories.values()
    ):
        raise InputError(f"{path} has a category without a name, or two of one id; {_REMEDY}")
    for name, own in segments.items():
        unknown = sorted({category for _, category, _ in own} - categories.keys())
        if unknown:
            raise InputError(
                f"{path} gives {name} the categories {unknown[:8]}, which it does not list; {_REMEDY}"
            )
    colors = [color for _, _, color in listed]
    if None in colors:
        return PanopticFile(path, categories, None, segments)
    return PanopticFile(path, categories, colors, segments)


def load_panoptic(
    panoptic: Path,
    ignored: Sequence[str],
    files: Sequence[tuple[Path, Path]],
    label_set: LabelSet,
    reading: Reading,
    no_label: int = IGNORE_INDEX,
) -> list[FilePair]:
    """Loads images with panoptic masks; every mask is decoded once.

    Args:
        panoptic: The JSON file.
        ignored: Names of ignored categories.
        files: Image and mask of each pair.
        label_set: Classes of the run; they match categories by name.
        reading: Bands of the images and no-data values.
        no_label: Id of pixels without a segment.

    Raises:
        InputError: A category is no class, or a mask is not listed, does not fit its image or holds other segments; see
            also `read_panoptic`.
    """
    described = read_panoptic(panoptic)
    ids = described.class_ids(label_set, ignored)
    pairs = []
    for image, mask in files:
        size = image_size(image, str(image), reading)
        check_fit(image, size, mask, mask_size(mask))
        if mask.name not in described.segments:
            raise InputError(
                f"{panoptic} has no annotation with the file_name {mask.name}; export both together"
            )
        own = {segment: ids[category] for segment, category, _ in described.segments[mask.name]}
        own |= {
            segment: IGNORE_INDEX
            for segment, _, is_crowd in described.segments[mask.name]
            if is_crowd
        }
        own[NO_SEGMENT] = no_label
        labels = PanopticMask(mask, tuple(sorted(own.items())))
        counts = occurring(histogram(labels.read()))
        pairs.append(
            FilePair(image.stem, image, labels, size, reading, pixel_size(image), counts=counts)
        )
    return pairs


def _segments(listed: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, bool]]:
    """Id, category and whether it is a crowd of every segment; raises `TypeError` for an id that is no number."""
    found = [(item["id"], item["category_id"], bool(item.get("iscrowd", 0))) for item in listed]
    if not all(type(segment) is int and type(category) is int for segment, category, _ in found):
        raise TypeError("a segment's id or category_id is no whole number")
    return found
