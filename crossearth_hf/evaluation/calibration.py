"""Expected calibration error: whether a pixel called with 80 % confidence is right in 80 % of the cases.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: bins of equal width, and the mean over all
pixels of the distance between confidence and accuracy of their bin. Confidence is that of `crossearth predict`: the top
share, see `class_shares`.
"""

import numpy as np

from ..labels import IGNORE_INDEX
from .metrics import ratio

BINS = 15


class CalibrationCounts:
    """Confidence and hits per bin, to which images and processes add.

    Attributes:
        pixels: (bins,) int64 labeled pixels; bin i holds confidences above i / bins up to (i + 1) / bins, the first
            one 0 too.
        hits: (bins,) int64, those that are right.
        confidence: (bins,) float64 sum of their confidences.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.pixels, self.hits = np.zeros(bins, dtype=np.int64), np.zeros(bins, dtype=np.int64)
        self.confidence = np.zeros(bins)

    def add(self, confidence: np.ndarray, predictions: np.ndarray, labels: np.ndarray) -> None:
        """Counts the labeled pixels of an image.

        Args:
            confidence: (H, W) numbers in 0..1.
            predictions: (H, W) integer class ids.
            labels: (H, W) integer class ids, 255 ignored.
        """
        labeled, bins = labels != IGNORE_INDEX, len(self.pixels)
        sure = confidence[labeled].astype(np.float64)
        index = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
        self.pixels += np.bincount(index, minlength=bins)
        self.hits += np.bincount(index[predictions[labeled] == labels[labeled]], minlength=bins)
        self.confidence += np.bincount(index, weights=sure, minlength=bins)

    def merge(self, other: "CalibrationCounts") -> None:
        """Adds what another part of the data has counted."""
        self.pixels += other.pixels
        self.hits += other.hits
        self.confidence += other.confidence

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """(bins,) mean confidence and (bins,) accuracy, NaN in empty bins: the reliability curve."""
        return ratio(self.confidence, self.pixels), ratio(self.hits, self.pixels)

    def error(self) -> float:
        """Expected calibration error, 0..1; NaN if nothing was counted."""
        return float(ratio(np.abs(self.confidence - self.hits).sum(), self.pixels.sum()))
