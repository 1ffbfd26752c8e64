"""From the logits of queries to scores of classes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .free_sizes import is_exporting

_QUERY_GROUP = 4


def semantic_scores(
    class_queries_logits: Tensor, masks_queries_logits: Tensor, size: tuple[int, int]
) -> Tensor:
    """Scores of every class at every pixel: the one way from query logits to scores in this package.

    Masks are resized bilinearly first and pass the sigmoid afterwards; classes pass a softmax whose last entry, "no
    object", is dropped; queries are summed (Mask2Former, Cheng et al., CVPR 2022).

    Args:
        class_queries_logits: (B, Q, K+1).
        masks_queries_logits: (B, Q, h, w).
        size: Height and width (H, W) of the crop in pixels.

    Returns:
        (B, K, H, W) float32 in [0, Q]: sums over queries, neither log-odds nor probabilities.
    """
    with torch.autocast(class_queries_logits.device.type, enabled=False):
        classes = class_queries_logits.float().softmax(dim=-1)[..., :-1]  # (B, Q, K)
        if torch.is_grad_enabled() or is_exporting():
            masks = F.interpolate(
                masks_queries_logits.float(), size=size, mode="bilinear", align_corners=False
            )
            return torch.einsum("bqk,bqhw->bkhw", classes, masks.sigmoid())
        return _summed_in_groups(classes, masks_queries_logits, size)


def _summed_in_groups(classes: Tensor, logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, H, W): the same sum, a few queries at a time, since all masks at full size are larger than any cache."""
    batch, queries, count = classes.shape
    scores = classes.new_zeros((batch, count, size[0] * size[1]))
    for start in range(0, queries, _QUERY_GROUP):
        group = logits[:, start : start + _QUERY_GROUP].float()
        masks = (
            F.interpolate(group, size=size, mode="bilinear", align_corners=False)
            .sigmoid_()
            .flatten(2)
        )
        scores.baddbmm_(classes[:, start : start + _QUERY_GROUP].transpose(1, 2), masks)
    return scores.unflatten(2, size)


__all__ = ["semantic_scores"]
