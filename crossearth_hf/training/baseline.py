"""The usual alternative, for comparison: an ImageNet encoder with a small decoder.

This convolutional peer has the interface of `CrossEarthForSemanticSegmentation`, so both share training, windows and
evaluation.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.configuration_crossearth import CrossEarthConfig
from ..model.loss_crossearth import UNLABELED_INDEX, process_mean
from ..model.modeling_efficientnet_lite import EfficientNetLite
from ..model.modeling_head import padded, weighted_classes
from ..model.modeling_outputs import CrossEarthSegmentationOutput
from ..model.modeling_pretrained import CrossEarthPreTrainedModel
from ..model.semantic_scores import semantic_scores

PROBABILITY_FLOOR = 1e-6


class FeaturePyramidSegmenter(CrossEarthPreTrainedModel):
    """EfficientNet-Lite0 under a feature pyramid (Lin et al., CVPR 2017) and a pixel-wise classifier.

    It reads these fields of the configuration: `feature_size`, `num_channels`, `num_labels`, `ignore_value`, and for
    evaluation `image_size` and `window_stride`.
    """

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        width = config.feature_size
        self.backbone = EfficientNetLite(config.num_channels)
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, width, kernel_size=1) for channels in self.backbone.widths
        )
        self.smooth = nn.ModuleList(_block(width) for _ in self.backbone.widths)
        self.classifier = nn.Conv2d(width, config.num_labels, kernel_size=1)
        self.post_init()

    @property
    def input_convolutions(self) -> list[nn.Conv2d]:
        """The layers that read the pixels."""
        return [self.backbone.first]

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        seeds: Tensor | None = None,
        unlabeled_classes: Tensor | None = None,
    ) -> CrossEarthSegmentationOutput:
        """Segments a batch; the loss is the mean cross-entropy of the labeled pixels.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16.
            labels: (B, H, W) int64 class ids, `config.ignore_value` ignored.
            seeds: Unused; other losses draw random points with them.

        Returns:
            One query for each class: its mask is the class's probability, and its class is certain.
        """
        num_labels, factors = self.config.num_labels, self.config.class_factors
        height, width = pixel_values.shape[-2:]
        pyramid = self._pyramid(padded(pixel_values, self.config.least_side))
        size = pyramid[-1].shape[-2:]
        # (B, C, H/4, W/4)
        merged = torch.stack([_resize(level, size) for level in pyramid]).sum(dim=0)
        logits = self.classifier(merged).float()[
            ..., : height // 4, : width // 4
        ]  # (B, K, H/4, W/4)
        classes = torch.eye(num_labels, num_labels + 1, device=logits.device) * 50  # certain
        classes = classes.expand(len(logits), -1, -1)
        if labels is None and factors is not None:
            classes = weighted_classes(classes, factors)
        masks = logits.softmax(dim=1).logit(PROBABILITY_FLOOR)
        loss = loss_dict = None
        if labels is not None:
            loss = self._loss(logits, labels, unlabeled_classes)
            loss_dict = {"loss_pixel_0": loss}
        return CrossEarthSegmentationOutput(
            loss=loss,
            logits=semantic_scores(classes, masks, masks.shape[-2:]),
            class_queries_logits=classes,
            masks_queries_logits=masks,
            loss_dict=loss_dict,
        )

    def _pyramid(self, pixel_values: Tensor) -> list[Tensor]:
        """The feature pyramid, coarsest level first: each level adds the resized coarser one."""
        maps = [
            lateral(level)
            for lateral, level in zip(self.laterals, self.backbone(pixel_values), strict=True)
        ]
        summed = maps[-1]
        pyramid = [self.smooth[-1](summed)]
        for finer, smooth in zip(maps[-2::-1], list(self.smooth)[-2::-1], strict=True):
            summed = finer + _resize(summed, finer.shape[-2:])
            pyramid.append(smooth(summed))
        return pyramid

    def _loss(self, logits: Tensor, labels: Tensor, unlabeled: Tensor | None) -> Tensor:
        """Cross-entropy over labeled pixels; the probabilities of several possible classes are summed."""
        ignored = self.config.ignore_value
        logits = _resize(logits, labels.shape[-2:])
        labeled = (labels != ignored).sum().float()
        known = labels
        if unlabeled is not None:
            known = labels.masked_fill(labels == UNLABELED_INDEX, ignored)
        # A sum over labeled pixels gives 0 for a batch without any; a mean would divide by zero.
        loss = F.cross_entropy(logits, known, ignore_index=ignored, reduction="sum")
        if unlabeled is not None:
            possible = logits.log_softmax(dim=1).masked_fill(
                ~unlabeled[:, :, None, None], -torch.inf
            )
            loss = loss - possible.logsumexp(dim=1)[labels == UNLABELED_INDEX].sum()
        return loss / process_mean(labeled).clamp(min=1)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel_size=3, padding=1), nn.GroupNorm(8, width), nn.ReLU()
    )


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
