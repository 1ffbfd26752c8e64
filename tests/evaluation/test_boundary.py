"""Boundary IoU against a case worked by hand and against its definition, pixel by pixel."""

import itertools
import math

import numpy as np
import pytest

from crossearth_hf.evaluation.boundary import BoundaryCounts


def counts_of(predictions, labels, classes, share):
    counts = BoundaryCounts(classes)
    counts.add(predictions, labels, share)
    return counts


def test_a_square_beside_itself():
    """Truth: a 5x5 square of class 1 in 9x9; prediction: the same, one column to the right; bands one pixel wide."""
    labels, predictions = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7] = 1
    predictions[2:7, 3:8] = 1
    counts = counts_of(predictions, labels, 2, share=0.01)
    # Rings of 16 pixels each; both hold the four shared pixels of the top and of the bottom row, and no other.
    assert counts.counts[:, 1].tolist() == [8, 16, 16]
    # Class 0: the border of the image, 32 pixels, and around each square a ring of 24.
    assert counts.counts[1:, 0].tolist() == [
        32 + 24,
        32 + 24 - 7,
    ]  # the ring about the shifted one meets the border
    assert counts.iou()[1] == pytest.approx(8 / 24)


def brute_force(predictions, labels, classes, width):
    """The definition: pixels of a class with anything else, or the outside, within `width` rows and columns."""
    height, breadth = labels.shape
    result = np.zeros((3, classes), int)
    for row, col in itertools.product(range(height), range(breadth)):
        near = [
            (row + dy, col + dx)
            for dy in range(-width, width + 1)
            for dx in range(-width, width + 1)
        ]
        bands = []
        for ids in (labels, predictions):
            here = ids[row, col] if labels[row, col] != 255 else 255
            edge = any(
                not (0 <= y < height and 0 <= x < breadth)
                or labels[y, x] == 255
                or ids[y, x] != here
                for y, x in near
            )
            bands.append(here if edge and here != 255 else None)
        for line, band in enumerate(bands, 1):
            if band is not None:
                result[line, band] += 1
        if bands[0] is not None and bands[0] == bands[1]:
            result[0, bands[0]] += 1
    return result


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    height, breadth = rng.integers(17, 30, 2)
    blocks = rng.integers(0, 3, (2, 6, 6))
    predictions, labels = (
        np.kron(block, np.ones((5, 5), int))[:height, :breadth].astype(np.uint8) for block in blocks
    )
    labels[rng.random(labels.shape) < 0.01] = 255
    share = 2.2 / math.hypot(height, breadth)  # rounds to two pixels
    assert (
        counts_of(predictions, labels, 3, share).counts.tolist()
        == brute_force(predictions, labels, 3, 2).tolist()
    )


def test_the_band_grows_with_the_diagonal():
    labels = np.zeros((300, 400), np.uint8)
    counts = counts_of(labels, labels, 1, share=0.02)  # 500 * 0.02 = 10 pixels
    assert counts.counts[:, 0].tolist() == [300 * 400 - 280 * 380] * 3
    assert counts.iou().tolist() == [1.0]


def test_ignored_pixels_count_in_neither_and_absent_classes_have_no_score():
    labels = np.full((4, 4), 255, np.uint8)
    labels[0, 0] = 1
    counts = counts_of(np.full((4, 4), 7), labels, 9, share=0.02)
    scores = counts.iou()
    assert scores[1] == 0
    assert scores[7] == 0
    assert np.isnan(scores[[0, 2, 3, 4, 5, 6, 8]]).all()


def test_images_add_up_in_any_split():
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 2, (3, 2, 8, 8)).astype(np.uint8)
    together, parts = BoundaryCounts(2), [BoundaryCounts(2), BoundaryCounts(2)]
    for index, (predictions, labels) in enumerate(maps):
        together.add(predictions, labels)
        parts[index % 2].add(predictions, labels)
    parts[0].merge(parts[1])
    assert parts[0].counts.tolist() == together.counts.tolist()
