"""The points at which Mask2Former's loss samples masks, and the costs of matching at them (section 3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


class RandomPoints:
    """Random points in [0, 1]², from the global generator or from one generator per image.

    Args:
        seeds: (B,) int64, or `None` for the global generator.
        device: Where the points are drawn.
    """

    def __init__(self, seeds: Tensor | None, device: torch.device) -> None:
        self.device = device
        self.generators: list[torch.Generator] | None = None
        if seeds is not None:
            self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds.tolist()]

    def of_image(self, image: int, count: int) -> Tensor:
        """(1, count, 2) points of the batch's image number `image`."""
        if self.generators is None:
            generator = None
        else:
            generator = self.generators[image]
        return torch.rand(1, count, 2, generator=generator, device=self.device)

    def of_masks(self, masks_of: list[int], count: int) -> Tensor:
        """(N, count, 2) points of all masks, of which each image has `masks_of`."""
        if self.generators is None:
            return torch.rand(sum(masks_of), count, 2, device=self.device)
        drawn = [
            torch.rand(masks, count, 2, generator=generator, device=self.device)
            for masks, generator in zip(masks_of, self.generators, strict=True)
        ]
        return torch.cat(drawn)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (B, C, P) of `maps` (B, C, H, W) at `points` (B, P, 2) in [0, 1] as (x, y)."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)


def pairwise(
    cost: Callable[[Tensor, Tensor, Tensor], Tensor], logits: Tensor, target: Tensor, weight: Tensor
) -> Tensor:
    """The cost (Q, M) of every query (Q, P) with every target (M, P), points weighted by (1 or M, P)."""
    if len(weight) == 1:
        return cost(logits, target, weight)
    columns = [cost(logits, target[m : m + 1], weight[m : m + 1]) for m in range(len(target))]
    return torch.cat(columns, dim=1)


def pairwise_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean binary cross-entropy (Q, M) of every query (Q, P) with every target (M, P), points weighted by (1, P)."""
    positive = F.softplus(-logits) * weight
    negative = F.softplus(logits) * weight
    return (positive @ target.T + negative @ (1 - target).T) / weight.sum().clamp(min=1)


def pairwise_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss (Q, M) of every query (Q, P) with every target (M, P), points weighted by (1, P)."""
    probability = logits.sigmoid() * weight
    overlap = 2 * probability @ target.T
    return 1 - (overlap + 1) / (probability.sum(1)[:, None] + (target * weight).sum(1)[None] + 1)
