"""Records of Hugging Face `datasets`, read as labeled images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..raster.fill import Fill
from ..raster.scene import DEFAULT_READING, Reading
from .image_files import (
    as_values,
    histogram,
    image_size,
    is_in_color,
    mask_palette,
    read_image,
    read_mask_values,
    undeclared_fills,
)
from .labeled_images import ArrayPair, no_labels
from .mask_values import MaskReading, check_palette, to_ids
from .record_values import file_of, flat, pixel_size_of

IMAGE_COLUMN = "image"


@dataclass(frozen=True)
class RecordReader:
    """Reads a record of a data set as an image with labels.

    Attributes:
        source: Name of the data set in messages.
        label_column: Column of the masks; without it every label is 255.
        masks: Meaning of the mask values.
        reading: Bands of the images and no-data values.
    """

    source: str
    label_column: str | None
    masks: MaskReading
    reading: Reading = DEFAULT_READING

    def name(self, index: int) -> str:
        """Name of record `index` in messages."""
        return f"{self.source}[{index}]"

    def decode(self, record: Mapping[str, Any], index: int) -> ArrayPair:
        """The record in memory; raises `InputError` if it cannot be decoded or its labels do not fit."""
        name = self.name(index)
        pixels, valid = read_image(file_of(record[IMAGE_COLUMN], name), name, self.reading)
        return ArrayPair(
            name, pixels, self._labels(record, name, pixels.shape[:2]), valid, pixel_size_of(record)
        )

    def undeclared_fills(self, record: Mapping[str, Any], index: int) -> tuple[Fill, ...]:
        """Values of the image that probably mean no data but are not declared; raises `InputError` like `decode`."""
        name = self.name(index)
        return undeclared_fills(file_of(record[IMAGE_COLUMN], name), name, self.reading)

    def check(self, record: Mapping[str, Any], index: int) -> tuple[tuple[int, int], np.ndarray]:
        """(height, width) of a record, from the image's header, and (256,) pixels of every value of its mask.

        It raises `InputError` like `decode`, except for values without a class.
        """
        name = self.name(index)
        size = image_size(file_of(record[IMAGE_COLUMN], name), name, self.reading)
        return size, histogram(self._values(record, name, size))

    def is_in_color(self, record: Mapping[str, Any], index: int) -> bool:
        """Whether the mask of a record shows its classes by colors or bands; raises `InputError` like `decode`."""
        if self.label_column is None:
            return False
        value, name = record[self.label_column], self.name(index)
        if isinstance(value, list | np.ndarray):
            return False
        return is_in_color(file_of(value, name), name, self.masks)

    def _labels(self, record: Mapping[str, Any], name: str, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 ids that fit an image of `size`."""
        labels = to_ids(self._values(record, name, size), self.masks, name)
        self.masks.label_set.check(labels, name)
        return labels

    def _values(self, record: Mapping[str, Any], name: str, size: tuple[int, ...]) -> np.ndarray:
        """(H, W) uint8 values of the mask that belongs to an image of `size`."""
        if self.label_column is None:
            return no_labels((size[0], size[1]))
        palette = None
        value = record[self.label_column]
        if isinstance(value, list | np.ndarray):
            labels = as_values(flat(np.asarray(value), size), name)
        else:
            file = file_of(value, name)
            labels = read_mask_values(file, name, self.masks)
            palette = mask_palette(file, name)
        if labels.shape != size:
            raise InputError(
                f"{name} is {size[1]}x{size[0]} pixels and its {self.label_column} {labels.shape[1]}x{labels.shape[0]};"
                " an image and its mask must have the same size"
            )
        if palette is not None:
            check_palette(name, palette, np.unique(labels).tolist(), self.masks)
        return labels


@dataclass(frozen=True)
class HubImage:
    """One record of a map-style data set; every `decode` decodes it again."""

    dataset: Any
    index: int
    size: tuple[int, int]
    reader: RecordReader
    counts: Mapping[int, int] | None = None
    pixel_size: float | None = None
    has_windows: ClassVar[bool] = False
    places: ClassVar[None] = None
    partial: ClassVar[None] = None
    group: ClassVar[None] = None
    file: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The data set and the record's number."""
        return self.reader.name(self.index)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; pixels without data are 0 and 255."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """The record in memory; raises `InputError` if it cannot be decoded."""
        return self.reader.decode(self.dataset[self.index], self.index)

    open = decode

    def parts(self) -> Sequence["HubImage"]:
        """Itself."""
        return [self]

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Undeclared fill of the image, see `LabeledImage`; raises `InputError` if it cannot be decoded."""
        return self.reader.undeclared_fills(self.dataset[self.index], self.index)

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id of the mask, including pixels where the image has no data; None without labels."""
        return self.counts
