"""A warm start without labels for a hybrid ViT: it predicts the features of the whole image from a masked one.

Our choice for small models, because they have no pretrained ViT: the pretrained convolutional stem teaches the blocks
after it, as in masked feature prediction (Wei et al., CVPR 2022; EVA, Fang et al., CVPR 2023).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..model.loss_crossearth import process_mean
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.modeling_multitask import visible_blocks
from ..model.modeling_outputs import CrossEarthSegmentationOutput

MASK_RATIO = 0.5
BLOCK = 32  # pixels


class MaskedFeaturePrediction(nn.Module):
    """Backbone and adapters of a model under a linear layer that predicts the stem's features of the unmasked image.

    The linear layer is discarded afterwards; stem, laterals and the model's own head do not change.

    Raises:
        InputError: The model has no stem.
    """

    def __init__(self, segmentation: CrossEarthForSemanticSegmentation) -> None:
        super().__init__()
        if not segmentation.config.convolutional_stem:
            raise InputError(
                "objective 'features' needs a model with a convolutional stem, whose features it predicts; this one "
                "has none; choose objective 'reconstruct', or start from scripts/start_from_imagenet.py"
            )
        self.model = segmentation.model
        self.model.backbone.stem.requires_grad_(False)
        self.model.laterals.requires_grad_(False)  # unused here
        self.teacher = copy.deepcopy(self.model.backbone.stem)
        width = self.model.config.backbone_config.hidden_size
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, sum(self.teacher.widths[-2:]))
        )

    def forward(
        self, pixel_values: Tensor, seeds: Tensor | None = None
    ) -> CrossEarthSegmentationOutput:
        """One minus the cosine between predicted features and the clean image's features, averaged over all patches.

        Features are standardized over the global batch.

        Args:
            pixel_values: (B, 3, H, W) normalized; H and W multiples of 16. Hidden blocks become the mean color.
            seeds: (B,) int64 >= 0: with seeds an image's mask depends only on its own seed.
        """
        batch, _, height, width = pixel_values.shape
        with torch.no_grad():
            # (B, C, h, w)
            target = self.model.backbone.patch_features(self.teacher(pixel_values)).float()
            target = target - process_mean(target.mean(dim=(0, 2, 3), keepdim=True))
            target = target / process_mean(target.square().mean(dim=(0, 2, 3), keepdim=True)).sqrt()
        numbers = None
        if seeds is not None:
            numbers = seeds.tolist()
        visible = visible_blocks((batch, height, width), MASK_RATIO, BLOCK, numbers).to(
            pixel_values.device
        )
        features = self.model(pixel_values * visible[:, None], return_dict=True)
        tokens = features.last_hidden_state[:, self.model.backbone.num_prefix_tokens :]  # (B, N, D)
        predicted = self.head(tokens).float()  # (B, N, C)
        loss = 1 - F.cosine_similarity(predicted, target.flatten(2).transpose(1, 2), dim=-1).mean()
        if features.query_position_embeddings is not None:
            # Distributed training needs a gradient, even a zero, for the layers that make the queries.
            loss = loss + 0 * features.query_position_embeddings.sum()
        return CrossEarthSegmentationOutput(loss=loss, loss_dict={"loss_features_0": loss})
