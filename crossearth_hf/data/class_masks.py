"""A mask for each class: files that each show one class are combined into one label map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX, LabelSet, label_set_for
from ..raster.scene import Reading
from ..raster.writing import TILE
from .file_patterns import keyed_files, matching_files, stars_of
from .image_files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    WINDOW_SUFFIXES,
    Window,
    histogram,
    image_size,
    mask_size,
    occurring,
    pixel_size,
    read_mask_values,
    read_mask_window_values,
)
from .labeled_images import FilePair, PartialLabels
from .mask_source import MaskSource
from .mask_values import read_as
from .pairs import check_fit
from .polygon_classes import class_id_of, partial_of, unlabeled_id

_ANY_VALUE = label_set_for({value: f"value {value + 1}" for value in range(IGNORE_INDEX - 1)})
_ZERO_IS_NOTHING = read_as(_ANY_VALUE, None, 1)


@dataclass(frozen=True)
class ClassMasks:
    """The labels of an image as one or more masks for each class; values above 0 show the class.

    Attributes:
        size: (height, width) in pixels.
        files: Class id and path of every mask; where masks overlap, the last one is on top.
        unlabeled: Id of pixels that no mask shows.
    """

    size: tuple[int, int]
    files: tuple[tuple[int, Path], ...]
    unlabeled: int

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""
        return [path for _, path in self.files]

    def read(self) -> np.ndarray:
        """(H, W) uint8 ids, 255 ignored; raises `InputError` if a file cannot be decoded."""
        return self._stacked(None)[0]

    def read_window(self, window: Window) -> np.ndarray:
        """(h, w) uint8 ids of a window; for files with windows."""
        return self._stacked(window)[0]

    def counts(self) -> tuple[dict[int, int], int]:
        """Pixels of every id, and the number of pixels with several classes; rasters are read in strips."""
        pixels, several = np.zeros(IGNORE_INDEX + 1, dtype=np.int64), 0
        height, width = self.size
        windows: list[Window | None] = [None]
        if all(path.suffix.lower() in WINDOW_SUFFIXES for path in self.paths):
            windows = [(row, 0, min(TILE, height - row), width) for row in range(0, height, TILE)]
        for window in windows:
            labels, overlap = self._stacked(window)
            pixels += histogram(labels)
            several += int(overlap.sum())
        return occurring(pixels), several

    def _stacked(self, window: Window | None) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) uint8 ids and (h, w) bool, True where masks of several classes overlap; the whole without a window."""
        size = self.size
        if window is not None:
            size = window[2:]
        labels = np.full(size, self.unlabeled, dtype=np.uint8)
        shown, several = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for class_id, path in self.files:
            if window is None:
                values = read_mask_values(path, str(path), _ZERO_IS_NOTHING)
            else:
                values = read_mask_window_values(path, window, _ZERO_IS_NOTHING)
            here = values > 0
            several |= here & shown & (labels != class_id)
            labels[here] = class_id
            shown |= here
        return labels, several


def load_class_masks(
    source: MaskSource, label_set: LabelSet, reading: Reading, tell: Callable[[str], object]
) -> list[FilePair]:
    """Loads images with a mask for each class.

    Args:
        source: The described images and masks.
        label_set: Classes of the run.
        reading: Bands of the images and no-data values.
        tell: Takes a line about overlapping masks.

    Raises:
        InputError: The run lacks a class, a pattern matches no file or image, masks do not fit their image or cannot be
            read, or no pixel has a class.
    """
    place, names = source.place, source.class_masks
    ids = {name: class_id_of(name, f"{place}: a class of masks", label_set) for name in names}
    rest = unlabeled_id(source.unlabeled, f"{place}: unlabeled", label_set)
    partial = _partial(source, tuple(ids.values()), rest, label_set)
    images, found = _images_and_masks(source)
    pairs, overlap = [], 0
    for key, image in images.items():
        own = tuple((ids[name], path) for name in names for path in found[name].get(key, ()))
        pair, several = _pair(image, own, rest, reading)
        pairs.append(replace(pair, partial=partial))
        overlap += several
    if not any(set(pair.counts or ()) & set(ids.values()) for pair in pairs):
        raise InputError(
            f"{place}: the masks are 0 everywhere; values above 0 are the class: export them again"
        )
    if overlap:
        tell(
            f"{place}: masks of different classes overlap in {overlap:,} pixels; the later class lies on top"
        )
    return pairs


def _pair(
    image: Path, files: tuple[tuple[int, Path], ...], unlabeled: int, reading: Reading
) -> tuple[FilePair, int]:
    """An image with its checked masks, and the number of pixels in which they overlap."""
    size = image_size(image, str(image), reading)
    for _, path in files:
        check_fit(image, size, path, mask_size(path))
    labels = ClassMasks(size, files, unlabeled)
    counts, several = labels.counts()
    return FilePair(
        image.stem, image, labels, size, reading, pixel_size(image), counts=counts
    ), several


def _partial(
    source: MaskSource, ids: Sequence[int], rest: int, label_set: LabelSet
) -> PartialLabels | None:
    """The labeled classes, if the masks show only some classes and the remaining pixels have no class."""
    if rest == IGNORE_INDEX and len(ids) < len(label_set.classes):
        return PartialLabels(tuple(ids), complete=False).checked(label_set, source.place)
    return partial_of(source.unlabeled, ids, label_set, source.place)


def _images_and_masks(
    source: MaskSource,
) -> tuple[dict[tuple[str, ...], Path], dict[str, dict[tuple[str, ...], list[Path]]]]:
    """The images by the texts of their stars, and the masks of every class by the first texts of theirs."""
    place, folder = source.place, source.folder
    images = keyed_files(place, folder, source.images, IMAGE_SUFFIXES)
    stars = stars_of(folder, source.images)
    masks: dict[str, dict[tuple[str, ...], list[Path]]] = {}
    for name, pattern in source.class_masks.items():
        masks[name] = {}
        for parts, path in matching_files(place, folder, pattern, MASK_SUFFIXES):
            masks[name].setdefault(parts[:stars], []).append(path)
        if not masks[name].keys() & images.keys():
            raise InputError(
                f"{place}: no mask of '{name}' belongs to an image; * must stand for the same text in "
                f"'{source.images}' and '{pattern}', such as {next(iter(images))[0]}"
            )
    return images, masks
