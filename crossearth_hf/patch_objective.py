"""A warm start for a ViT without pretraining: it learns to label its patches before the head is trained.

Our choice, for small models: Mask2Former's matching gives an untrained ViT little to learn from, and a step of this
objective costs a third (the card of crossearth-tiny has the figures).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .loss_crossearth import process_mean
from .modeling_crossearth import CrossEarthForSemanticSegmentation, CrossEarthSegmentationOutput

PATCH, CELL = 16, 4  # pixels; a cell is a pixel of the masks


class PatchClassifier(nn.Module):
    """Backbone and adapters of a model under a linear layer that labels the cells of every patch.

    The linear layer reads the tokens of the four pyramid blocks and is thrown away afterwards; the model's own head is
    no part of this module and stays as it is.
    """

    def __init__(self, segmentation: CrossEarthForSemanticSegmentation) -> None:
        super().__init__()
        self.model = segmentation.model
        if self.model.config.convolutional_stem:
            self.model.laterals.requires_grad_(False)  # the pyramid takes no part
        width = len(self.model.config.out_indices) * self.model.config.backbone_config.hidden_size
        cells = (PATCH // CELL) ** 2
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, cells * segmentation.config.num_labels))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> CrossEarthSegmentationOutput:
        """Cross-entropy of every cell's central pixel.

        Args:
            pixel_values: (B, 3, H, W) normalised; H and W multiples of 16.
            labels: (B, H, W) int64 class ids, `config.ignore_value` ignored.
        """
        config = self.model.config
        features = self.model(pixel_values, output_hidden_states=True, return_dict=True)
        prefix = self.model.backbone.num_prefix_tokens
        tokens = [features.hidden_states[index + 1][:, prefix:] for index in config.out_indices]  # (B, N, D) each
        grid = [side // PATCH for side in pixel_values.shape[-2:]]
        maps = self.head(torch.cat(tokens, dim=-1)).transpose(1, 2).unflatten(2, grid)
        logits = F.pixel_shuffle(maps, PATCH // CELL).float()  # (B, K, H/4, W/4)
        cells = labels[:, CELL // 2 :: CELL, CELL // 2 :: CELL]
        # A sum over labelled cells, so that crops without any give 0 rather than a division by nothing.
        loss = F.cross_entropy(logits, cells, ignore_index=config.ignore_value, reduction="sum")
        loss = loss / process_mean((cells != config.ignore_value).sum().float()).clamp(min=1)
        if features.query_position_embeddings is not None:
            # Distributed training wants a gradient, be it 0, for the layers that make the queries.
            loss = loss + 0 * features.query_position_embeddings.sum()
        return CrossEarthSegmentationOutput(loss=loss, loss_dict={"loss_patch_0": loss})
