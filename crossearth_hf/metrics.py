"""Segmentation scores: counts first (the confusion matrix), then ratios as pure functions of it.

Confusion matrices are (K, K) int64, rows the true class, columns the predicted one. Matrices of images, windows or
processes add up; ratios do not.
"""

import numpy as np

from .labels import IGNORE_INDEX


def confusion_matrix(predictions: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pixels by true and predicted class; pixels labelled 255 never count.

    Args:
        predictions: Integer class ids of any shape, 0 to K-1 wherever a pixel is labelled.
        labels: Integer class ids of the same shape, 255 ignored.
        num_classes: K.

    Returns:
        (K, K) int64, rows true, columns predicted.

    Raises:
        ValueError: shapes that differ, or a class outside 0 to K-1.
    """
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} must have the same shape")
    labelled = labels != IGNORE_INDEX
    truth, predicted = labels[labelled].astype(np.int64), predictions[labelled].astype(np.int64)
    for name, ids in (("label", truth), ("prediction", predicted)):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(f"a {name} lies outside 0 to {num_classes - 1}: {ids.min()} to {ids.max()}")
    return np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """(K,) intersection over union; NaN for a class that is neither labelled nor predicted anywhere."""
    hits = np.diag(confusion)
    return _ratio(hits, confusion.sum(0) + confusion.sum(1) - hits)


def f1(confusion: np.ndarray) -> np.ndarray:
    """(K,) harmonic mean of precision and recall (Dice); NaN for a class neither labelled nor predicted."""
    return _ratio(2 * np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def accuracy(confusion: np.ndarray) -> float:
    """Share of all labelled pixels that are right; NaN where no pixel is labelled."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def mean_of_present(scores: np.ndarray) -> float:
    """Mean of (K,) scores over the classes that have one; NaN if none has."""
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")


def mean_iou(confusion: np.ndarray) -> float:
    """Mean IoU over the classes that are labelled or predicted anywhere; uniform over classes."""
    return mean_of_present(iou(confusion))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element-wise quotient in float64, NaN where the denominator is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(numerator, dtype=np.float64) / np.asarray(denominator, dtype=np.float64)
