"""The marginal loss of partly labeled images, against cases worked by hand and against the loss of complete labels."""

import math

import pytest
import torch
from tiny_model import tiny_config

from crossearth_hf.model.loss_crossearth import SCORE_FLOOR, UNLABELED_INDEX, CrossEarthLoss

NONE = torch.zeros(2, 6, dtype=torch.bool)


def config(**overrides):
    """No object weighs as much as a class, so that the class loss is a plain mean over queries."""
    return tiny_config(
        ignore_unlabelled_pixels=True, no_object_weight=1.0, class_weight=1.0, **overrides
    )


def predictions(queries=10):
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(2, queries, 7, generator=generator)
    return classes, torch.randn(2, queries, 16, 16, generator=generator)


def halves(left, right):
    """(64, 64) labels."""
    labels = torch.full((64, 64), left)
    labels[:, 32:] = right
    return labels


def losses(settings, labels, unlabeled=None, classes=None, masks=None):
    drawn = predictions()
    torch.manual_seed(3)
    return CrossEarthLoss(settings)(
        [drawn[0] if classes is None else classes],
        [drawn[1] if masks is None else masks],
        labels,
        unlabeled_classes=unlabeled,
    )


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_with_complete_labels_nothing_changes_to_the_last_bit(weight):
    settings = tiny_config(semantic_weight=weight)
    labels = torch.stack([halves(1, 2), halves(0, 255)])
    plain, marginal = losses(settings, labels), losses(settings, labels, NONE)
    assert plain.keys() == marginal.keys()
    for name, value in plain.items():
        assert value.equal(marginal[name])


def test_one_possible_class_is_a_label():
    """A pixel that can be one class alone is a pixel of this class: the semantic loss must not see a difference."""
    settings = config(semantic_weight=1.0)
    labels = torch.stack([halves(1, 2), halves(1, 2)])
    one = NONE.clone()
    one[:, 2] = True
    partly = labels.masked_fill(labels == 2, UNLABELED_INDEX)
    expected, found = losses(settings, labels), losses(settings, partly, one)
    torch.testing.assert_close(found["loss_semantic_0"], expected["loss_semantic_0"])


def test_unmatched_queries_may_be_unlabeled_classes():
    """One image, one labeled class, two queries with probabilities that are known: one is matched, one is not."""
    settings = config(num_queries=2, rein_num_tokens=2)
    first = torch.tensor([0.05, 0.7, 0.05, 0.05, 0.05, 0.05, 0.05])
    second = torch.tensor([0.1, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1])  # the last is no object
    classes = torch.stack([first, second]).log()[None]
    masks = torch.full((1, 2, 16, 16), -5.0)
    masks[0, 0, :, :8] = 5.0  # the first query has the left half
    labels = halves(1, UNLABELED_INDEX)[None]
    # class 1 is matched already: it does not count
    unlabeled = torch.tensor([[False, True, True, True, False, False]])
    found = losses(settings, labels, unlabeled, classes, masks)["loss_class_0"]
    assert found.item() == pytest.approx(-(math.log(0.7) + math.log(0.2 + 0.3 + 0.1)) / 2, rel=1e-5)


def test_unlabeled_pixels_count_against_the_labeled_classes_in_masks():
    settings = config(num_queries=2, rein_num_tokens=2)
    classes = torch.zeros(1, 2, 7)
    classes[0, 0, 1] = classes[0, 1, 6] = 9.0
    wide, narrow = torch.full((1, 2, 16, 16), -9.0), torch.full((1, 2, 16, 16), -9.0)
    wide[0, 0], narrow[0, 0, :, :8] = 9.0, 9.0
    other = torch.tensor([[True, False, True, True, True, True]])
    complete, open_ended = halves(1, UNLABELED_INDEX)[None], halves(1, 255)[None]
    small = losses(settings, complete, other, classes, narrow)["loss_mask_0"]
    large = losses(settings, complete, other, classes, wide)["loss_mask_0"]
    assert large > 20 * small
    ignored = losses(settings, open_ended, torch.ones(1, 6, dtype=torch.bool), classes, wide)[
        "loss_mask_0"
    ]
    assert ignored < large / 20


def test_the_semantic_loss_sums_the_shares_of_what_can_be_true():
    settings = config(semantic_weight=1.0, num_queries=3, rein_num_tokens=3)
    classes = torch.full((1, 3, 7), -30.0)
    for query in range(3):
        classes[0, query, query] = 0.0  # certain of class 0, 1, 2
    masks = torch.tensor([0.5, 0.3, 0.1]).logit()[None, :, None, None].expand(1, 3, 16, 16)
    labels = torch.full((1, 64, 64), UNLABELED_INDEX)
    other = torch.tensor([[True, False, True, False, False, False]])
    found = losses(settings, labels, other, classes, masks)["loss_semantic_0"]
    total = 0.9 + 6 * SCORE_FLOOR
    assert found.item() == pytest.approx(-math.log((0.6 + 2 * SCORE_FLOOR) / total), rel=1e-4)


def test_images_of_both_kinds_in_one_batch():
    settings = config(semantic_weight=1.0)
    labels = torch.stack([halves(1, 2), halves(1, UNLABELED_INDEX)])
    other = NONE.clone()
    other[1, [0, 2]] = True
    assert all(torch.isfinite(value) for value in losses(settings, labels, other).values())


def test_the_index_is_refused_in_an_image_that_labels_all_classes():
    labels = torch.stack([halves(1, UNLABELED_INDEX), halves(1, 2)])
    other = NONE.clone()
    other[1, 0] = True
    with pytest.raises(ValueError, match=r"labels hold the ids \[254\]"):
        losses(config(), labels, other)


@pytest.mark.parametrize("wrong", ["where the class is possible", "where it is not"])
def test_a_mask_leaves_out_the_pixels_that_may_have_its_class(wrong):
    """Left quarter building, second quarter road, the rest none of the buildings: maybe road, never building."""
    labels = torch.full((1, 64, 64), UNLABELED_INDEX)
    labels[:, :, :16] = 1
    labels[:, :, 16:32] = 2
    unlabeled = torch.tensor([[True, False, True, True, True, True]])
    classes = torch.full((1, 2, 7), -20.0)
    classes[0, 0, 1] = classes[0, 1, 2] = 20.0
    masks = torch.full((1, 2, 16, 16), -20.0)
    masks[0, 0, :, :4] = masks[0, 1, :, 4:8] = 20.0
    query = ["where it is not", "where the class is possible"].index(wrong)
    masks[0, query, :, 10:] = 20.0  # the query claims unlabeled pixels, too
    settings = config(num_queries=2, rein_num_tokens=2)
    found = losses(settings, labels, unlabeled, classes, masks)
    if query == 1:
        assert found["loss_mask_0"] < 1  # pixels at the borders of the masks
    else:
        assert found["loss_mask_0"] > 10
