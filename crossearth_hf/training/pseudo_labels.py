"""Labels that the model gives to pixels without one (self-training with a mean teacher).

The moving average of the weights labels what the data leave open, and the weights learn from it under the augmentation
of the run (Tarvainen & Valpola, NeurIPS 2017; thresholds as in FixMatch, Sohn et al., NeurIPS 2020). Our choices: one
threshold for all classes, on the share of a class in all scores of the pixel; and a label only where the data allow its
class, so that a pixel that is certainly no building never becomes one. A pixel that looks most of all like a building
then gets no label.
"""

import torch
from torch import Tensor

from ..inference.shares import class_shares
from ..labels import IGNORE_INDEX
from ..model.loss_crossearth import UNLABELED_INDEX


def pseudo_labeled(batch: dict[str, Tensor], scores: Tensor, threshold: float) -> Tensor:
    """The labels of a batch, with labels by `scores` where the data have none.

    Args:
        batch: "labels" (B, H, W) int64, "valid" (B, H, W) bool, and "unlabeled_classes" (B, K) bool: the classes that
            pixels without a label may have; a row without any stays as it is.
        scores: (B, K, H, W), 0 or more, of the model with averaged weights.
        threshold: Least share of the top one of the possible classes in the scores of all classes, in [0, 1].

    Returns:
        (B, H, W) int64.
    """
    labels, possible = batch["labels"], batch["unlabeled_classes"][:, :, None, None]
    # 255 may be any class, and where the labels distinguish it from 254 it also marks places that are excluded.
    is_unknown = (labels == IGNORE_INDEX) & possible.all(dim=1)
    is_rest = (labels == UNLABELED_INDEX) & possible.any(dim=1)
    is_open = (is_unknown | is_rest) & batch["valid"]
    shares = class_shares(scores.transpose(0, 1))  # (K, B, H, W)
    share, classes = shares.masked_fill(~possible.transpose(0, 1), -1).max(dim=0)
    return torch.where(is_open & (share >= threshold), classes, labels)
