"""Segmentation scores: counts first (the confusion matrix), then ratios as pure functions of it.

Confusion matrices are (K, K) int64, rows the true class, columns the predicted one. Matrices of images, windows or
processes add up; ratios do not. A class that is neither labeled nor predicted anywhere has no score: NaN, left out of
means, as in the `mean_iou` of Hugging Face's `evaluate`. Ratios also take a batch of matrices, (..., K, K).
"""

import numpy as np

from ..labels import IGNORE_INDEX


class ConfusionMatrix:
    """Counts of pixels to which images, windows and processes add.

    Attributes:
        counts: (K, K) int64, rows true, columns predicted.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((num_classes, num_classes), dtype=np.int64)

    def add(self, predictions: np.ndarray, labels: np.ndarray) -> None:
        """Counts the pixels of an image; arguments and errors as in `confusion_matrix`."""
        self.counts += confusion_matrix(predictions, labels, len(self.counts))

    def merge(self, other: "ConfusionMatrix") -> None:
        """Adds what another part of the data has counted."""
        self.counts += other.counts


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixels by true and predicted class; pixels labeled 255 never count.

    Args:
        predictions: Integer class ids of any shape, 0 to K-1 wherever a pixel is labeled.
        labels: Integer class ids of the same shape, 255 ignored.
        num_classes: K.

    Returns:
        (K, K) int64, rows true, columns predicted.

    Raises:
        ValueError: The shapes differ, or a class lies outside 0 to K-1.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"predictions {predictions.shape} and labels {labels.shape} must have the same shape"
        )
    labeled = labels != IGNORE_INDEX
    truth, predicted = labels[labeled].astype(np.int64), predictions[labeled].astype(np.int64)
    for name, ids in (("label", truth), ("prediction", predicted)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(
                f"a {name} lies outside 0 to {num_classes - 1}: {ids.min()} to {ids.max()}"
            )
    return np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def iou(confusion: np.ndarray) -> np.ndarray:
    """(K,) intersection over union; NaN for a class that is neither labeled nor predicted anywhere."""
    hits = _hits(confusion)
    return ratio(hits, confusion.sum(-2) + confusion.sum(-1) - hits)


def f1(confusion: np.ndarray) -> np.ndarray:
    """(K,) harmonic mean of precision and recall (Dice); NaN for a class neither labeled nor predicted."""
    return ratio(2 * _hits(confusion), confusion.sum(-2) + confusion.sum(-1))


def recall(confusion: np.ndarray) -> np.ndarray:
    """(K,) share of each class's pixels that is found, also called class accuracy; NaN for a class never labeled."""
    return ratio(_hits(confusion), confusion.sum(-1))


def accuracy(confusion: np.ndarray) -> float:
    """Share of all labeled pixels that are right; NaN if no pixel is labeled."""
    return float(ratio(np.trace(confusion), confusion.sum()))


def means_of_present(scores: np.ndarray) -> np.ndarray:
    """(...) means of (..., K) scores over the classes that have one; NaN if none has."""
    return ratio(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(-1))


def mean_of_present(scores: np.ndarray) -> float:
    """Mean of (K,) scores over the classes that have one; NaN if none has."""
    return float(means_of_present(scores))


def mean_iou(confusion: np.ndarray) -> float:
    """Mean IoU over the classes that are labeled or predicted anywhere; uniform over classes."""
    return mean_of_present(iou(confusion))


def foreground_iou(confusion: np.ndarray) -> float | None:
    """IoU of the second of two classes, as road and building sets are often scored; None for any other number."""
    if len(confusion) == 2:
        return float(iou(confusion)[1])
    return None


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient in float64, NaN if the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)


def _hits(confusion: np.ndarray) -> np.ndarray:
    """(..., K) pixels of each class that are right."""
    return np.diagonal(confusion, axis1=-2, axis2=-1)
