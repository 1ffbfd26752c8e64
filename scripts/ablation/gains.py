"""What a row gains over the base: paired differences over unseen domains, with a bootstrap and Holm's correction.

Rows are compared seed by seed, since runs of one seed see the same crops and share their start. A resample draws
domains, seeds and the images of each domain with replacement (Efron and Tibshirani, An introduction to the bootstrap,
1993, chapter 13), the same for every row. P-values are two-sided and corrected over the rows (Holm, A simple
sequentially rejective multiple test procedure, 1979).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossearth_hf.evaluation import metrics

LEVEL = 0.95

Confusions = Mapping[int, Mapping[str, np.ndarray]]
"""By seed and domain: (N, K, K) counts of every image, rows true."""


@dataclass(frozen=True)
class Gain:
    """Difference to the base in the mean over domains.

    Attributes:
        mean: Over seeds and domains.
        low, high: Interval of the bootstrap.
        p: Two-sided; corrected where `holm` has been there.
        seeds: That row and base share.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int


def mean_iou(confusions: np.ndarray, labeled: Sequence[int]) -> np.ndarray:
    """(...) mean IoU over labeled classes of (..., K, K) counts in which the others are merged into the first class."""
    scores = metrics.iou(confusions)[..., list(labeled)]
    return metrics.means_of_present(scores)


def paired_gain(
    row: Confusions,
    base: Confusions,
    labeled: Mapping[str, Sequence[int]],
    *,
    resamples: int = 2000,
) -> Gain | None:
    """What a row gains over the base; None where they share no seed.

    Args:
        row: Counts of the row.
        base: Counts of the base.
        labeled: Ids of the labeled classes of every domain; its keys are the domains.
        resamples: Number of draws.
    """
    seeds, domains = sorted(set(row) & set(base)), list(labeled)
    if not seeds:
        return None
    whole = np.zeros((len(seeds), len(domains)))
    drawn = np.zeros((resamples, len(seeds), len(domains)))
    rng = np.random.default_rng(0)
    for column, domain in enumerate(domains):
        count = len(base[seeds[0]][domain])
        # (R, N), as often each is drawn
        times = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
        for line, seed in enumerate(seeds):
            pair = row[seed][domain], base[seed][domain]
            ours, theirs = (mean_iou(counts.sum(0), labeled[domain]) for counts in pair)
            whole[line, column] = ours - theirs
            ours, theirs = (mean_iou(_drawn(counts, times), labeled[domain]) for counts in pair)
            # a draw without the class says nothing
            drawn[:, line, column] = np.nan_to_num(ours - theirs)
    of_seeds = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=resamples)
    of_domains = rng.multinomial(
        len(domains), np.full(len(domains), 1 / len(domains)), size=resamples
    )
    gains = np.einsum("rsd,rs,rd->r", drawn, of_seeds, of_domains) / whole.size
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = min(int((gains <= 0).sum()), int((gains >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Gain(float(whole.mean()), float(low), float(high), p, len(seeds))


def _drawn(counts: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(R, K, K) sums of (N, K, K) counts, each image as often as (R, N) says."""
    images, classes, _ = counts.shape
    return (times @ counts.reshape(images, -1)).reshape(-1, classes, classes)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number, by row."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return corrected
