"""What a labeled image is, and its kinds: arrays, files, generated scenes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..labels import IGNORE_INDEX
from ..raster.fill import Fill
from ..raster.scene import DEFAULT_READING, Reading
from ..synthetic import DOMAINS, generate_scene
from .image_files import (
    WINDOW_SUFFIXES,
    Picture,
    read_image,
    read_image_window,
    read_mask,
    read_mask_window,
    undeclared_fills,
)
from .mask_values import MaskValues


class Windows(Protocol):
    """An image ready to be read in parts."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    @property
    def pixel_size(self) -> float | None:
        """Meters on the ground per pixel; None where nothing tells."""

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """(height, width, C) uint8 and (height, width) bool validity, None where all pixels have data."""

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """(height, width) uint8 ids, 255 ignored; pixels without data keep the id that the mask gives them."""


class LabeledImage(Protocol):
    """One image with its label map."""

    @property
    def name(self) -> str:
        """Name shown in messages and reports."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, known without decoding."""

    @property
    def pixel_size(self) -> float | None:
        """Meters on the ground per pixel; None where nothing tells."""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; without data 0 and 255."""

    def decode(self) -> "ArrayPair":
        """The whole image in memory."""

    def open(self) -> Windows:
        """The image for reading in parts: decoded, unless its files can be read in parts themselves."""

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Values that seem to mean no data although nobody names them; reads a sample of the image."""

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id that its labels hold, 255 ignored; None where it would have to be drawn to know."""


@dataclass(frozen=True)
class ArrayPair:
    """An image and its label map in memory.

    Attributes:
        name: Name shown in messages and reports.
        image: (H, W, C) uint8, RGB or the bands asked for.
        labels: (H, W) uint8 ids, 255 ignored.
        valid: (H, W) bool, False without data; None where all pixels have data.
        pixel_size: Meters on the ground per pixel; None where nothing tells.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    valid: np.ndarray | None = None
    pixel_size: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids; without data 0 and 255."""
        if self.valid is None:
            labels = self.labels
        else:
            labels = np.where(self.valid, self.labels, np.uint8(IGNORE_INDEX))
        return self.image, labels

    def decode(self) -> "ArrayPair":
        """Itself."""
        return self

    open = decode

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """None: it is decoded."""
        return ()

    def label_counts(self) -> dict[int, int]:
        """Pixels of every id, without data 255."""
        pixels = np.bincount(self.read()[1].ravel(), minlength=IGNORE_INDEX + 1)
        return {index: int(pixels[index]) for index in np.flatnonzero(pixels).tolist()}

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`."""
        part = slice(row, row + height), slice(col, col + width)
        return self.image[part], None if self.valid is None else self.valid[part]

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`."""
        return self.labels[row : row + height, col : col + width]


@dataclass(frozen=True)
class FilePair:
    """An image file and its mask file, of the same size, already checked (`data.load_pairs`).

    Attributes:
        name: The file's name without its ending.
        image, mask: Paths; without a mask every label is 255.
        size: (height, width) in pixels.
        reading: Bands of the image and values without data.
        pixel_size: Meters on the ground per pixel; None where the image's georeference does not tell.
        mask_values: Values of the classes in the mask; None where they are ids.
        counts: Pixels of every id of the mask; None where they were not counted.
    """

    name: str
    image: Path
    mask: Path | None
    size: tuple[int, int]
    reading: Reading = DEFAULT_READING
    pixel_size: float | None = None
    mask_values: MaskValues = None
    counts: Mapping[int, int] | None = None

    @property
    def has_windows(self) -> bool:
        """Whether both files are rasters that can be read in parts."""
        return all(path is None or path.suffix.lower() in WINDOW_SUFFIXES for path in (self.image, self.mask))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids, see `LabeledImage`; `InputError` if a file cannot be decoded."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """The whole pair in memory; `InputError` if a file cannot be decoded."""
        pixels, valid = read_image(self.image, str(self.image), self.reading)
        labels = no_labels(self.size)
        if self.mask is not None:
            labels = read_mask(self.mask, str(self.mask), self.mask_values)
        return ArrayPair(self.name, pixels, labels, valid, self.pixel_size)

    def open(self) -> Windows:
        """The pair for reading in parts; `InputError` if a file cannot be decoded."""
        if self.has_windows:
            return self
        return self.decode()

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Of the image, see `LabeledImage`; `InputError` if it cannot be decoded."""
        return undeclared_fills(self.image, str(self.image), self.reading)

    def label_counts(self) -> Mapping[int, int] | None:
        """Pixels of every id of the mask, whether the image has data there or not."""
        return self.counts

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`; for files with windows."""
        return read_image_window(self.image, self.reading, (row, col, height, width))

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`; for files with windows."""
        if self.mask is None:
            return no_labels((height, width))
        return read_mask_window(self.mask, (row, col, height, width), self.mask_values)


@dataclass(frozen=True)
class DrawnScene:
    """A SynthEarth scene of `size` pixels, drawn anew by every `read`; its labels are 255 unless `labeled`."""

    domain: str
    seed: int
    size: tuple[int, int] = (512, 512)
    labeled: bool = True

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
        return scene.image, scene.labels if self.labeled else no_labels(self.size)

    def decode(self) -> ArrayPair:
        """The drawn scene."""
        return ArrayPair(self.name, *self.read(), pixel_size=self.pixel_size)

    open = decode

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """None: it is drawn."""
        return ()

    def label_counts(self) -> None:
        """Not known before it is drawn."""


def scale_to(image: LabeledImage | Windows, ground_sampling_distance: float | None) -> float:
    """Factor that brings an image to that many meters per pixel; 1 where either is unknown."""
    if ground_sampling_distance is None or image.pixel_size is None:
        return 1.0
    return image.pixel_size / ground_sampling_distance


def no_labels(size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 of 255."""
    return np.full(size, IGNORE_INDEX, dtype=np.uint8)
