"""The interface of labeled images and its implementations: arrays, files, generated scenes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from ..errors import InputError
from ..labels import IGNORE_INDEX, LabelSet
from ..model.loss_crossearth import UNLABELED_INDEX
from ..raster.fill import Fill
from ..raster.scene import DEFAULT_READING, Reading
from ..synthetic import DOMAINS, generate_scene
from .image_files import (
    WINDOW_SUFFIXES,
    Picture,
    Window,
    histogram,
    occurring,
    read_image,
    read_image_window,
    read_mask,
    read_mask_window,
    undeclared_fills,
)
from .mask_values import ANY_IDS, MaskReading


@dataclass(frozen=True)
class PartialLabels:
    """The labeled classes of a partly labeled image.

    Attributes:
        labeled: Ids of the classes.
        complete: Whether every pixel of these classes is labeled, so that a pixel without a label has another class.
        is_marked: Whether the labels distinguish pixels that are certainly none of these classes (`UNLABELED_INDEX`)
            from unknown and ignored pixels (255); otherwise 255 means both.
    """

    labeled: tuple[int, ...]
    complete: bool
    is_marked: bool = False

    @property
    def no_label(self) -> int:
        """Id of pixels without a label; if the classes are complete, these pixels have another class."""
        if self.is_marked:
            return UNLABELED_INDEX
        return IGNORE_INDEX

    def unlabeled_classes(self, num_classes: int) -> list[bool]:
        """For every class, whether a pixel without a label may have it."""
        return [not self.complete or index not in self.labeled for index in range(num_classes)]

    def for_training(self, labels: np.ndarray) -> np.ndarray:
        """The labels with `UNLABELED_INDEX` for pixels that are none of the labeled classes."""
        if not self.complete:
            return labels
        return np.where(labels == self.no_label, np.uint8(UNLABELED_INDEX), labels)

    def for_scoring(self, labels: np.ndarray) -> np.ndarray:
        """The labels with class 0, the rest in evaluation, for pixels that are none of the labeled classes."""
        if not self.complete:
            return labels
        rest = 0
        if 0 in self.labeled:
            rest = IGNORE_INDEX
        return np.where(labels == self.no_label, np.uint8(rest), labels)

    def checked(self, label_set: LabelSet, place: str) -> "PartialLabels | None":
        """Itself; None if all classes are labeled everywhere.

        Args:
            label_set: The classes.
            place: Name of the data source in messages.

        Raises:
            InputError: There are too many classes for `UNLABELED_INDEX`, or an id is no class.
        """
        number = len(label_set.classes)
        if number > UNLABELED_INDEX:
            raise InputError(
                f"{place} labels some of {number} classes, and partly labeled data go with at most {UNLABELED_INDEX}, "
                f"for {UNLABELED_INDEX} and {IGNORE_INDEX} mean pixels without a label; leave classes out"
            )
        unknown = [index for index in self.labeled if not 0 <= index < number]
        if unknown:
            raise InputError(
                f"{place} labels the ids {unknown[:8]}; {label_set.title} knows 0 to {number - 1}"
            )
        if self.complete and not self.is_marked and len(set(self.labeled)) == number:
            return None
        return self


class LabelFiles(Protocol):
    """Labels in several files, or in a file that is not a mask of values or colors."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files."""

    def read(self) -> np.ndarray:
        """(H, W) uint8 ids, 255 ignored; raises `InputError` if a file cannot be decoded."""

    def read_window(self, window: Window) -> np.ndarray:
        """(h, w) uint8 ids of a window; for files with windows."""


class Places(Protocol):
    """Places of labels in an image with few labels."""

    def place(self, rng: np.random.Generator) -> tuple[float, float] | None:
        """The (row, col) of the center of a random pixel with labels around it; None if every place has labels."""

    def windows(self) -> Sequence[Window]:
        """Separate windows that together hold all labels, for an image that is too large to be scored at once."""


class Windows(Protocol):
    """An image opened for reading in parts."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    def pixel_size(self) -> float | None:
        """Meters on the ground per pixel; None if not known."""

    @property
    def places(self) -> Places | None:
        """Places of labels; None if every place has labels."""

    @property
    def partial(self) -> PartialLabels | None:
        """The labeled classes; None for all."""

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """(height, width, C) uint8 and (height, width) bool validity, None if all pixels have data."""

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) uint8 ids, 255 ignored; pixels without data keep the id of the mask."""


class LabeledImage(Protocol):
    """One image with its label map."""

    @property
    def places(self) -> Places | None:
        """Places of labels; None if every place has labels."""

    @property
    def partial(self) -> PartialLabels | None:
        """The labeled classes; None for all."""

    @property
    def name(self) -> str:
        """Name in messages and reports."""

    @property
    def group(self) -> str | None:
        """Common name of images that belong together; None for an image without a group."""

    @property
    def file(self) -> Path | None:
        """The file of its pixels; None for an image from elsewhere, or a part of one."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, known without decoding."""

    @property
    def pixel_size(self) -> float | None:
        """Meters on the ground per pixel; None if not known."""

    @property
    def has_windows(self) -> bool:
        """Whether its files can be read in parts."""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; pixels without data are 0 and 255."""

    def decode(self) -> "ArrayPair":
        """The whole image in memory."""

    def open(self) -> Windows:
        """The image for reading in parts: decoded, unless it `has_windows`."""

    def parts(self) -> Sequence["LabeledImage"]:
        """The parts to score: the image itself, or the parts of a large image that hold labels."""

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Values that probably mean no data but are not declared; reads a sample of the image."""

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id of its labels, 255 ignored; None if the image must be drawn to count them."""


@dataclass(frozen=True)
class ArrayPair:
    """An image and its label map in memory.

    Attributes:
        name: Name in messages and reports.
        image: (H, W, C) uint8, RGB or the chosen bands.
        labels: (H, W) uint8 ids, 255 ignored.
        valid: (H, W) bool, False without data; None if all pixels have data.
        pixel_size: Meters on the ground per pixel; None if not known.
        places: Places of labels; None if every place has labels.
        partial: The labeled classes; None for all.
        group: Common name of images that belong together; None without a group.
        file: The file that it was decoded from; None for an image from elsewhere, or a part of one.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    valid: np.ndarray | None = None
    pixel_size: float | None = None
    places: Places | None = None
    partial: PartialLabels | None = None
    group: str | None = None
    file: Path | None = None
    has_windows: ClassVar[bool] = False

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; pixels without data are 0 and 255."""
        labels = self.labels
        if self.partial is not None:
            labels = self.partial.for_scoring(labels)
        return self.image, self._with_data(labels)

    def _with_data(self, labels: np.ndarray) -> np.ndarray:
        """The labels, 255 without data."""
        if self.valid is None:
            return labels
        return np.where(self.valid, labels, np.uint8(IGNORE_INDEX))

    def decode(self) -> "ArrayPair":
        """Itself."""
        return self

    open = decode

    def parts(self) -> Sequence["ArrayPair"]:
        """Itself, or its windows with labels, see `LabeledImage`."""
        if self.places is None:
            return [self]
        return [self._part(window) for window in self.places.windows()]

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Nothing, since the image is decoded."""
        return ()

    def label_counts(self) -> dict[int, int]:
        """Pixels of every id; pixels without data count as 255."""
        return occurring(histogram(self._with_data(self.labels)))

    def _part(self, window: Window) -> "ArrayPair":
        """A window as a separate image."""
        image, valid = self.read_pixels(*window)
        name = part_name(self.name, window, self.size)
        return ArrayPair(
            name, image, self.read_labels(*window), valid, self.pixel_size, partial=self.partial
        )

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`."""
        part = slice(row, row + height), slice(col, col + width)
        if self.valid is None:
            return self.image[part], None
        return self.image[part], self.valid[part]

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`."""
        return self.labels[row : row + height, col : col + width]


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file, of the same size, already checked (`data.load_pairs`).

    Attributes:
        name: Name of the file without its ending.
        image: Path of the image.
        mask: Path of the mask, or a reader of labels in other files; without a mask every label is 255.
        size: (height, width) in pixels.
        reading: Bands of the image and no-data values.
        pixel_size: Meters on the ground per pixel; None without a georeference.
        masks: Meaning of the mask values.
        counts: Pixels of every id of the mask; None if they were not counted.
        partial: The labeled classes; None for all.
        group: Common name of images that belong together; None without a group.
    """

    name: str
    image: Path
    mask: Path | LabelFiles | None
    size: tuple[int, int]
    reading: Reading = DEFAULT_READING
    pixel_size: float | None = None
    masks: MaskReading = ANY_IDS
    counts: Mapping[int, int] | None = None
    partial: PartialLabels | None = None
    group: str | None = None
    places: ClassVar[None] = None

    @property
    def file(self) -> Path:
        """The image."""
        return self.image

    @property
    def has_windows(self) -> bool:
        """Whether all files are rasters that can be read in parts."""
        files = [self.image]
        if isinstance(self.mask, Path):
            files.append(self.mask)
        elif self.mask is not None:
            files += self.mask.paths
        return all(path.suffix.lower() in WINDOW_SUFFIXES for path in files)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids, see `LabeledImage`; raises `InputError` if a file cannot be decoded."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """The whole pair in memory; raises `InputError` if a file cannot be decoded."""
        pixels, valid = read_image(self.image, str(self.image), self.reading)
        if self.mask is None:
            labels = no_labels(self.size)
        elif isinstance(self.mask, Path):
            labels = read_mask(self.mask, str(self.mask), self.masks)
        else:
            labels = self.mask.read()
        return ArrayPair(self.name, pixels, labels, valid, self.pixel_size, partial=self.partial)

    def parts(self) -> Sequence["FilePair"]:
        """Itself."""
        return [self]

    def open(self) -> Windows:
        """The pair for reading in parts; raises `InputError` if a file cannot be decoded."""
        if self.has_windows:
            return self
        return self.decode()

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Undeclared fill of the image, see `LabeledImage`; raises `InputError` if it cannot be decoded."""
        return undeclared_fills(self.image, str(self.image), self.reading)

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id of the mask, including pixels where the image has no data."""
        return self.counts

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`; for files with windows."""
        return read_image_window(self.image, self.reading, (row, col, height, width))

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`; for files with windows."""
        if self.mask is None:
            return no_labels((height, width))
        if isinstance(self.mask, Path):
            return read_mask_window(self.mask, (row, col, height, width), self.masks)
        return self.mask.read_window((row, col, height, width))


@dataclass(frozen=True)
class DrawnScene:
    """A SynthEarth scene of `size` pixels; every `read` draws it again. Its labels are 255 unless `labeled`."""

    domain: str
    seed: int
    size: tuple[int, int] = (512, 512)
    labeled: bool = True
    has_windows: ClassVar[bool] = False
    places: ClassVar[None] = None
    partial: ClassVar[None] = None
    group: ClassVar[None] = None
    file: ClassVar[None] = None

    @property
    def name(self) -> str:
        """Domain and seed."""
        return f"{self.domain}-{self.seed}"

    @property
    def pixel_size(self) -> float:
        """The domain's meters per pixel."""
        return DOMAINS[self.domain].ground_sampling_distance

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 in the domain's band order and (H, W) uint8 ids."""
        scene = generate_scene(self.domain, self.seed, *self.size)
        if self.labeled:
            return scene.image, scene.labels
        return scene.image, no_labels(self.size)

    def decode(self) -> ArrayPair:
        """The drawn scene."""
        return ArrayPair(self.name, *self.read(), pixel_size=self.pixel_size)

    open = decode

    def parts(self) -> Sequence["DrawnScene"]:
        """Itself."""
        return [self]

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Nothing, since the image is drawn."""
        return ()

    def label_counts(self) -> None:
        """None, since the scene is not drawn yet."""


def scale_to(image: LabeledImage | Windows, ground_sampling_distance: float | None) -> float:
    """Factor that resamples an image to so many meters per pixel; 1 if either is unknown."""
    if ground_sampling_distance is None or image.pixel_size is None:
        return 1.0
    return image.pixel_size / ground_sampling_distance


def part_name(name: str, window: Window, size: tuple[int, int]) -> str:
    """Name of a window of an image of (height, width) `size`; the image's own name for the whole."""
    if window[2:] == size:
        return name
    return f"{name} [{window[0]}, {window[1]}]"


def no_labels(size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of 255."""
    return np.full(size, IGNORE_INDEX, dtype=np.uint8)
