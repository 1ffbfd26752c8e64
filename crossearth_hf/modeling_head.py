"""CrossEarth's head: the Mask2Former decoders of transformers (Cheng et al., CVPR 2022), and where ours differ."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoder,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerSinePositionEmbedding,
    multi_scale_deformable_attention,
)

from .configuration_crossearth import CrossEarthConfig


class CrossEarthSinePositions(Mask2FormerSinePositionEmbedding):
    """Sine positions computed in float32: bfloat16 cannot count to the sides of large maps."""

    def forward(
        self, shape: torch.Size, device: torch.device | str, dtype: torch.dtype, mask: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) positions of a map of that `shape`."""
        return super().forward(shape, device, torch.float32, mask).to(dtype)


class CrossEarthDeformableAttention(Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention):
    """Deformable attention (Zhu et al., ICLR 2021) that samples in float32, whatever the weights' precision.

    Half-precision coordinates miss their pixels, and PyTorch's CPU kernel for strided half tensors reads wrong ones.
    """

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        **unused: Any,
    ) -> tuple[Tensor, Tensor]:
        """Attends from every position of all levels (B, N, C) to points near its own; also returns the weights."""
        query = hidden_states + position_embeddings  # (B, N, C)
        shape = (*query.shape[:2], self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).float().view(*shape, 2)
        weights = self.attention_weights(query).float().view(*shape[:3], -1).softmax(dim=-1).view(shape)
        sizes = offsets.new_tensor([(width, height) for height, width in spatial_shapes_list])  # (levels, 2)
        locations = reference_points[:, :, None, :, None] + offsets / sizes[:, None]
        value = self.value_proj(hidden_states).float().unflatten(2, (self.n_heads, -1))  # (B, N, heads, C / heads)
        sampled = multi_scale_deformable_attention(value, spatial_shapes_list, locations, weights)
        return self.output_proj(sampled.to(query.dtype)), weights


class CrossEarthPixelDecoder(Mask2FormerPixelDecoder):
    """Mask2Former's pixel decoder with a free number of GroupNorm groups, sampling in float32."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config, [config.backbone_config.hidden_size] * 4)
        self.position_embedding = CrossEarthSinePositions(config.feature_size // 2, normalize=True)
        for layer in self.encoder.layers:
            layer.self_attn = CrossEarthDeformableAttention(
                config.feature_size, config.num_attention_heads, n_levels=3, n_points=4
            )
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = config.group_norm_groups

    def get_valid_ratio(self, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Share of each level that is no padding; in float32, since reference points take their type from it."""
        return super().get_valid_ratio(mask, torch.float32)


class CrossEarthTransformerModule(nn.Module):
    """Mask2Former's transformer decoder, its queries linked to the Rein tokens or learned."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        self.position_embedder = CrossEarthSinePositions(config.hidden_dim // 2, normalize=True)
        self.level_embed = nn.Embedding(3, config.hidden_dim)
        self.decoder = Mask2FormerMaskedAttentionDecoder(config)
        if config.link_queries:
            self.query_features = nn.Linear(config.hidden_dim, config.hidden_dim)
        else:
            self.queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
            self.queries_features = nn.Embedding(config.num_queries, config.hidden_dim)

    def forward(
        self, memories: tuple[Tensor, ...], mask_features: Tensor, query_positions: Tensor | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Decodes the queries.

        Args:
            memories: three maps (B, C, h, w) of the pixel decoder, strides 32, 16, 8.
            mask_features: (B, C, H/4, W/4).
            query_positions: (Q, C) queries from the adapters, or `None` for learned ones.

        Returns:
            Normed queries (Q, B, C) and mask logits (B, Q, H/4, W/4) before the first layer and after each.
        """
        if query_positions is None:
            query_positions, content = self.queries_embedder.weight, self.queries_features.weight
        else:
            content = self.query_features(query_positions)
        batch = mask_features.shape[0]
        positions = [self.position_embedder(m.shape, m.device, m.dtype).flatten(2).permute(2, 0, 1) for m in memories]
        levels = self.level_embed.weight[:, None, None]  # (3, 1, 1, C)
        keys = [m.flatten(2).permute(2, 0, 1) + level for m, level in zip(memories, levels, strict=True)]  # (hw, B, C)
        decoded = self.decoder(
            inputs_embeds=content[:, None].expand(-1, batch, -1),  # (Q, B, C)
            multi_stage_positional_embeddings=positions,
            pixel_embeddings=mask_features,
            encoder_hidden_states=keys,
            query_position_embeddings=query_positions[:, None].expand(-1, batch, -1),
            feature_size_list=[m.shape[-2:] for m in memories],
            return_dict=True,
        )
        return decoded.intermediate_hidden_states, decoded.masks_queries_logits
