"""CrossEarth's head: the Mask2Former decoders of transformers (Cheng et al., CVPR 2022) with our changes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoder,
    Mask2FormerMaskPredictor,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderLayer,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPixelDecoderEncoderOnly,
    Mask2FormerPixelDecoderOutput,
    Mask2FormerSinePositionEmbedding,
    multi_scale_deformable_attention,
)

from .configuration_crossearth import CrossEarthConfig
from .cpu_kernels import CpuGroupNorm, sample_levels
from .free_sizes import is_exporting, width_and_height

PYRAMID_SCALES = (4.0, 2.0, 1.0, 0.5)  # of the stride-16 patch grid: strides 4, 8, 16, 32


def resample(maps: Tensor, scale: float) -> Tensor:
    """(B, C, h, w) maps bilinearly `scale` times as high and wide."""
    if scale == 1:
        return maps
    return F.interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)


def padded(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) normalized images with 0, the mean color, right and below, so that no side is below `side`."""
    height, width = images.shape[-2:]
    right, below = max(0, side - width), max(0, side - height)
    if right or below:
        return F.pad(images, (0, right, 0, below))
    return images


def weighted_classes(class_logits: Tensor, factors: Sequence[float]) -> Tensor:
    """Class logits (B, Q, K+1) whose softmax multiplies the probability of each class by `factors` (K, at most 1).

    "No object" gets the rest of the probability, so the factors also multiply sums of query scores.
    """
    tiny = torch.finfo(torch.float32).tiny
    probabilities = class_logits.float().softmax(dim=-1)
    classes = probabilities[..., :-1] * probabilities.new_tensor(factors)
    nothing = (1 - classes.sum(dim=-1, keepdim=True)).clamp_min(tiny)
    return torch.cat([classes, nothing], dim=-1).clamp_min(tiny).log().to(class_logits.dtype)


def images_by_size(
    pixel_mask: Tensor | None, height: int, width: int
) -> dict[tuple[int, int], list[int]]:
    """Rows of a batch by the height and width of their images, multiples of 16; empty if all fill the batch."""
    if pixel_mask is None or bool(pixel_mask.all()):
        return {}
    groups: dict[tuple[int, int], list[int]] = {}
    sizes = zip(pixel_mask.any(2).sum(1).tolist(), pixel_mask.any(1).sum(1).tolist(), strict=True)
    for row, size in enumerate(sizes):
        rounded = [max(1, math.ceil(side / 16)) * 16 for side in size]
        groups.setdefault((min(rounded[0], height), min(rounded[1], width)), []).append(row)
    return groups


def decoded_apart(
    decode: Callable[[Tensor], tuple[Any, ...]],
    images: Tensor,
    groups: dict[tuple[int, int], list[int]],
) -> tuple[list[Tensor], list[Tensor]]:
    """Class logits and mask logits of a batch; images of each size are decoded separately.

    In the padding of an image the masks repeat their edges, so that resizing does not mix in other values.
    """
    order = [row for rows in groups.values() for row in rows]
    back = torch.tensor(order, device=images.device).argsort()
    parts = [
        decode(images[rows, :, :height, :width])[:2] for (height, width), rows in groups.items()
    ]
    # by output of the decoder
    classes, masks = (list(zip(*kind, strict=True)) for kind in zip(*parts, strict=True))
    size = images.shape[-2] // 4, images.shape[-1] // 4
    return (
        [torch.cat(same)[back] for same in classes],
        [torch.cat([_continued(mask, *size) for mask in same])[back] for same in masks],
    )


def _continued(masks: Tensor, height: int, width: int) -> Tensor:
    """(B, Q, height, width) of (B, Q, h, w) masks, with the values of their right and lower edges."""
    return F.pad(masks, (0, width - masks.shape[-1], 0, height - masks.shape[-2]), mode="replicate")


class CrossEarthSinePositions(Mask2FormerSinePositionEmbedding):
    """Sine positions computed in float32: bfloat16 cannot count to the sides of large maps."""

    def forward(
        self,
        shape: torch.Size,
        device: torch.device | str,
        dtype: torch.dtype,
        mask: Tensor | None = None,
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
        weights = (
            self.attention_weights(query).float().view(*shape[:3], -1).softmax(dim=-1).view(shape)
        )
        sizes = width_and_height(spatial_shapes_list, offsets)  # (levels, 2)
        locations = reference_points[:, :, None, :, None] + offsets / sizes[:, None]
        # (B, N, heads, C / heads)
        value = self.value_proj(hidden_states).float().unflatten(2, (self.n_heads, -1))
        sample = multi_scale_deformable_attention
        if value.device.type == "cpu" and not is_exporting():
            sample = sample_levels
        sampled = sample(value, spatial_shapes_list, locations, weights)
        return self.output_proj(sampled.to(query.dtype)), weights


class CrossEarthPixelDecoderLayer(GradientCheckpointingLayer, Mask2FormerPixelDecoderEncoderLayer):
    """A layer of the pixel decoder that can be computed again in the backward pass."""


class CrossEarthPixelDecoderEncoder(Mask2FormerPixelDecoderEncoderOnly):
    """The layers of the pixel decoder, for images that fill their maps."""

    @staticmethod
    def get_reference_points(
        spatial_shapes_list: list[tuple[int, int]], valid_ratios: Tensor, device: torch.device
    ) -> Tensor:
        """(B, N, levels, 2) centers, x and y in [0, 1], of the positions of all levels, once for each level."""
        dtype, centers = valid_ratios.dtype, []
        for height, width in spatial_shapes_list:
            y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
            x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
            # (h, w, 2)
            grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
            centers.append(grid.flatten(0, 1))
        return torch.cat(centers)[None, :, None] * valid_ratios[:, None]


class CrossEarthPixelDecoder(Mask2FormerPixelDecoder):
    """Mask2Former's pixel decoder with a free number of GroupNorm groups, sampling in float32."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config, [config.backbone_config.hidden_size] * 4)
        self.position_embedding = CrossEarthSinePositions(config.feature_size // 2, normalize=True)
        self.encoder.__class__ = (
            CrossEarthPixelDecoderEncoder  # a new one would draw other weights from a seed
        )
        for layer in self.encoder.layers:
            layer.__class__ = CrossEarthPixelDecoderLayer  # the same
            layer.self_attn = CrossEarthDeformableAttention(
                config.feature_size, config.num_attention_heads, n_levels=3, n_points=4
            )
        for module in self.modules():
            if isinstance(module, nn.GroupNorm):
                module.__class__ = CpuGroupNorm
                module.num_groups = config.group_norm_groups

    def forward(self, features: Sequence[Tensor]) -> Mask2FormerPixelDecoderOutput:
        """Mask features (B, C, H/4, W/4) and three maps (B, C, h, w) at strides 32, 16 and 8.

        Args:
            features: Four maps (B, D, h, w), finest first, each at its own stride or all still on the patch grid: a
                projection of D to C channels and bilinear resampling commute, and C is the smaller.
        """
        on_grid = features[0].shape[-2:] == features[2].shape[-2:]
        levels = [
            self._project(projection, features[level], level, on_grid)
            for projection, level in zip(self.input_projections, (3, 2, 1), strict=True)
        ]
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        positions = [
            self.position_embedding(level.shape, level.device, level.dtype) for level in levels
        ]
        shifted = [
            p.flatten(2) + shift[:, None]
            for p, shift in zip(positions, self.level_embed, strict=True)
        ]
        encoded = self.encoder(
            # (B, N, C)
            inputs_embeds=torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2),
            position_embeddings=torch.cat(shifted, dim=2).transpose(1, 2),
            spatial_shapes_list=sizes,
            # nothing is padding
            valid_ratios=levels[0].new_ones((levels[0].shape[0], 3, 2), dtype=torch.float32),
            return_dict=True,
        ).last_hidden_state
        memories = [
            part.transpose(1, 2).unflatten(2, size)
            for part, size in zip(
                encoded.split([h * w for h, w in sizes], dim=1), sizes, strict=True
            )
        ]
        finest = self._project(self.adapter_1, features[0], 0, on_grid)
        rest = F.interpolate(
            memories[-1], size=finest.shape[-2:], mode="bilinear", align_corners=False
        )
        mask_features = self.mask_projection(self.layer_1(finest + rest))
        return Mask2FormerPixelDecoderOutput(
            mask_features=mask_features, multi_scale_features=tuple(memories)
        )

    @staticmethod
    def _project(projection: nn.Sequential, maps: Tensor, level: int, on_grid: bool) -> Tensor:
        """Projects maps, resamples those on the patch grid, and normalizes."""
        convolution, norm = projection
        projected = convolution(maps)
        if on_grid:
            projected = resample(projected, PYRAMID_SCALES[level])
        return norm(projected)


class CrossEarthMaskPredictor(Mask2FormerMaskPredictor):
    """Mask embeddings and attention masks of the next layer; the caller computes the masks themselves.

    Resampling pixel embeddings once to each memory's size gives the same attention masks as resampling all queries'
    masks after every layer.
    """

    def forward(
        self,
        outputs: Tensor,
        pixel_embeddings: None,
        attention_mask_target_size: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, Q, C) of normed queries (Q, B, C), and blocked positions (B * heads, Q, h * w) bool.

        Args:
            outputs: The queries.
            pixel_embeddings: Not used.
            attention_mask_target_size: In place of a size the pixel embeddings (B, C, h, w) of that size.
        """
        embeddings = self.mask_embedder(outputs.transpose(0, 1))
        with torch.no_grad():
            pixels = attention_mask_target_size.flatten(2)  # (B, C, h * w)
            blocked = (embeddings @ pixels).sigmoid() < 0.5
        return embeddings, blocked[:, None].expand(-1, self.num_heads, -1, -1).flatten(0, 1)


class CrossEarthCrossAttention(nn.MultiheadAttention):
    """Masked cross-attention with the same numbers as its parent; it calls the output projection as a module.

    PyTorch's version reads the projection's weight directly, which fails for offloaded parameters.
    """

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, Tensor]:
        """Queries (Q, B, C) that attend to keys and values (N, B, C) where (B * heads, Q, N) `attn_mask` is not true.

        Also returns the weights (B, Q, N), their mean over the heads.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        rows = [
            F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)
        ]
        length, batch, width = query.shape
        q, k, v = (
            x.view(x.shape[0], batch * self.num_heads, self.head_dim).transpose(0, 1) for x in rows
        )
        q = q * math.sqrt(1.0 / self.head_dim)
        if attn_mask is None:
            scores = torch.bmm(q, k.transpose(1, 2))
        else:
            blocked = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(
                attn_mask, float("-inf")
            )
            scores = torch.baddbmm(blocked, q, k.transpose(1, 2))
        shares = F.dropout(scores.softmax(dim=-1), self.dropout, self.training)  # (B * heads, Q, N)
        found = torch.bmm(shares, v).transpose(0, 1).reshape(length * batch, width)
        attended = self.out_proj(found).view(length, batch, width)
        return attended, shares.unflatten(0, (batch, self.num_heads)).mean(dim=1)


def _rows(embedding: nn.Embedding, device: torch.device) -> Tensor:
    """The table of an embedding by a lookup: offloaded weights are loaded only during one."""
    return embedding(torch.arange(embedding.num_embeddings, device=device))


class CrossEarthTransformerModule(nn.Module):
    """Mask2Former's transformer decoder, its queries linked to the Rein tokens or learned."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        self.position_embedder = CrossEarthSinePositions(config.hidden_dim // 2, normalize=True)
        self.level_embed = nn.Embedding(3, config.hidden_dim)
        self.decoder = Mask2FormerMaskedAttentionDecoder(config)
        for layer in self.decoder.layers:
            layer.cross_attn.__class__ = (
                CrossEarthCrossAttention  # a new one would draw other weights from a seed
            )
        self.decoder.mask_predictor = CrossEarthMaskPredictor(
            config.hidden_dim, config.num_attention_heads, config.mask_feature_size
        )
        if config.link_queries:
            self.query_features = nn.Linear(config.hidden_dim, config.hidden_dim)
        else:
            self.queries_embedder = nn.Embedding(config.num_queries, config.hidden_dim)
            self.queries_features = nn.Embedding(config.num_queries, config.hidden_dim)

    def forward(
        self,
        memories: tuple[Tensor, ...],
        mask_features: Tensor,
        query_positions: Tensor | None,
        only_last: bool = False,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Decodes the queries.

        Args:
            memories: three maps (B, C, h, w) of the pixel decoder, strides 32, 16, 8.
            mask_features: (B, C, H/4, W/4).
            query_positions: (Q, C) queries from the adapters, or `None` for learned ones.
            only_last: return what follows the last layer alone.

        Returns:
            Normed queries (Q, B, C) and mask logits (B, Q, H/4, W/4) before the first layer and after each.
        """
        device = mask_features.device
        if query_positions is None:
            query_positions, content = (
                _rows(each, device) for each in (self.queries_embedder, self.queries_features)
            )
        else:
            content = self.query_features(query_positions)
        batch = mask_features.shape[0]
        positions = [
            self.position_embedder(m.shape, m.device, m.dtype).flatten(2).permute(2, 0, 1)
            for m in memories
        ]
        levels = _rows(self.level_embed, device)[:, None, None]  # (3, 1, 1, C)
        keys = [
            m.flatten(2).permute(2, 0, 1) + level for m, level in zip(memories, levels, strict=True)
        ]  # (hw, B, C)
        with torch.no_grad():  # for attention masks, which have no gradient
            pixels = [
                F.interpolate(
                    mask_features, size=m.shape[-2:], mode="bilinear", align_corners=False
                )
                for m in memories
            ]
        decoded = self.decoder(
            inputs_embeds=content[:, None].expand(-1, batch, -1),  # (Q, B, C)
            multi_stage_positional_embeddings=positions,
            encoder_hidden_states=keys,
            query_position_embeddings=query_positions[:, None].expand(-1, batch, -1),
            feature_size_list=pixels,  # the decoder hands one after the other to the mask predictor
            return_dict=True,
        )
        queries, embeddings = decoded.intermediate_hidden_states, decoded.masks_queries_logits
        if only_last:
            queries, embeddings = queries[-1:], embeddings[-1:]
        return queries, tuple(
            torch.einsum("bqc,bchw->bqhw", embedding, mask_features) for embedding in embeddings
        )
