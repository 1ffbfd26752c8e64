"""A warm start without labels for a hybrid ViT: it learns to see the whole image's features in a masked one.

Our choice, for small models, for which no pretrained ViT exists: the pretrained convolutional stem is the teacher
of the blocks that follow it, as in masked feature prediction (Wei et al., CVPR 2022; EVA, Fang et al., CVPR 2023).
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..model.loss_crossearth import process_mean
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation, CrossEarthSegmentationOutput
from ..model.modeling_multitask import visible_blocks

MASK_RATIO = 0.5
BLOCK = 32  # pixels


class MaskedFeaturePrediction(nn.Module):
    """Backbone and adapters of a model under a linear layer that predicts the stem's features of the unmasked image.

    The linear layer is thrown away afterwards; stem, laterals and the model's own head stay as they are.

    Raises:
        InputError: a model without a stem.
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
        self.model.laterals.requires_grad_(False)  # they take no part
        self.teacher = copy.deepcopy(self.model.backbone.stem)
        width = self.model.config.backbone_config.hidden_size
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.teacher.widths[-2:])))

    def forward(self, pixel_values: Tensor, seeds: Tensor | None = None) -> CrossEarthSegmentationOutput:
        """One minus the cosine between predicted features and those of the clean image, mean over all patches.

        Features are standardized over the batch, that of all processes.

        Args:
            pixel_values: (B, 3, H, W) normalized; H and W multiples of 16. Hidden blocks become the mean color.
            seeds: (B,) int64 >= 0: an image's mask then depends on its own seed alone.
        """
        batch, _, height, width = pixel_values.shape
        with torch.no_grad():
            target = self.model.backbone.patch_features(self.teacher(pixel_values)).float()  # (B, C, h, w)
            target = target - process_mean(target.mean(dim=(0, 2, 3), keepdim=True))
            target = target / process_mean(target.square().mean(dim=(0, 2, 3), keepdim=True)).sqrt()
        if seeds is None:
            numbers = None
        else:
            numbers = seeds.tolist()
        visible = visible_blocks((batch, height, width), MASK_RATIO, BLOCK, numbers).to(pixel_values.device)
        features = self.model(pixel_values * visible[:, None], return_dict=True)
        tokens = features.last_hidden_state[:, self.model.backbone.num_prefix_tokens :]  # (B, N, D)
        predicted = self.head(tokens).float()  # (B, N, C)
        loss = 1 - F.cosine_similarity(predicted, target.flatten(2).transpose(1, 2), dim=-1).mean()
        if features.query_position_embeddings is not None:
            # Distributed training wants a gradient, be it 0, for the layers that make the queries.
            loss = loss + 0 * features.query_position_embeddings.sum()
        return CrossEarthSegmentationOutput(loss=loss, loss_dict={"loss_features_0": loss})
