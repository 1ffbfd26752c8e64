"""Intervals against draws one by one, and against SciPy's bootstrap."""

import numpy as np
import pytest
from scipy import stats

from crossearth_hf.evaluation import metrics
from crossearth_hf.evaluation.bootstrap import bootstrap_intervals


@pytest.fixture
def confusions():
    """Thirty images whose scores scatter; class 3 occurs nowhere, class 2 in two images."""
    rng = np.random.default_rng(1)
    counts = np.zeros((30, 4, 4), np.int64)
    counts[:, :2, :2] = rng.integers(0, 50, (30, 2, 2)) + 100 * np.eye(2, dtype=int)
    counts[:2, 2, :3] = [[5, 0, 20], [1, 1, 3]]
    return counts


def test_it_is_drawing_one_by_one(confusions):
    bounds = bootstrap_intervals(confusions, [0, 1, 2], resamples=250, seed=7)
    rng, scores = np.random.default_rng(7), []
    for _ in range(250):
        times = rng.multinomial(30, np.full(30, 1 / 30))
        scores.append(
            metrics.iou(sum(count * image for count, image in zip(times, confusions, strict=True)))
        )
    means = [np.nanmean(each[:3]) for each in scores]
    np.testing.assert_allclose(bounds.mean_iou, np.quantile(means, [0.025, 0.975]))
    np.testing.assert_allclose(
        bounds.iou[:, :3], np.nanquantile(np.array(scores)[:, :3], [0.025, 0.975], axis=0)
    )
    assert np.isnan(bounds.iou[:, 3]).all()


def test_scipy_agrees(confusions):
    def mean_iou(indices, axis):
        totals = confusions[indices].sum(axis=-3 if axis == -1 else 0)
        return metrics.means_of_present(metrics.iou(totals)[..., :2])

    ours = bootstrap_intervals(confusions, [0, 1], resamples=4000)
    theirs = stats.bootstrap(
        (np.arange(30),), mean_iou, n_resamples=4000, method="percentile", vectorized=True,
        random_state=np.random.default_rng(0), batch=500,
    ).confidence_interval  # fmt: skip
    assert ours.mean_iou == pytest.approx([theirs.low, theirs.high], abs=2e-3)
    assert np.diff(ours.mean_iou) > 0.02


def test_a_level_and_a_seed_are_kept(confusions):
    half, most = (
        bootstrap_intervals(confusions, [0, 1], level=level).mean_iou for level in (0.5, 0.95)
    )
    assert most[0] < half[0] < half[1] < most[1]
    assert (bootstrap_intervals(confusions, [0, 1]).mean_iou == most).all()
    assert (bootstrap_intervals(confusions, [0, 1], seed=1).mean_iou != most).any()


def test_images_that_are_alike_leave_no_doubt(confusions):
    bounds = bootstrap_intervals(np.repeat(confusions[:1], 5, axis=0), [0, 1])
    assert bounds.mean_iou == pytest.approx(
        [metrics.mean_of_present(metrics.iou(confusions[0])[:2])] * 2
    )
