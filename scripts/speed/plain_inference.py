"""Inference as the baseline and the peers do it: one window at a time over an image that lies in memory whole."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def slide(score: Callable[[Tensor], Tensor], pixels: Tensor, window: int, stride: int) -> Tensor:
    """Scores of a whole image, averaged where windows overlap.

    Args:
        score: (1, K, window, window) scores of a crop (1, 3, window, window).
        pixels: (1, 3, H, W) normalized; neither side below `window`.
        window, stride: In pixels; the last window of an axis is shifted back inside.

    Returns:
        (1, K, H, W) float32.
    """
    height, width = pixels.shape[2:]
    total, coverage = torch.zeros(()), torch.zeros((1, 1, height, width), device=pixels.device)
    for row in range(max(math.ceil((height - window) / stride), 0) + 1):
        for col in range(max(math.ceil((width - window) / stride), 0) + 1):
            bottom, right = min(row * stride + window, height), min(col * stride + window, width)
            rows, cols = slice(bottom - window, bottom), slice(right - window, right)
            scores = score(pixels[:, :, rows, cols])
            if total.ndim == 0:
                total = scores.new_zeros((1, scores.shape[1], height, width), dtype=torch.float32)
            total[:, :, rows, cols] += scores
            coverage[:, :, rows, cols] += 1
    return total / coverage


def query_scores(classes: Tensor, masks: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, K, H, W) scores: mask logits (B, Q, h, w) resized, sigmoid, summed over queries by class probability."""
    resized = F.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    return torch.einsum("bqk,bqhw->bkhw", classes.softmax(dim=-1)[..., :-1], resized.sigmoid())
