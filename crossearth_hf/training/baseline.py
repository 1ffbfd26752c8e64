"""What a practitioner would do instead: an ImageNet encoder with a small decoder, in the same harness.

The peer answers like `CrossEarthForSemanticSegmentation`, so that training, windows and evaluation are shared.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import semantic_scores
from ..model.loss_crossearth import process_mean
from ..model.modeling_crossearth import CrossEarthPreTrainedModel, CrossEarthSegmentationOutput
from ..model.modeling_efficientnet_lite import EfficientNetLite
from ..model.modeling_head import padded

PROBABILITY_FLOOR = 1e-6


class FeaturePyramidSegmenter(CrossEarthPreTrainedModel):
    """EfficientNet-Lite0 under a feature pyramid (Lin et al., CVPR 2017) and a pixel-wise classifier.

    Of the configuration it reads `feature_size`, `num_channels`, `num_labels`, `ignore_value` and what evaluation needs
    (`image_size`, `window_stride`).
    """

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        width = config.feature_size
        self.backbone = EfficientNetLite(config.num_channels)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels in self.backbone.widths)
        self.smooth = nn.ModuleList(_block(width) for _ in self.backbone.widths)
        self.classifier = nn.Conv2d(width, config.num_labels, kernel_size=1)
        self.post_init()

    @property
    def input_convolution(self) -> nn.Conv2d:
        """What reads the pixels."""
        return self.backbone.first

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, seeds: Tensor | None = None
    ) -> CrossEarthSegmentationOutput:
        """Segments a batch; the loss is the mean cross-entropy of the labeled pixels.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16.
            labels: (B, H, W) int64 class ids, `config.ignore_value` ignored.
            seeds: Of the random points that other losses draw; this one draws none.

        Returns:
            One query per class: its mask is the class's probability, its class is certain.
        """
        height, width = pixel_values.shape[-2:]
        features = self.backbone(padded(pixel_values, self.config.least_side))
        maps = [lateral(m) for lateral, m in zip(self.laterals, features, strict=True)]
        summed = maps[-1]
        pyramid = [self.smooth[-1](summed)]
        for finer, smooth in zip(maps[-2::-1], list(self.smooth)[-2::-1], strict=True):
            summed = finer + _resize(summed, finer.shape[-2:])
            pyramid.append(smooth(summed))
        merged = torch.stack([_resize(m, maps[0].shape[-2:]) for m in pyramid]).sum(dim=0)  # (B, C, H/4, W/4)
        logits = self.classifier(merged).float()[..., : height // 4, : width // 4]  # (B, K, H/4, W/4)
        if labels is None:
            loss = None
        else:
            loss = self._loss(logits, labels)
        classes = torch.eye(self.config.num_labels, self.config.num_labels + 1, device=logits.device) * 50  # certain
        classes = classes.expand(len(logits), -1, -1)
        masks = logits.softmax(dim=1).logit(PROBABILITY_FLOOR)
        return CrossEarthSegmentationOutput(
            loss=loss,
            logits=semantic_scores(classes, masks, masks.shape[-2:]),
            class_queries_logits=classes,
            masks_queries_logits=masks,
            loss_dict=None if loss is None else {"loss_pixel_0": loss},
        )

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = _resize(logits, labels.shape[-2:])
        # A sum over labeled pixels, so that a batch without any gives 0 rather than a division by nothing.
        loss = F.cross_entropy(logits, labels, ignore_index=self.config.ignore_value, reduction="sum")
        return loss / process_mean((labels != self.config.ignore_value).sum().float()).clamp(min=1)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, kernel_size=3, padding=1), nn.GroupNorm(8, width), nn.ReLU())


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
