"""The metric for `evaluate`: the numbers that `mean_iou` publishes, without the network."""

from pathlib import Path

import numpy as np
import pytest

import crossearth_hf

evaluate = pytest.importorskip("evaluate")


@pytest.fixture
def metric(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    folder = Path(crossearth_hf.__file__).parent / "evaluation" / "segmentation_scores"
    return evaluate.load(str(folder), cache_dir=str(tmp_path))


def test_the_published_example_of_mean_iou(metric):
    """Inputs and results as in the metric card of `mean_iou`, huggingface.co/spaces/evaluate-metric/mean_iou."""
    predictions = [
        [[1, 2], [3, 4], [5, 255]],
        [[2, 7], [9, 2], [3, 6]],
        [[2, 2, 3], [8, 2, 4], [3, 255, 2]],
    ]
    references = [
        [[0, 3], [5, 4], [6, 255]],
        [[1, 7], [9, 2], [3, 6]],
        [[1, 2, 2], [8, 2, 1], [3, 255, 1]],
    ]
    scores = metric.compute(
        predictions=[np.array(each) for each in predictions],
        references=[np.array(each) for each in references],
        num_labels=10,
        ignore_index=255,
    )
    assert scores["mean_iou"] == pytest.approx(0.47750000000000004)
    assert scores["mean_accuracy"] == pytest.approx(0.5916666666666666)
    assert scores["overall_accuracy"] == pytest.approx(0.5263157894736842)
    assert scores["per_category_iou"] == pytest.approx([0, 0, 0.375, 0.4, 0.5, 0, 0.5, 1, 1, 1])
    assert scores["per_category_accuracy"] == pytest.approx([0, 0, 0.75, 2 / 3, 1, 0, 0.5, 1, 1, 1])


def test_batches_and_another_ignored_id(metric):
    """Class 0: two of three true found, none too many. Class 1: one of one, one too many. Class 2 is nowhere."""
    metric.add_batch(predictions=[np.array([[0, 0]])], references=[np.array([[0, 9]])])
    metric.add_batch(
        predictions=[np.array([[0, 1], [1, 2]])], references=[np.array([[0, 0], [1, 9]])]
    )
    scores = metric.compute(num_labels=3, ignore_index=9)
    np.testing.assert_allclose(scores["per_category_iou"], [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(scores["per_category_f1"], [4 / 5, 2 / 3, np.nan])
    assert scores["mean_iou"] == pytest.approx(7 / 12)
    assert scores["overall_accuracy"] == pytest.approx(3 / 4)
