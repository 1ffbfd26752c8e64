"""Mask2Former's loss (Cheng et al., CVPR 2022, section 3.2) as CrossEarth's original code computes it."""

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_crossearth import CrossEarthConfig
from .image_processing_crossearth import semantic_scores

Targets = tuple[Tensor, Tensor]  # classes present in an image (M,), their masks (M, H, W)
Matching = tuple[Tensor, Tensor]  # matched queries (M,), the targets they are matched to (M,)

SCORE_FLOOR = 1e-3  # keeps the logarithm of a class that no query claims finite


class CrossEarthLoss(nn.Module):
    """Matches queries with the classes of each image and sums the losses of every decoder output.

    transformers' `Mask2FormerLoss` differs from the original in three ways that the numbers show: an image without
    labels counts as one mask in the mean, outputs are taken from first to last, and ignored pixels are background
    unless `config.ignore_unlabelled_pixels` leaves them out.
    """

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, class_logits: list[Tensor], mask_logits: list[Tensor], labels: Tensor, seeds: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weighted losses of every decoder output.

        Args:
            class_logits: per decoder output (B, Q, K+1), the last class is "no object".
            mask_logits: per decoder output (B, Q, h, w).
            labels: (B, H, W) int64 class ids, 255 ignored.
            seeds: (B,) int64: the random points of an image then depend on its own seed alone, not on the batch or the
                process that it is in. Without them the global generator draws in the original's order.

        Returns:
            `{"loss_class_0": ..., "loss_mask_0": ..., "loss_dice_0": ..., ...}`, numbered by decoder output; their
            sum is the training loss.

        Raises:
            ValueError: a label is neither a class nor 255.
        """
        self._check(labels)
        # Matching compares nearly equal costs: in half precision their order would be a matter of rounding.
        with torch.autocast(labels.device.type, enabled=False):
            return self._losses(class_logits, mask_logits, labels, RandomPoints(seeds, labels.device))

    def _losses(
        self, class_logits: list[Tensor], mask_logits: list[Tensor], labels: Tensor, points: "RandomPoints"
    ) -> dict[str, Tensor]:
        targets = [self._targets(label) for label in labels]
        if self.config.ignore_unlabelled_pixels:
            valid = (labels != self.config.ignore_value).float()
        else:
            valid = None
        count, share = self._mask_count(targets, labels.device), self._class_share(targets, class_logits[0])
        losses: dict[str, Tensor] = {}
        for index, (classes, masks) in enumerate(zip(class_logits, mask_logits, strict=True)):
            output = self._output_losses(classes.float(), masks.float(), targets, valid, count, points)
            output["loss_class"] = output["loss_class"] * share
            if self.config.semantic_weight:
                output["loss_semantic"] = self.config.semantic_weight * self._semantic_loss(classes, masks, labels)
            losses |= {f"{name}_{index}": value for name, value in output.items()}
        return losses

    def _semantic_loss(self, classes: Tensor, masks: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the share that the true class has in a pixel's scores, at the resolution of the masks.

        Ours: it asks for what the map is made from, query by query or not, and tells an untrained head from the first
        step on what matching leaves it to find out.
        """
        scores = semantic_scores(classes, masks, (masks.shape[-2], masks.shape[-1]))  # (B, K, h, w)
        shares = (scores + SCORE_FLOOR) / (scores + SCORE_FLOOR).sum(dim=1, keepdim=True)
        cells = F.interpolate(labels[:, None].float(), size=scores.shape[-2:], mode="nearest-exact")[:, 0].long()
        # A sum over labeled cells, so that a batch without any gives 0 rather than a division by nothing.
        loss = F.nll_loss(shares.log(), cells, ignore_index=self.config.ignore_value, reduction="sum")
        return loss / process_mean((cells != self.config.ignore_value).sum().float()).clamp(min=1)

    def _check(self, labels: Tensor) -> None:
        known = ((labels >= 0) & (labels < self.config.num_labels)) | (labels == self.config.ignore_value)
        if not bool(known.all()):
            raise ValueError(
                f"labels hold the ids {labels[~known].unique().tolist()[:8]}; the model knows 0 to "
                f"{self.config.num_labels - 1} and {self.config.ignore_value} (ignored): remap them"
            )

    def _targets(self, label: Tensor) -> Targets:
        classes = label.unique()
        classes = classes[classes != self.config.ignore_value]
        return classes, (label == classes[:, None, None]).float()  # (M,), (M, H, W)

    def _mask_count(self, targets: list[Targets], device: torch.device) -> Tensor:
        """Number of masks that the mask losses are averaged over: an image counts at least one, processes average."""
        count = sum(max(len(classes), 1) for classes, _ in targets)
        return process_mean(torch.tensor(float(count), device=device))

    def _class_share(self, targets: list[Targets], logits: Tensor) -> Tensor:
        """Weight of this process's queries over the processes' mean: 1 for one process.

        The original averages each process by its own weight, so that its loss depends on who gets which image.
        """
        batch, queries = logits.shape[:2]
        matched = sum(min(len(classes), queries) for classes, _ in targets)
        weight = matched + self.config.no_object_weight * (batch * queries - matched)
        weights = torch.tensor(float(weight), device=logits.device)
        return weights / process_mean(weights)

    def _output_losses(
        self,
        classes: Tensor,
        masks: Tensor,
        targets: list[Targets],
        valid: Tensor | None,
        count: Tensor,
        points: "RandomPoints",
    ) -> dict[str, Tensor]:
        matching = []
        for i, target in enumerate(targets):
            # Drawn even without targets: replaying recorded draws needs the order of the original.
            shared = points.of_image(i, self.config.train_num_points)  # (1, P, 2)
            matching.append(self.match(classes[i], masks[i], *target, shared, None if valid is None else valid[i]))
        loss_mask, loss_dice = self._mask_losses(masks, targets, matching, valid, count, points)
        return {
            "loss_class": self.config.class_weight * self._class_loss(classes, targets, matching),
            "loss_mask": self.config.mask_weight * loss_mask,
            "loss_dice": self.config.dice_weight * loss_dice,
        }

    @torch.no_grad()
    def match(
        self,
        classes: Tensor,
        masks: Tensor,
        target_classes: Tensor,
        target_masks: Tensor,
        points: Tensor,
        valid: Tensor | None = None,
    ) -> Matching:
        """Hungarian matching of one image's queries with its classes at shared random points.

        Args:
            classes: (Q, K+1) logits.
            masks: (Q, h, w) logits.
            target_classes: (M,) ids.
            target_masks: (M, H, W) in {0, 1}.
            points: (1, P, 2) in [0, 1].
            valid: (H, W), 0 where a pixel is to be left out.

        Returns:
            Indices of queries and of targets, (M,) each.
        """
        if len(target_classes) == 0:
            empty = target_classes.new_zeros(0)
            return empty, empty
        predicted = sample_points(masks[None], points)[0]  # (Q, P)
        target = sample_points(target_masks[None], points)[0]  # (M, P)
        if valid is None:
            weight = torch.ones_like(points[..., 0])
        else:
            weight = sample_points(valid[None, None], points)[0]
        cost_class = -classes.softmax(-1)[:, target_classes]  # (Q, M)
        cost = (
            self.config.class_weight * cost_class
            + self.config.mask_weight * _pairwise_bce(predicted, target, weight)
            + self.config.dice_weight * _pairwise_dice(predicted, target, weight)
        )
        # A NaN is to surface in the loss, where training stops, not as a crash of the assignment.
        queries, matched = linear_sum_assignment(torch.nan_to_num(cost).cpu().numpy())
        return torch.as_tensor(queries, device=masks.device), torch.as_tensor(matched, device=masks.device)

    def _class_loss(self, classes: Tensor, targets: list[Targets], matching: list[Matching]) -> Tensor:
        wanted = torch.full(classes.shape[:2], self.config.num_labels, device=classes.device)  # (B, Q)
        for row, (present, _), (queries, matched) in zip(wanted, targets, matching, strict=True):
            row[queries] = present[matched]
        weight = torch.ones(self.config.num_labels + 1, device=classes.device)
        weight[-1] = self.config.no_object_weight
        return F.cross_entropy(classes.transpose(1, 2), wanted, weight)

    def _mask_losses(
        self,
        masks: Tensor,
        targets: list[Targets],
        matching: list[Matching],
        valid: Tensor | None,
        count: Tensor,
        random_points: "RandomPoints",
    ) -> tuple[Tensor, Tensor]:
        predicted = torch.cat([masks[i][queries] for i, (queries, _) in enumerate(matching)])  # (N, h, w)
        if len(predicted) == 0:
            return masks.sum() * 0.0, masks.sum() * 0.0  # keeps every parameter in the graph of each process
        target = torch.cat([targets[i][1][matched] for i, (_, matched) in enumerate(matching)])  # (N, H, W)
        masks_of = [len(queries) for queries, _ in matching]
        points = self._uncertain_points(predicted[:, None], masks_of, random_points)  # (N, P, 2)
        logits = sample_points(predicted[:, None], points).squeeze(1)  # (N, P)
        wanted = sample_points(target[:, None], points).squeeze(1)  # (N, P)
        weight = torch.ones_like(wanted)
        if valid is not None:
            image = torch.cat([torch.full_like(queries, i) for i, (queries, _) in enumerate(matching)])  # (N,)
            weight = sample_points(valid[image, None], points).squeeze(1)
        bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight
        bce = bce.sum(1) / weight.sum(1).clamp(min=1)
        probability = logits.sigmoid() * weight
        wanted = wanted * weight
        dice = 1 - (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)
        return bce.sum() / count, dice.sum() / count

    @torch.no_grad()
    def _uncertain_points(self, logits: Tensor, masks_of: list[int], points: "RandomPoints") -> Tensor:
        """(N, P, 2) points in [0, 1]²: mostly where (N, 1, h, w) `logits` are nearest to 0, the rest random."""
        count = self.config.train_num_points
        uncertain = int(self.config.importance_sample_ratio * count)
        candidates = points.of_masks(masks_of, int(count * self.config.oversample_ratio))  # (N, 3P, 2)
        distance = sample_points(logits, candidates).squeeze(1).abs()  # (N, 3P)
        nearest = distance.topk(uncertain, dim=1, largest=False).indices  # (N, 0.75P)
        chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, points.of_masks(masks_of, count - uncertain)], dim=1)


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


def process_mean(value: Tensor) -> Tensor:
    """Mean of `value` over the processes of a distributed run; itself where there is but one."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (B, C, P) of `maps` (B, C, H, W) at `points` (B, P, 2) in [0, 1] as (x, y)."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False).squeeze(3)


def _pairwise_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean binary cross-entropy (Q, M) of every query (Q, P) with every target (M, P), points weighted by (1, P)."""
    positive = F.softplus(-logits) * weight
    negative = F.softplus(logits) * weight
    return (positive @ target.T + negative @ (1 - target).T) / weight.sum().clamp(min=1)


def _pairwise_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss (Q, M) of every query (Q, P) with every target (M, P), points weighted by (1, P)."""
    probability = logits.sigmoid() * weight
    overlap = 2 * probability @ target.T
    return 1 - (overlap + 1) / (probability.sum(1)[:, None] + (target * weight).sum(1)[None] + 1)


__all__ = ["CrossEarthLoss"]
