"""Boundary IoU: how well a map follows the outlines of its classes.

Source: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021: intersection
over union of the parts of truth and prediction that lie within a band along their own outlines.
"""

import math

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from ..labels import IGNORE_INDEX
from .metrics import ratio

SHARE = 0.02
"""Width of the band over the image's diagonal, as in the paper."""


class BoundaryCounts:
    """Pixels in the bands along outlines, to which images and processes add.

    Attributes:
        counts: (3, K) int64 per class: in both bands, in the band of the truth, in the band of the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((3, num_classes), dtype=np.int64)

    def add(self, predictions: np.ndarray, labels: np.ndarray, share: float = SHARE) -> None:
        """Counts the bands of an image.

        A pixel lies in the band of its class if a pixel of another class, an ignored one or the image's border is at
        most `share` times the diagonal away (at least one pixel; the larger of the row and column distance, as in the
        authors' repeated erosion by 3x3). Ignored pixels belong to no class, in the truth as in the prediction.

        Args:
            predictions: (H, W) integer class ids, 0 to K-1 wherever a pixel is labeled.
            labels: (H, W) integer class ids, 255 ignored.
            share: Width of the band over the diagonal.
        """
        width = max(1, round(share * math.hypot(*labels.shape)))
        truth, classes = labels.astype(np.uint8), self.counts.shape[1]
        predicted = np.where(truth == IGNORE_INDEX, truth, predictions.astype(np.uint8))
        in_truth, in_prediction = _band(truth, width), _band(predicted, width)
        in_both = in_truth & in_prediction & (truth == predicted)
        counted = (truth[in_both], truth[in_truth], predicted[in_prediction])
        self.counts += [np.bincount(ids, minlength=classes) for ids in counted]

    def merge(self, other: "BoundaryCounts") -> None:
        """Adds what another part of the data has counted."""
        self.counts += other.counts

    def iou(self) -> np.ndarray:
        """(K,) boundary IoU over all images; NaN for a class that is neither labeled nor predicted anywhere."""
        both, truth, predicted = self.counts
        return ratio(both, truth + predicted - both)


def _band(ids: np.ndarray, width: int) -> np.ndarray:
    """(H, W) bool: class pixels with another class, or the border, within `width` pixels on any side."""
    side = 2 * width + 1
    lowest = minimum_filter(ids, side, mode="constant", cval=IGNORE_INDEX)
    highest = maximum_filter(ids, side, mode="constant", cval=IGNORE_INDEX)
    return (lowest != highest) & (ids != IGNORE_INDEX)
