"""Means of features over class regions, by hand."""

import numpy as np
import pytest
import torch
from benchmark_data import ScoredModel
from stub_model import CLASSES

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.data.sources import ArrayPair
from crossearth_hf.evaluation import features as benchmark_features
from crossearth_hf.evaluation.features import domain_features, mask_features
from crossearth_hf.evaluation.targets import FolderTarget


@pytest.fixture
def places(monkeypatch):
    """The features of a cell are its row and its column."""

    def of_places(model, pixel_values):
        height, width = (side // 4 for side in pixel_values.shape[-2:])
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return torch.stack([rows, columns]).float()[None]

    monkeypatch.setattr(benchmark_features, "mask_features", of_places)


def pair(labels):
    return ArrayPair("a", np.zeros((*labels.shape, 3), np.uint8), labels)


def features_of(labels, **options):
    task = FolderTarget("x", **({"window": 64, "stride": 64} | options)).task(
        "x", ScoredModel().config
    )
    return domain_features(ScoredModel(), CrossEarthImageProcessor(), task, [pair(labels)])


def test_a_vector_per_labeled_class(places):
    labels = np.zeros((32, 48), np.uint8)
    labels[:, 16:] = 1  # columns 4 to 11 of the cells
    labels[:, 24:] = 255  # of which 6 to 11 have no label
    labels[:4, :12] = 2  # three cells: too few
    vectors, classes = features_of(labels)
    assert classes.tolist() == [0, 1]
    rest = [(row, column) for row in range(8) for column in range(4) if row or column == 3]
    np.testing.assert_allclose(vectors, [np.mean(rest, axis=0), [3.5, 4.5]], rtol=1e-3)
    assert vectors.dtype == np.float16
    assert features_of(labels, labeled=["green"])[1].tolist() == [1]


def test_a_processor_that_styles_in_training_styles_nothing_here(monkeypatch):
    seen = []
    monkeypatch.setattr(
        benchmark_features,
        "mask_features",
        lambda _, pixels: seen.append(pixels) or torch.zeros(1, 2, 16, 16),
    )
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    images = [ArrayPair("a", image, np.ones((64, 64), np.uint8))]
    task = FolderTarget("x", window=64, stride=64).task("x", ScoredModel().config)
    for styled in (False, True):
        processor = CrossEarthImageProcessor(
            do_earth_style_injection=styled, style_probability=1.0, style_alpha=1.0
        )
        domain_features(ScoredModel(), processor, task, images)
    assert torch.equal(*seen)


def test_cells_weigh_by_their_share_and_the_middle_is_seen(places):
    labels = np.full((32, 200), 255, np.uint8)
    labels[:, 68:102] = 1  # the window starts at 68: eight cells and a half
    vectors, _ = features_of(labels)
    assert vectors[0, 1] == pytest.approx((sum(range(8)) + 8 / 2) / 8.5, rel=1e-3)


def test_sizes_that_are_no_multiple_of_16(places):
    vectors, classes = features_of(np.ones((30, 41), np.uint8))
    assert classes.tolist() == [CLASSES.index("green")]
    assert vectors[0, 1] == pytest.approx(
        (sum(4 * column for column in range(10)) + 10) / 41, rel=1e-3
    )


def test_mask_features_are_what_the_masks_are_made_of(model):
    """The model's masks are dot products of queries with them, so the masks of one cell follow its features."""
    torch.manual_seed(0)
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features, masks = (
            mask_features(model, pixel_values),
            model(pixel_values).masks_queries_logits,
        )
    flat, targets = features[0].flatten(1).T, masks[0].flatten(1).T  # (256, C), (256, Q)
    solution = torch.linalg.lstsq(flat.double(), targets.double()).solution
    assert torch.allclose(flat.double() @ solution, targets.double(), atol=1e-4)
