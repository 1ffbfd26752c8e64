"""Confidence intervals of scores by drawing images with replacement.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13, percentile intervals. Images are
drawn, not pixels, because neighboring pixels are not independent. Tiles of one scene are not quite independent either,
so the intervals of tiled sets are too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import metrics

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
_CHUNK = 100  # resamples at a time: memory grows with this and the number of images


@dataclass(frozen=True)
class BootstrapIntervals:
    """Percentile intervals.

    Attributes:
        mean_iou: (2,) lower and upper bound of the mean over the scored classes.
        iou: (2, K) of every class; NaN for a class without a score.
    """

    mean_iou: np.ndarray
    iou: np.ndarray


def bootstrap_intervals(
    confusions: np.ndarray,
    scored: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> BootstrapIntervals:
    """Intervals of IoU from the confusion matrices of single images.

    A resample without a class is left out of the interval of that class.

    Args:
        confusions: (N, K, K) counts per image.
        scored: Ids of the classes in the mean.
        resamples: Number of draws of N images.
        level: Share of the resamples that the interval covers.
        seed: Seed of the draws.
    """
    images, classes, _ = confusions.shape
    rng, flat = (
        np.random.default_rng(seed),
        confusions.reshape(images, -1).astype(np.float64),
    )  # exact below 2^53
    scores = np.empty((resamples, classes))
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        # (rows, N) times each image is drawn
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=rows)
        scores[start : start + rows] = metrics.iou((drawn @ flat).reshape(rows, classes, classes))
    means = metrics.means_of_present(scores[:, list(scored)])
    return BootstrapIntervals(_interval(means[:, None], level)[:, 0], _interval(scores, level))


def _interval(values: np.ndarray, level: float) -> np.ndarray:
    """(2, K) percentiles of (resamples, K) values, without NaN."""
    bounds = np.full((2, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        present = values[~np.isnan(values[:, column]), column]
        if present.size:
            bounds[:, column] = np.quantile(present, [(1 - level) / 2, (1 + level) / 2])
    return bounds
