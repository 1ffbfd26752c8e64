"""The baseline: CrossEarth computed step by step as its papers write it down, without any shortcut of ours.

It shares nothing with `crossearth_hf` but the names of the weights, so that it stays the same when the package gets
faster: attention with its whole matrix in memory, float32, tokens multiplied out for every batch, nothing fused. The
head is the one that transformers computes (`Mask2FormerPixelDecoder`, `Mask2FormerMaskedAttentionDecoder`), where
every decoder layer predicts masks at a quarter of the image's resolution.

Sources: CrossEarth (Gong et al., TPAMI 2026), DINOv2 (Oquab et al., TMLR 2024), Rein (Wei et al., CVPR 2024),
Mask2Former (Cheng et al., CVPR 2022).
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoder,
    Mask2FormerPixelDecoder,
    Mask2FormerSinePositionEmbedding,
)

from .plain_stem import PlainStem

Outputs = tuple[list[Tensor], list[Tensor]]
"""Per decoder output: class logits (B, Q, K+1), mask logits (B, Q, H/4, W/4)."""

_HEAD_FIELDS = (
    "feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "encoder_layers", "decoder_layers",
    "num_attention_heads", "dim_feedforward", "num_queries",
)  # fmt: skip


class PlainPatches(nn.Module):
    """Class token, patches, positions."""

    def __init__(self, channels: int, width: int, patch: int, grid: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.empty(1, 1 + grid**2, width))
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(channels, width, patch, stride=patch)}
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 1 + N, D) tokens."""
        maps = self.patch_embeddings["projection"](pixels)  # (B, D, h, w)
        tokens = torch.cat(
            [self.cls_token.expand(len(maps), -1, -1), maps.flatten(2).transpose(1, 2)], dim=1
        )
        return tokens + self._positions(maps.shape[2], maps.shape[3])

    def _positions(self, height: int, width: int) -> Tensor:
        table = self.position_embeddings
        count = table.shape[1] - 1
        if height == width and height * width == count:
            return table
        side = math.isqrt(count)
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((height + 0.1) / math.sqrt(count), (width + 0.1) / math.sqrt(count))
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class PlainAttention(nn.Module):
    """Attention that holds its (N, N) matrix of every head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        batch, count, width = tokens.shape
        query, key, value = (
            projection(tokens)
            .reshape(batch, count, self.heads, width // self.heads)
            .transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )  # (B, heads, N, D / heads)
        weights = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        weights = weights.softmax(dim=-1)
        return self.o_proj((weights @ value).transpose(1, 2).reshape(batch, count, width))


class PlainScale(nn.Module):
    """LayerScale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        return tokens * self.lambda1


class PlainBlock(nn.Module):
    """A block of the ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = PlainAttention(width, heads)
        self.layer_scale1, self.layer_scale2 = PlainScale(width), PlainScale(width)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        tokens = tokens + self.layer_scale1(self.attention(self.norm1(tokens)))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.layer_scale2(self.mlp["fc2"](hidden))


class PlainRein(nn.Module):
    """Rein's adapters, every product as the paper writes it."""

    def __init__(self, layers: int, tokens: int, rank: int, width: int, queries: int) -> None:
        super().__init__()
        self.tokens_a = nn.Parameter(torch.empty(layers, tokens, rank))
        self.tokens_b = nn.Parameter(torch.empty(layers, rank, width))
        self.scale = nn.Parameter(torch.empty(()))
        self.token2feat, self.delta_f = nn.Linear(width, width), nn.Linear(width, width)
        self.transform, self.merge = nn.Linear(width, queries), nn.Linear(3 * queries, queries)

    def forward(self, patches: Tensor, layer: int) -> Tensor:
        """Refined patches (B, N, D)."""
        tokens = self.tokens_a[layer] @ self.tokens_b[layer]  # (T, D)
        weights = torch.einsum("bnd,td->bnt", patches, tokens) * patches.shape[-1] ** -0.5
        weights = weights.softmax(dim=-1)
        delta = torch.einsum("bnt,td->bnd", weights[:, :, 1:], self.token2feat(tokens[1:]))
        return patches + self.delta_f(delta + patches) * self.scale

    def queries(self) -> Tensor:
        """(T, C) query positions."""
        tokens = self.transform(self.tokens_a @ self.tokens_b)  # (L, T, C)
        parts = torch.stack([tokens.max(dim=0).values, tokens.mean(dim=0), tokens[-1]], dim=-1)
        return self.merge(parts.flatten(-2))


class PlainBackbone(nn.Module):
    """ViT, adapters, pyramid."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        vit = config["backbone_config"]
        width, layers, grid = vit["hidden_size"], vit["num_hidden_layers"], vit["image_size"] // 16
        self.taken = list(config["out_indices"])
        self.backbone = nn.ModuleDict()
        if config["convolutional_stem"]:
            self.backbone["stem"] = PlainStem()
            self.backbone["embeddings"] = PlainPatches(sum(PlainStem.widths[2:]), width, 1, grid)
            self.laterals = nn.ModuleList(
                nn.Conv2d(channels, width, 1) for channels in PlainStem.widths
            )
        else:
            self.backbone["embeddings"] = PlainPatches(3, width, 16, grid)
        blocks = (PlainBlock(width, vit["num_attention_heads"]) for _ in range(layers))
        self.backbone["layer"] = nn.Sequential(*blocks)
        self.adapter = PlainRein(
            layers, config["rein_num_tokens"], config["rein_rank"], width, config["hidden_dim"]
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Maps (B, D, h, w) at strides 4, 8, 16, 32."""
        details = []
        if "stem" in self.backbone:
            details = self.backbone["stem"](pixels)
            coarse = F.interpolate(
                details[3], size=details[2].shape[2:], mode="bilinear", align_corners=False
            )
            tokens = self.backbone["embeddings"](torch.cat([details[2], coarse], dim=1))
        else:
            tokens = self.backbone["embeddings"](pixels)
        grid = (pixels.shape[2] // 16, pixels.shape[3] // 16)
        maps = {}
        for name, block in self.backbone["layer"].named_children():
            index, tokens = int(name), block(tokens)
            tokens = torch.cat([tokens[:, :1], self.adapter(tokens[:, 1:], index)], dim=1)
            if index in self.taken:
                maps[index] = (
                    tokens[:, 1:].transpose(1, 2).reshape(len(pixels), -1, *grid).contiguous()
                )
        pyramid = [
            F.interpolate(maps[index], scale_factor=factor, mode="bilinear", align_corners=False)
            for index, factor in zip(self.taken, (4.0, 2.0, 1.0, 0.5), strict=True)
        ]
        if not details:
            return pyramid
        return [m + self.laterals[i](details[i]) for i, m in enumerate(pyramid)]


class PlainDecoder(nn.Module):
    """Mask2Former's transformer decoder on queries from the adapters."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.positions = Mask2FormerSinePositionEmbedding(config.hidden_dim // 2, normalize=True)
        self.level_embed = nn.Embedding(3, config.hidden_dim)
        self.query_features = nn.Linear(config.hidden_dim, config.hidden_dim)
        self.decoder = Mask2FormerMaskedAttentionDecoder(config)

    def forward(
        self, memories: list[Tensor], mask_features: Tensor, queries: Tensor
    ) -> tuple[Any, Any]:
        """Normed queries (Q, B, C) and mask logits (B, Q, H/4, W/4) of every output."""
        batch = len(mask_features)
        positions, keys = [], []
        for level, memory in enumerate(memories):
            position = self.positions(memory.shape, memory.device, memory.dtype)
            positions.append(position.flatten(2).permute(2, 0, 1))
            keys.append(memory.flatten(2).permute(2, 0, 1) + self.level_embed.weight[level])
        decoded = self.decoder(
            inputs_embeds=self.query_features(queries)[:, None].repeat(1, batch, 1),
            multi_stage_positional_embeddings=positions,
            pixel_embeddings=mask_features,
            encoder_hidden_states=keys,
            query_position_embeddings=queries[:, None].repeat(1, batch, 1),
            feature_size_list=[memory.shape[-2:] for memory in memories],
            return_dict=True,
        )
        return decoded.intermediate_hidden_states, decoded.masks_queries_logits


class PlainCrossEarth(nn.Module):
    """The whole network; its weights have the names of `CrossEarthForSemanticSegmentation`'s.

    Args:
        config: Fields of a CrossEarth configuration, all of them.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        head = Mask2FormerConfig(**{name: config[name] for name in _HEAD_FIELDS})
        self.model = PlainBackbone(config)
        head._attn_implementation = "eager"
        self.pixel_decoder = Mask2FormerPixelDecoder(
            head, [config["backbone_config"]["hidden_size"]] * 4
        )
        for module in self.pixel_decoder.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = config["group_norm_groups"]
        self.transformer_module = PlainDecoder(head)
        self.class_predictor = nn.Linear(config["hidden_dim"], len(config["id2label"]) + 1)

    @classmethod
    def from_folder(cls, folder: Path) -> "PlainCrossEarth":
        """The network of a folder that `save_pretrained` wrote, every weight in its place; in eval mode."""
        config = json.loads((folder / "config.json").read_text())
        with torch.device("meta"):
            network = cls(config)
        weights = load_file(folder / "model.safetensors")
        network.load_state_dict(
            {name: weight.float() for name, weight in weights.items()}, assign=True
        )
        network.model.backbone.requires_grad_(False)
        return network.eval()

    def forward(self, pixels: Tensor) -> Outputs:
        """Class and mask logits of every decoder output for (B, 3, H, W) normalized pixels."""
        features = self.pixel_decoder(self.model(pixels), return_dict=True)
        queries, masks = self.transformer_module(
            list(features.multi_scale_features),
            features.mask_features,
            self.model.adapter.queries(),
        )
        return [self.class_predictor(query).transpose(0, 1) for query in queries], list(masks)
