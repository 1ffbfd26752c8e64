"""Scores against cases worked by hand."""

import numpy as np
import pytest

from crossearth_hf.evaluation import metrics

# Rows true, columns predicted; class 3 occurs nowhere, class 2 is predicted but never true.
HAND = np.array([[5, 1, 0, 0], [2, 3, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_confusion_matrix_counts_true_by_row_and_skips_ignored_pixels():
    labels = np.array([[0, 0, 1, 255], [2, 1, 255, 0]])
    predictions = np.array([[0, 1, 1, 2], [0, 1, 0, 0]])
    expected = [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    counts = metrics.confusion_matrix(predictions, labels, 3)
    assert counts.tolist() == expected
    assert counts.dtype == np.int64


def test_ignored_pixels_may_hold_any_prediction():
    counts = metrics.confusion_matrix(np.array([200, 1]), np.array([255, 1]), 2)
    assert counts.tolist() == [[0, 0], [0, 1]]


def test_counts_do_not_overflow_in_eight_bits():
    labels = np.full((300, 300), 6, dtype=np.uint8)
    assert metrics.confusion_matrix(labels, labels, 7)[6, 6] == 90_000


@pytest.mark.parametrize(
    ("predictions", "labels"), [([0, 3], [0, 1]), ([0, 1], [0, 3]), ([0, -1], [0, 1])]
)
def test_ids_outside_the_classes_are_refused(predictions, labels):
    with pytest.raises(ValueError, match="outside 0 to 2"):
        metrics.confusion_matrix(np.array(predictions), np.array(labels), 3)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="same shape"):
        metrics.confusion_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int), 3)


def test_ratios_of_the_hand_worked_case():
    # class 0: 5 hits of 7 predicted and 6 true; class 1: 3 of 4 and 6; class 2: 0 of 1 and 0.
    np.testing.assert_allclose(metrics.iou(HAND), [5 / 8, 3 / 7, 0, np.nan])
    np.testing.assert_allclose(metrics.f1(HAND), [10 / 13, 6 / 10, 0, np.nan])
    assert metrics.accuracy(HAND) == pytest.approx(8 / 12)
    assert metrics.mean_iou(HAND) == pytest.approx((5 / 8 + 3 / 7) / 3)


def test_nothing_labeled_gives_no_score():
    empty = np.zeros((2, 2), dtype=np.int64)
    assert np.isnan(metrics.mean_iou(empty))
    assert np.isnan(metrics.accuracy(empty))


def test_matrices_of_parts_add_up():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, (2, 8, 8))
    parts = sum(metrics.confusion_matrix(predictions[i], labels[i], 3) for i in range(8))
    assert (parts == metrics.confusion_matrix(predictions, labels, 3)).all()


def test_state_adds_images_and_merges_processes():
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 3, (2, size, 7)) for size in (4, 9, 2)]
    states = [metrics.ConfusionMatrix(3), metrics.ConfusionMatrix(3)]
    for index, (predictions, labels) in enumerate(maps):
        states[index % 2].add(predictions, labels)
    states[0].merge(states[1])
    flat = np.concatenate([each.reshape(2, -1) for each in maps], axis=1)
    assert states[0].counts.tolist() == metrics.confusion_matrix(*flat, 3).tolist()
    assert states[0].counts.dtype == np.int64


def test_counts_beyond_four_billion():
    state = metrics.ConfusionMatrix(2)
    state.counts[1, 1] = 2**33
    state.add(np.array([1]), np.array([1]))
    assert state.counts[1, 1] == 2**33 + 1
    assert metrics.f1(state.counts)[1] == 1


def test_recall_needs_labels_only():
    np.testing.assert_allclose(metrics.recall(HAND), [5 / 6, 3 / 6, np.nan, np.nan])


def test_foreground_iou_is_for_two_classes():
    assert metrics.foreground_iou(np.array([[6, 1], [2, 3]])) == pytest.approx(3 / 6)
    assert metrics.foreground_iou(HAND) is None


def test_ratios_of_many_matrices_at_once():
    many = np.stack([HAND, HAND.T, np.zeros_like(HAND)])
    for ratio in (metrics.iou, metrics.f1, metrics.recall):
        np.testing.assert_array_equal(ratio(many), [ratio(each) for each in many])
    np.testing.assert_array_equal(
        metrics.means_of_present(metrics.iou(many)), [metrics.mean_iou(each) for each in many]
    )
