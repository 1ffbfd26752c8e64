"""Expected calibration error against cases worked by hand."""

import numpy as np
import pytest

from crossearth_hf.evaluation.calibration import CalibrationCounts


def counted(confidence, right, bins=10):
    """Counts of pixels with these confidences, right or not."""
    counts = CalibrationCounts(bins)
    counts.add(np.array(confidence), np.ones(len(right), int), np.array(right, int))
    return counts


def test_two_bins_by_hand():
    # Bin (0.6, 0.7]: confidence 0.65, one of two right. Bin (0.9, 1]: confidence 0.95, three of three right.
    counts = counted([0.64, 0.66, 0.92, 0.95, 0.98], [1, 0, 1, 1, 1])
    assert counts.error() == pytest.approx(2 / 5 * 0.15 + 3 / 5 * 0.05)
    confidence, accuracy = counts.curve()
    assert confidence[[6, 9]] == pytest.approx([0.65, 0.95])
    assert accuracy[[6, 9]] == pytest.approx([0.5, 1])
    assert np.isnan(np.delete(confidence, [6, 9])).all()
    assert np.isnan(np.delete(accuracy, [6, 9])).all()
    assert counts.pixels.tolist() == [0] * 6 + [2, 0, 0, 3]


def test_right_as_often_as_sure_is_no_error():
    assert counted([0.75] * 4, [1, 1, 1, 0]).error() == pytest.approx(0)
    assert counted([1.0] * 4, [0] * 4).error() == pytest.approx(1)


def test_bins_are_open_below_and_closed_above():
    counts = counted([0, 0.1, 0.10001, 1], [1] * 4)
    assert counts.pixels.tolist() == [2, 1] + [0] * 7 + [1]


def test_ignored_pixels_do_not_count():
    counts = CalibrationCounts()
    counts.add(np.array([[0.9, 0.4]], np.float32), np.array([[3, 3]]), np.array([[3, 255]]))
    assert counts.pixels.sum() == counts.hits.sum() == 1
    assert counts.error() == pytest.approx(0.1)


def test_nothing_counted_has_no_error():
    assert np.isnan(CalibrationCounts().error())


def test_images_add_up():
    rng = np.random.default_rng(0)
    confidence, maps = rng.random((4, 9, 9)), rng.integers(0, 3, (2, 4, 9, 9))
    whole, parts = CalibrationCounts(), [CalibrationCounts(), CalibrationCounts()]
    whole.add(confidence, *maps)
    for index in range(4):
        parts[index // 2].add(confidence[index], maps[0, index], maps[1, index])
    parts[0].merge(parts[1])
    assert parts[0].error() == pytest.approx(whole.error())
    assert parts[0].hits.tolist() == whole.hits.tolist()
