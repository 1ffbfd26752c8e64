"""Blending of overlapping windows: sums of weighted scores of a part of a scene, and labels and shares from them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..inference.shares import class_shares
from ..labels import IGNORE_INDEX
from ..raster.writing import TILE
from .parts import Batch, Part

_WEIGHT_FLOOR = 0.01
_PROBABILITY_STEPS = 4096

BlockWriter = Callable[[int, int, np.ndarray, np.ndarray, np.ndarray], None]
"""Called as `write(row, col, labels, scores, counted)`: see `Blend`."""


class Blend:
    """Sums of weighted scores of one part, for the bands of 256 rows that are not complete yet.

    Args:
        part: Its borders in the scene.
        classes: K.
        write: Receives each complete band: its first row and column, (h, w) uint8 labels, (K, h, w) float32 sums of
            weighted scores, and (h, w) bool pixels that count.
        ignore_valid: Whether all pixels of windows with data get a label, also those that do not count.
    """

    def __init__(self, part: Part, classes: int, write: BlockWriter, *, ignore_valid: bool) -> None:
        self._part, self._classes, self._write, self._ignore_valid = (
            part,
            classes,
            write,
            ignore_valid,
        )
        self._done = part.top  # the rows above this one are written
        self._scores: dict[int, Tensor] = {}  # first row of a band -> (K, rows, width of the part)
        self._counted: dict[int, np.ndarray] = {}  # likewise, (rows, width of the part)
        self._labeled: dict[int, np.ndarray] = {}

    def add(self, batch: Batch, counted: np.ndarray, scores: Sequence[Tensor | None]) -> None:
        """Adds windows with (b, h, w) bool pixels that count and weighted scores (K, >= h, >= w).

        Writes complete bands.
        """
        for col, counted_here, scores_here in zip(batch.cols, counted, scores, strict=True):
            if scores_here is not None:
                self._add(batch.row, col, counted_here, scores_here)
        while self._done < batch.complete:
            self._finish()

    def _add(self, row: int, col: int, counted: np.ndarray, scores: Tensor) -> None:
        part = self._part
        left, right = max(col, part.left), min(col + counted.shape[1], part.right)
        first, last = max(row, part.top), min(row + counted.shape[0], part.bottom)
        source = slice(left - col, right - col)
        target = slice(left - part.left, right - part.left)
        for band in range(first // TILE * TILE, last, TILE):
            top, bottom = max(first, band), min(last, band + TILE)
            self._open(band)
            rows, from_rows = slice(top - band, bottom - band), slice(top - row, bottom - row)
            self._counted[band][rows, target] |= counted[from_rows, source]
            if self._ignore_valid:
                self._labeled[band][rows, target] = True
            self._scores[band][:, rows, target] += scores[:, from_rows, source]

    def _open(self, band: int) -> None:
        """Allocates the rows from `band` on, unless they exist."""
        if band not in self._scores:
            shape = (min(band + TILE, self._part.bottom) - band, self._part.right - self._part.left)
            self._scores[band] = torch.zeros(self._classes, *shape)
            self._counted[band] = np.zeros(shape, dtype=bool)
            self._labeled[band] = self._counted[band]
            if self._ignore_valid:
                self._labeled[band] = np.zeros(shape, dtype=bool)

    def _finish(self) -> None:
        """Hands the first unwritten band to the writer."""
        self._open(self._done)
        scores, counted = self._scores.pop(self._done), self._counted.pop(self._done)
        labels = _labels(scores, self._labeled.pop(self._done))
        self._write(self._done, self._part.left, labels, scores.numpy(), counted)
        self._done += len(counted)


def _labels(scores: Tensor, valid: np.ndarray) -> np.ndarray:
    """(h, w) uint8 classes of the highest of (K, h, w) scores, the first of equal ones; 255 where not valid."""
    labels = torch.zeros(valid.shape, dtype=torch.uint8)
    best = scores[0].clone()
    for index in range(1, len(scores)):
        labels.masked_fill_(scores[index] > best, index)
        torch.maximum(best, scores[index], out=best)
    return labels.masked_fill_(torch.from_numpy(~valid), IGNORE_INDEX).numpy()


def confidences(labels: np.ndarray, scores: np.ndarray, temperature: float | None) -> np.ndarray:
    """(h, w) float32 share of the top score in the sum of (K, h, w) scores; NaN where there is no data."""
    shares = class_shares(torch.from_numpy(scores), temperature).amax(0).numpy()
    shares[labels == IGNORE_INDEX] = np.nan
    return shares


def probabilities(labels: np.ndarray, scores: np.ndarray, temperature: float | None) -> np.ndarray:
    """(K, h, w) float32 shares of (K, h, w) scores in their sum, to the nearest 1/4096; NaN where there is no data.

    Rounding drops insignificant digits, which would make up most of a compressed file.
    """
    shares = class_shares(torch.from_numpy(scores), temperature).numpy()
    shares[:, labels == IGNORE_INDEX] = np.nan
    np.multiply(shares, _PROBABILITY_STEPS, out=shares)
    np.rint(shares, out=shares)
    return np.divide(shares, _PROBABILITY_STEPS, out=shares)


def taper(side: int) -> Tensor:
    """(side,) raised cosine, from almost 0 at the window's edges to 1 in its middle."""
    wave = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(side) + 0.5) / side)
    return _WEIGHT_FLOOR + (1 - _WEIGHT_FLOOR) * wave
