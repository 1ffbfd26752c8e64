"""Blocks of a large image as separate images: the parts of a single scene that is split for validation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from ..raster.fill import Fill
from .image_files import Picture, Window, histogram, occurring
from .labeled_images import ArrayPair, LabeledImage, PartialLabels, Places, Windows

TRIES = 32
"""Number of drawn places with labels to find one within a block."""


class _Within:
    """Properties that a block takes from the whole image."""

    whole: Any
    window: Window

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.window[2], self.window[3]

    @property
    def pixel_size(self) -> float | None:
        """Meters on the ground per pixel; None if not known."""
        return self.whole.pixel_size

    @property
    def partial(self) -> PartialLabels | None:
        """The labeled classes; None for all."""
        return self.whole.partial

    @property
    def places(self) -> "BlockPlaces | None":
        """Places of labels; None if every place has labels."""
        if self.whole.places is None:
            return None
        return BlockPlaces(self.whole.places, self.window)


@dataclass(frozen=True)
class ImageBlock(_Within):
    """A window of an image; reading it never leaves the window.

    Attributes:
        whole: The image.
        window: The block in its pixels.
    """

    whole: LabeledImage
    window: Window
    has_windows: ClassVar[bool] = True
    group: ClassVar[None] = None
    file: ClassVar[None] = None

    @property
    def name(self) -> str:
        """Name of the image, with the block's first row and column."""
        row, col = self.window[:2]
        return f"{self.whole.name} [{row}, {col}]"

    def parts(self) -> Sequence["ImageBlock"]:
        """Itself, or its parts with labels, see `LabeledImage`."""
        if self.whole.places is None:
            return [self]
        common = (_common(window, self.window) for window in self.whole.places.windows())
        return [ImageBlock(self.whole, window) for window in common if window is not None]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, C) uint8 and (H, W) uint8 ids, see `LabeledImage`."""
        return self.decode().read()

    def decode(self) -> ArrayPair:
        """The block in memory."""
        windows = self.open()
        pixels, valid = windows.read_pixels(0, 0, *self.size)
        labels = windows.read_labels(0, 0, *self.size)
        return ArrayPair(self.name, pixels, labels, valid, self.pixel_size, partial=self.partial)

    def open(self) -> "BlockWindows":
        """The block for reading in parts."""
        return BlockWindows(self.whole.open(), self.window)

    def undeclared_fills(self) -> tuple[Fill, ...]:
        """Undeclared fill of the whole image, see `LabeledImage`."""
        return self.whole.undeclared_fills()

    def label_counts(self) -> Mapping[int, int]:
        """Pixels of every id of the block, including pixels where the image has no data."""
        return occurring(histogram(self.open().read_labels(0, 0, *self.size)))


@dataclass(frozen=True)
class BlockWindows(_Within):
    """An image opened for reading within a window, see `Windows`."""

    whole: Windows
    window: Window

    def read_pixels(self, row: int, col: int, height: int, width: int) -> Picture:
        """A window of image and validity, see `Windows`."""
        top, left = self.window[:2]
        return self.whole.read_pixels(top + row, left + col, height, width)

    def read_labels(self, row: int, col: int, height: int, width: int) -> np.ndarray:
        """A window of the labels, see `Windows`."""
        top, left = self.window[:2]
        return self.whole.read_labels(top + row, left + col, height, width)


@dataclass(frozen=True)
class BlockPlaces:
    """The places of an image within a window, see `Places`."""

    whole: Places
    window: Window

    def place(self, rng: np.random.Generator) -> tuple[float, float] | None:
        """The (row, col) of a pixel within the block; None if none was found."""
        top, left, height, width = self.window
        for _ in range(TRIES):
            found = self.whole.place(rng)
            if found is None:
                return None
            row, col = found[0] - top, found[1] - left
            if 0 <= row < height and 0 <= col < width:
                return row, col
        return None

    def windows(self) -> Sequence[Window]:
        """Windows that together hold all labels of the block."""
        top, left = self.window[:2]
        common = (_common(window, self.window) for window in self.whole.windows())
        return [
            (each[0] - top, each[1] - left, each[2], each[3]) for each in common if each is not None
        ]


def blocks_of(image: LabeledImage, number: int) -> Sequence[ImageBlock]:
    """Cuts an image into at least `number` nearly square blocks that cover it once, or into single pixels."""
    height, width = image.size
    side = (height * width / number) ** 0.5
    columns = min(width, max(1, round(width / side)))
    rows = min(height, max(1, math.ceil(number / columns)))
    blocks = []
    for top, bottom in pairwise(_edges(height, rows)):
        for left, right in pairwise(_edges(width, columns)):
            blocks.append(ImageBlock(image, (top, left, bottom - top, right - left)))
    return blocks


def _common(first: Window, second: Window) -> Window | None:
    """The intersection of two windows; None if it is empty."""
    top, left = max(first[0], second[0]), max(first[1], second[1])
    bottom = min(first[0] + first[2], second[0] + second[2])
    right = min(first[1] + first[3], second[1] + second[3])
    if bottom <= top or right <= left:
        return None
    return top, left, bottom - top, right - left


def _edges(length: int, parts: int) -> list[int]:
    return [round(length * part / parts) for part in range(parts + 1)]
