"""The loss against transformers' where both agree by definition, and where ours differs on purpose."""

import math

import pytest
import torch
from tiny_model import tiny_config
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from crossearth_hf.model.loss_crossearth import CrossEarthLoss

WEIGHTS = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def predictions(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randn(batch, 10, 7, generator=generator)
    masks = torch.randn(batch, 10, 16, 16, generator=generator)
    return classes, masks.requires_grad_()


def blocks(batch):
    """Labels in blocks of 16 pixels, classes 0 to 5."""
    coarse = torch.randint(0, 6, (batch, 4, 4), generator=torch.Generator().manual_seed(1))
    return coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)


def test_equals_transformers_on_one_output_of_labeled_images():
    config = tiny_config()
    classes, masks = predictions(2)
    labels = blocks(2)
    ids = [label.unique() for label in labels]
    targets = [
        (label == present[:, None, None]).float()
        for label, present in zip(labels, ids, strict=True)
    ]
    masks = masks.detach()
    torch.manual_seed(5)
    expected = Mask2FormerLoss(config, WEIGHTS)(masks, classes, targets, ids)
    torch.manual_seed(5)
    found = CrossEarthLoss(config)([classes], [masks], labels)
    for ours, key in (("class", "cross_entropy"), ("mask", "mask"), ("dice", "dice")):
        torch.testing.assert_close(
            found[f"loss_{ours}_0"], WEIGHTS[f"loss_{key}"] * expected[f"loss_{key}"]
        )


def test_an_image_without_labels_counts_as_one_mask():
    classes, masks = predictions(2)
    labels = blocks(2)
    torch.manual_seed(5)
    alone = CrossEarthLoss(tiny_config())([classes[:1]], [masks[:1]], labels[:1])
    labels[1] = 255
    count = len(labels[0].unique())
    torch.manual_seed(5)
    both = CrossEarthLoss(tiny_config())([classes], [masks], labels)
    assert both["loss_mask_0"] > 0
    # Same image, one more mask in the mean; only the random points differ.
    assert (both["loss_dice_0"] / alone["loss_dice_0"]).item() == pytest.approx(
        count / (count + 1), rel=0.1
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_ignored_pixels_are_background_unless_left_out(ignore):
    classes, masks = predictions(1)
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, :, 32:] = 255
    torch.manual_seed(2)
    losses = CrossEarthLoss(tiny_config(ignore_unlabelled_pixels=ignore))(
        [classes], [masks], labels
    )
    (losses["loss_mask_0"] + losses["loss_dice_0"]).backward()
    unlabeled = masks.grad[..., 9:].abs().sum()  # a column away from the border, which samples mix
    assert masks.grad[..., :8].abs().sum() > 0
    assert (unlabeled == 0) == ignore


def test_all_ignored_leaves_every_parameter_in_the_graph():
    classes, masks = predictions(2)
    losses = CrossEarthLoss(tiny_config())([classes], [masks], torch.full((2, 64, 64), 255))
    assert losses["loss_mask_0"] == losses["loss_dice_0"] == 0
    losses["loss_mask_0"].backward()
    assert masks.grad.abs().sum() == 0


def test_autocast_changes_nothing():
    classes, masks = predictions(2)
    found = []
    for enabled in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(CrossEarthLoss(tiny_config())([classes], [masks], blocks(2)))
    for name, value in found[0].items():
        assert found[1][name] == value


def test_unknown_labels_are_refused():
    classes, masks = predictions(1)
    with pytest.raises(
        ValueError, match=r"labels hold the ids \[6\]; the model knows 0 to 5 and 255"
    ):
        CrossEarthLoss(tiny_config())([classes], [masks], torch.full((1, 64, 64), 6))


def test_semantic_loss_is_the_cross_entropy_of_the_scores_shares():
    config = tiny_config(num_labels=2, semantic_weight=3.0)
    certain = torch.tensor([[[50.0, 0, 0], [0, 50.0, 0]]])  # query 0 is class 0, query 1 is class 1
    logit = torch.tensor([0.8, 0.2]).logit()
    masks = logit[None, :, None, None].expand(1, 2, 2, 2)  # scores 0.8 and 0.2 everywhere
    labels = torch.tensor([[0, 0], [1, 255]])[None].repeat_interleave(4, 1).repeat_interleave(4, 2)
    loss = CrossEarthLoss(config)([certain], [masks], labels)["loss_semantic_0"]
    floor = 1e-3
    shares = [(score + floor) / (1 + 2 * floor) for score in (0.8, 0.2)]
    assert float(loss) == pytest.approx(
        -3 * (2 * math.log(shares[0]) + math.log(shares[1])) / 3, rel=1e-5
    )
    assert (
        CrossEarthLoss(config)([certain], [masks], torch.full_like(labels, 255))["loss_semantic_0"]
        == 0
    )
    assert "loss_semantic_0" not in CrossEarthLoss(tiny_config(num_labels=2))(
        [certain], [masks], labels
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_with_seeds_an_image_counts_the_same_in_any_batch(ignore):
    config = tiny_config(ignore_unlabelled_pixels=ignore)
    classes, masks = predictions(3)
    labels, seeds = blocks(3), torch.tensor([11, 12, 13])
    whole = CrossEarthLoss(config)([classes], [masks], labels, seeds)
    order = torch.tensor([2, 0, 1])
    turned = CrossEarthLoss(config)([classes[order]], [masks[order]], labels[order], seeds[order])
    alone = [CrossEarthLoss(config)([classes[i : i + 1]], [masks[i : i + 1]], labels[i : i + 1], seeds[i : i + 1])
             for i in range(3)]  # fmt: skip
    counts = torch.tensor([len(label.unique()) for label in labels], dtype=torch.float)
    for name in ("loss_mask_0", "loss_dice_0"):
        torch.testing.assert_close(turned[name], whole[name])
        parts = torch.stack([losses[name] for losses in alone])
        torch.testing.assert_close((parts * counts).sum() / counts.sum(), whole[name])
    other = CrossEarthLoss(config)([classes], [masks], labels, seeds + 1)
    assert other["loss_mask_0"] != whole["loss_mask_0"]
