"""Mask2Former's loss (Cheng et al., CVPR 2022, section 3.2) as CrossEarth's original code computes it."""

from collections.abc import Sequence
from typing import TypedDict

import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_crossearth import CrossEarthConfig
from .loss_points import RandomPoints, pairwise, pairwise_bce, pairwise_dice, sample_points
from .semantic_scores import semantic_scores

Targets = tuple[Tensor, Tensor]  # classes present in an image (M,), their masks (M, H, W)
Matching = tuple[Tensor, Tensor]  # matched queries (M,), the targets they are matched to (M,)

UNLABELED_INDEX = 254
"""Label of a pixel of partly labeled data that has none of the labeled classes of its image."""

TORCH_IGNORED = -100
"""The label that losses of PyTorch and transformers ignore by default."""

SCORE_FLOOR = 1e-3  # keeps the logarithm of a class that no query claims finite


class CrossEarthTargets(TypedDict, total=False):
    """Labels beside `labels`. No named parameters: transformers' `Trainer` would wait for all whose names say label."""

    mask_labels: list[Tensor]
    class_labels: list[Tensor]
    unlabeled_classes: Tensor | None


class CrossEarthLoss(nn.Module):
    """Matches queries with the classes of each image and sums the losses of every decoder output.

    transformers' `Mask2FormerLoss` differs from the original in three ways that the numbers show: an image without
    labels counts as one mask in the mean, outputs are taken from first to last, and ignored pixels are background
    unless `config.ignore_unlabelled_pixels` leaves them out.

    Partly labeled images have a marginal loss (ours; the idea is that of Shi et al., Marginal loss and exclusion loss
    for partially supervised multi-organ segmentation, 2021): where several classes can be true, the probability of any
    of them is what counts. docs/train.md derives it. With complete labels it is the loss above, to the last bit.
    """

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        class_logits: list[Tensor],
        mask_logits: list[Tensor],
        labels: Tensor,
        seeds: Tensor | None = None,
        unlabeled_classes: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of every decoder output.

        Args:
            class_logits: per decoder output (B, Q, K+1), the last class is "no object".
            mask_logits: per decoder output (B, Q, h, w).
            labels: (B, H, W) int64 class ids, 255 ignored; 254 with `unlabeled_classes`: one of these classes.
            seeds: (B,) int64: the random points of an image then depend on its own seed alone, not on the batch or the
                process that it is in. Without them the global generator draws in the original's order.
            unlabeled_classes: (B, K) bool: the classes that pixels without a label may be. No row of complete labels
                holds any.

        Returns:
            `{"loss_class_0": ..., "loss_mask_0": ..., "loss_dice_0": ..., ...}`, numbered by decoder output; their
            sum is the training loss.

        Raises:
            ValueError: A label is neither a class nor 255, nor 254 in an image with unlabeled classes.
        """
        labels = labels.to(mask_logits[0].device)  # elsewhere where a model lies on several devices
        if unlabeled_classes is not None and not unlabeled_classes.any():
            unlabeled_classes = None
        if unlabeled_classes is not None:
            unlabeled_classes = unlabeled_classes.to(labels.device)
        self._check(labels, unlabeled_classes)
        # Matching compares nearly equal costs: in half precision their order would be a matter of rounding.
        with torch.autocast(labels.device.type, enabled=False):
            points = RandomPoints(seeds, labels.device)
            return self._losses(class_logits, mask_logits, labels, points, unlabeled_classes)

    def _losses(
        self,
        class_logits: list[Tensor],
        mask_logits: list[Tensor],
        labels: Tensor,
        points: RandomPoints,
        unlabeled: Tensor | None,
    ) -> dict[str, Tensor]:
        targets = [self._targets(label, partly=unlabeled is not None) for label in labels]
        rows: Sequence[Tensor | None] = [None] * len(targets)
        if unlabeled is not None:
            rows = unlabeled.unbind()
        valid = [
            self._valid(label, classes, row)
            for label, (classes, _), row in zip(labels, targets, rows, strict=True)
        ]
        count = self._mask_count(targets, labels.device)
        share = self._class_share(targets, class_logits[0])
        losses: dict[str, Tensor] = {}
        for index, (classes, masks) in enumerate(zip(class_logits, mask_logits, strict=True)):
            output = self._output_losses(
                classes.float(), masks.float(), targets, valid, count, points, unlabeled
            )
            output["loss_class"] = output["loss_class"] * share
            if self.config.semantic_weight:
                output["loss_semantic"] = self.config.semantic_weight * self._semantic_loss(
                    classes, masks, labels, unlabeled
                )
            losses |= {f"{name}_{index}": value for name, value in output.items()}
        return losses

    def _semantic_loss(
        self, classes: Tensor, masks: Tensor, labels: Tensor, unlabeled: Tensor | None
    ) -> Tensor:
        """Cross-entropy of the share that the true class has in a pixel's scores, at the resolution of the masks.

        Ours: it asks for what the map is made from, query by query or not, and tells an untrained head from the first
        step on what matching leaves it to find out. Of a pixel that may be several classes the sum of their shares
        counts.
        """
        scores = semantic_scores(classes, masks, (masks.shape[-2], masks.shape[-1]))  # (B, K, h, w)
        shares = (scores + SCORE_FLOOR) / (scores + SCORE_FLOOR).sum(dim=1, keepdim=True)
        cells = F.interpolate(
            labels[:, None].float(), size=scores.shape[-2:], mode="nearest-exact"
        )[:, 0].long()
        known = cells
        if unlabeled is not None:
            known = cells.masked_fill(cells == UNLABELED_INDEX, self.config.ignore_value)
        # A sum over labeled cells, so that a batch without any gives 0 rather than a division by nothing.
        loss = F.nll_loss(
            shares.log(), known, ignore_index=self.config.ignore_value, reduction="sum"
        )
        if unlabeled is not None:
            possible = (shares * unlabeled[:, :, None, None]).sum(dim=1)  # (B, h, w)
            loss = loss - possible[cells == UNLABELED_INDEX].log().sum()
        return loss / process_mean((cells != self.config.ignore_value).sum().float()).clamp(min=1)

    def _check(self, labels: Tensor, unlabeled: Tensor | None) -> None:
        known = ((labels >= 0) & (labels < self.config.num_labels)) | (
            labels == self.config.ignore_value
        )
        if unlabeled is not None:
            partly = unlabeled.any(dim=1)  # (B,)
            known = known | ((labels == UNLABELED_INDEX) & partly[:, None, None])
        if not bool(known.all()):
            raise ValueError(
                f"labels hold the ids {labels[~known].unique().tolist()[:8]}; the model knows 0 to "
                f"{self.config.num_labels - 1} and {self.config.ignore_value} (ignored): remap them"
            )

    def _targets(self, label: Tensor, partly: bool) -> Targets:
        classes = label.unique()
        classes = classes[classes != self.config.ignore_value]
        if partly:
            classes = classes[classes != UNLABELED_INDEX]
        return classes, (label == classes[:, None, None]).float()  # (M,), (M, H, W)

    def _valid(self, label: Tensor, classes: Tensor, unlabeled: Tensor | None) -> Tensor | None:
        """(1, H, W) for all masks of an image or (M, H, W) for each: 0 where a pixel is left out; `None` for nowhere.

        A mask leaves out the pixels without a label that may have its class.
        """
        valid = None
        if self.config.ignore_unlabelled_pixels:
            valid = (label != self.config.ignore_value).float()[None]
        if unlabeled is None or not unlabeled[classes].any():
            return valid
        is_open = unlabeled[classes, None, None] & (label == UNLABELED_INDEX)  # (M, H, W)
        if not is_open.any():
            return valid
        known = (~is_open).float()
        if valid is None:
            return known
        return valid * known

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
        valid: list[Tensor | None],
        count: Tensor,
        points: RandomPoints,
        unlabeled: Tensor | None,
    ) -> dict[str, Tensor]:
        matching = []
        for i, target in enumerate(targets):
            # Drawn even without targets: replaying recorded draws needs the order of the original.
            shared = points.of_image(i, self.config.train_num_points)  # (1, P, 2)
            matching.append(self.match(classes[i], masks[i], *target, shared, valid[i]))
        loss_mask, loss_dice = self._mask_losses(masks, targets, matching, valid, count, points)
        return {
            "loss_class": self.config.class_weight
            * self._class_loss(classes, targets, matching, unlabeled),
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
            valid: (1, H, W) for all masks or (M, H, W) for each, 0 where a pixel is left out.

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
            weight = sample_points(valid[None], points)[0]  # (1 or M, P)
        cost_class = -classes.softmax(-1)[:, target_classes]  # (Q, M)
        cost = (
            self.config.class_weight * cost_class
            + self.config.mask_weight * pairwise(pairwise_bce, predicted, target, weight)
            + self.config.dice_weight * pairwise(pairwise_dice, predicted, target, weight)
        )
        # NaN must appear in the loss, which stops training, instead of crashing the assignment.
        queries, matched = linear_sum_assignment(torch.nan_to_num(cost).cpu().numpy())
        return torch.as_tensor(queries, device=masks.device), torch.as_tensor(
            matched, device=masks.device
        )

    def _class_loss(
        self,
        classes: Tensor,
        targets: list[Targets],
        matching: list[Matching],
        unlabeled: Tensor | None,
    ) -> Tensor:
        """Cross-entropy of every query with its class; an unmatched one may be no object or an unlabeled class."""
        # (B, Q)
        wanted = torch.full(classes.shape[:2], self.config.num_labels, device=classes.device)
        for row, (present, _), (queries, matched) in zip(wanted, targets, matching, strict=True):
            row[queries] = present[matched]
        weight = torch.ones(self.config.num_labels + 1, device=classes.device)
        weight[-1] = self.config.no_object_weight
        if unlabeled is None:
            return F.cross_entropy(classes.transpose(1, 2), wanted, weight)
        possible = F.one_hot(wanted, self.config.num_labels + 1).bool()  # (B, Q, K+1)
        unmatched = wanted == self.config.num_labels
        possible[..., :-1] |= unmatched[..., None] & self._unseen(unlabeled, targets)[:, None]
        # (B, Q), its logarithm
        probability = classes.log_softmax(-1).masked_fill(~possible, -torch.inf).logsumexp(-1)
        return -(probability * weight[wanted]).sum() / weight[wanted].sum()

    @staticmethod
    def _unseen(unlabeled: Tensor, targets: list[Targets]) -> Tensor:
        """(B, K): the unlabeled classes of each image without those that a query is matched to already."""
        unseen = unlabeled.clone()
        for row, (present, _) in zip(unseen, targets, strict=True):
            row[present] = False
        return unseen

    def _mask_losses(
        self,
        masks: Tensor,
        targets: list[Targets],
        matching: list[Matching],
        valid: list[Tensor | None],
        count: Tensor,
        random_points: RandomPoints,
    ) -> tuple[Tensor, Tensor]:
        # Taken apart once: the gradient of each masks[i] would be as large as that of all masks.
        each = masks.unbind()
        # (N, h, w)
        predicted = torch.cat(
            [of_image[queries] for of_image, (queries, _) in zip(each, matching, strict=True)]
        )
        if len(predicted) == 0:
            return (
                masks.sum() * 0.0,
                masks.sum() * 0.0,
            )  # keeps every parameter in the graph of each process
        # (N, H, W)
        target = torch.cat([targets[i][1][matched] for i, (_, matched) in enumerate(matching)])
        masks_of = [len(queries) for queries, _ in matching]
        points = self._uncertain_points(predicted[:, None], masks_of, random_points)  # (N, P, 2)
        logits = sample_points(predicted[:, None], points).squeeze(1)  # (N, P)
        wanted = sample_points(target[:, None], points).squeeze(1)  # (N, P)
        weight = torch.ones_like(wanted)
        if any(of_image is not None for of_image in valid):
            weight = sample_points(self._valid_of_masks(valid, targets, matching)[:, None], points)
            weight = weight.squeeze(1)
        bce = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight
        bce = bce.sum(1) / weight.sum(1).clamp(min=1)
        probability = logits.sigmoid() * weight
        wanted = wanted * weight
        dice = 1 - (2 * (probability * wanted).sum(1) + 1) / (
            probability.sum(1) + wanted.sum(1) + 1
        )
        return bce.sum() / count, dice.sum() / count

    @staticmethod
    def _valid_of_masks(
        valid: list[Tensor | None], targets: list[Targets], matching: list[Matching]
    ) -> Tensor:
        """(N, H, W): 0 where a pixel is left out of a matched mask, in the order of the matching."""
        rows = []
        for of_image, (_, masks), (_, matched) in zip(valid, targets, matching, strict=True):
            if of_image is None:
                of_image = torch.ones_like(masks[:1])
            rows.append(of_image.expand(len(masks), -1, -1)[matched])
        return torch.cat(rows)

    @torch.no_grad()
    def _uncertain_points(
        self, logits: Tensor, masks_of: list[int], points: RandomPoints
    ) -> Tensor:
        """(N, P, 2) points in [0, 1]²: mostly where (N, 1, h, w) `logits` are nearest to 0, the rest random."""
        count = self.config.train_num_points
        uncertain = int(self.config.importance_sample_ratio * count)
        # (N, 3P, 2)
        candidates = points.of_masks(masks_of, int(count * self.config.oversample_ratio))
        distance = sample_points(logits, candidates).squeeze(1).abs()  # (N, 3P)
        nearest = distance.topk(uncertain, dim=1, largest=False).indices  # (N, 0.75P)
        chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
        return torch.cat([chosen, points.of_masks(masks_of, count - uncertain)], dim=1)


def label_maps(
    labels: Tensor | None,
    mask_labels: Sequence[Tensor] | None,
    class_labels: Sequence[Tensor] | None,
    ignored: int,
) -> Tensor | None:
    """Label maps (B, H, W) int64 from the labels that transformers' models take; `None` without labels.

    Args:
        labels: (B, H, W) or (B, 1, H, W) ids of any integer type; -100 is ignored too.
        mask_labels: For each image masks (M, H, W), in place of `labels`, as Mask2Former takes them. Where two of them
            overlap, the later one holds; where there is none, pixels are ignored.
        class_labels: For each image the class ids (M,) of its masks.
        ignored: Id of pixels without a label.

    Raises:
        ValueError: Labels are not whole numbers or have another shape, both kinds of labels are given, or only half
            of the second kind.
    """
    if (mask_labels is None) != (class_labels is None) or (
        labels is not None and mask_labels is not None
    ):
        raise ValueError(
            "labels are given twice or in part; give labels alone, or mask_labels and class_labels"
        )
    if mask_labels is not None and class_labels is not None:
        return torch.stack(
            [_painted(*pair, ignored) for pair in zip(mask_labels, class_labels, strict=True)]
        )
    if labels is None:
        return None
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels are {labels.dtype}; give class ids of an integer type")
    if labels.ndim == 4 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 3:
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)}; give (B, H, W) or (B, 1, H, W)"
        )
    labels = labels.long()
    return labels.masked_fill(labels == TORCH_IGNORED, ignored)


def _painted(masks: Tensor, classes: Tensor, ignored: int) -> Tensor:
    """(H, W) ids from masks (M, H, W) and their classes (M,)."""
    ids = torch.full(masks.shape[1:], ignored, device=masks.device)
    for mask, label in zip(masks, classes.tolist(), strict=True):
        ids[mask > 0] = label
    return ids


def process_mean(value: Tensor) -> Tensor:
    """Mean of `value` over the processes of a distributed run; `value` itself in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


__all__ = ["CrossEarthLoss", "label_maps"]
