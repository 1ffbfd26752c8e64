"""The baseline's training step: Mask2Former's loss as the paper writes it, AdamW, nothing saved anywhere.

Source: Mask2Former (Cheng et al., CVPR 2022, sections 3.2 and 3.3). Random points are drawn in the original's order, so
that equal seeds give equal losses in implementations that keep it.
"""

from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from .plain_network import PlainCrossEarth

IGNORED = 255


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """(N, P) bilinear samples of maps (N, 1, h, w) at points (N, P, 2) in [0, 1]."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


class PlainLoss:
    """Mask2Former's loss; ignored pixels are background of every class.

    Args:
        points: Random points of a mask.
        weights: Of the classes' loss, the masks' and the dice loss.
        no_object: Weight of "no object" among the classes.
    """

    def __init__(
        self,
        points: int,
        weights: tuple[float, float, float] = (2.0, 5.0, 5.0),
        no_object: float = 0.1,
    ) -> None:
        self.points, self.weights, self.no_object = points, weights, no_object

    def __call__(self, classes: list[Tensor], masks: list[Tensor], labels: Tensor) -> Tensor:
        """Sum over the decoder's outputs: class logits (B, Q, K+1), mask logits (B, Q, h, w); labels (B, H, W)."""
        targets = []
        for label in labels:
            present = label.unique()
            present = present[present != IGNORED]
            targets.append((present, torch.stack([(label == one).float() for one in present])))
        outputs = zip(classes, masks, strict=True)
        return torch.stack([self._output(logits, maps, targets) for logits, maps in outputs]).sum()

    def _output(
        self, classes: Tensor, masks: Tensor, targets: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        matched = [
            self._match(logits, maps, *target)
            for logits, maps, target in zip(classes, masks, targets, strict=True)
        ]
        wanted = torch.full(classes.shape[:2], classes.shape[2] - 1, device=classes.device)
        for row, (queries, order), (present, _) in zip(wanted, matched, targets, strict=True):
            row[queries] = present[order]
        class_weights = torch.ones(classes.shape[2], device=classes.device)
        class_weights[-1] = self.no_object
        loss_class = F.cross_entropy(classes.transpose(1, 2), wanted, class_weights)
        predicted = torch.cat(
            [maps[queries] for maps, (queries, _) in zip(masks, matched, strict=True)]
        )[:, None]
        truth = torch.cat(
            [mask[order] for (_, mask), (_, order) in zip(targets, matched, strict=True)]
        )[:, None]
        with torch.no_grad():
            points = self._uncertain(predicted)
            asked = sample(truth, points)
        logits, count = sample(predicted, points), len(predicted)
        loss_mask = (
            F.binary_cross_entropy_with_logits(logits, asked, reduction="none").mean(1).sum()
            / count
        )
        chance = logits.sigmoid()
        loss_dice = (
            1 - (2 * (chance * asked).sum(1) + 1) / (chance.sum(1) + asked.sum(1) + 1)
        ).sum() / count
        return (
            self.weights[0] * loss_class + self.weights[1] * loss_mask + self.weights[2] * loss_dice
        )

    @torch.no_grad()
    def _match(
        self, classes: Tensor, masks: Tensor, present: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        points = torch.rand(1, self.points, 2, device=masks.device)
        logits = sample(masks[:, None], points.repeat(len(masks), 1, 1))  # (Q, P)
        asked = sample(truth[:, None], points.repeat(len(truth), 1, 1))  # (M, P)
        cost_class = -classes.softmax(dim=-1)[:, present]
        ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
        positive = F.binary_cross_entropy_with_logits(logits, ones, reduction="none")
        negative = F.binary_cross_entropy_with_logits(logits, zeros, reduction="none")
        cost_mask = (positive @ asked.T + negative @ (1 - asked).T) / self.points
        chance = logits.sigmoid()
        cost_dice = 1 - (2 * chance @ asked.T + 1) / (
            chance.sum(1)[:, None] + asked.sum(1)[None] + 1
        )
        cost = (
            self.weights[0] * cost_class + self.weights[1] * cost_mask + self.weights[2] * cost_dice
        )
        queries, order = linear_sum_assignment(cost.cpu().numpy())
        return torch.as_tensor(queries), torch.as_tensor(order)

    def _uncertain(self, predicted: Tensor) -> Tensor:
        """(N, P, 2) points: three quarters where the logits are nearest to 0 among 3P random ones, the rest random."""
        candidates = torch.rand(len(predicted), 3 * self.points, 2, device=predicted.device)
        nearest = (
            (-sample(predicted, candidates).abs()).topk(int(0.75 * self.points), dim=1).indices
        )
        chosen = torch.stack([own[index] for own, index in zip(candidates, nearest, strict=True)])
        rest = torch.rand(
            len(predicted), self.points - nearest.shape[1], 2, device=predicted.device
        )
        return torch.cat([chosen, rest], dim=1)


def plain_optimizer(network: PlainCrossEarth) -> torch.optim.Optimizer:
    """AdamW of the published recipe: no decay of norms, embeddings, tokens and Rein's scale."""
    exempt = {id(parameter) for parameter in _exempt(network)}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in exempt], "weight_decay": 0.05},
        {"params": [p for p in trained if id(p) in exempt], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.999), eps=1e-8)


def _exempt(network: PlainCrossEarth) -> Iterator[nn.Parameter]:
    adapter = network.model.adapter
    yield from (adapter.tokens_a, adapter.tokens_b, adapter.scale)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Embedding):
            yield from module.parameters()
