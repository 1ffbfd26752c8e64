"""Rein adapters (Wei et al., CVPR 2024): learned tokens beside a frozen ViT."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_crossearth import CrossEarthConfig


class CrossEarthRein(GradientCheckpointingLayer):
    """Rein adapters (Wei et al., CVPR 2024, section 3): learned tokens refine the patches after every block."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        layers, width = config.backbone_config.num_hidden_layers, config.backbone_config.hidden_size
        self.rank = config.rein_rank
        # Init bound of the original: a patch's 3 * 16 * 16 values stand for the fan-in, as in visual prompt tuning.
        self.fan_in = config.num_channels * config.backbone_config.patch_size**2
        self.initial_scale = config.rein_scale
        if self.rank is None:
            self.tokens = nn.Parameter(torch.empty(layers, config.rein_num_tokens, width))
        else:
            self.tokens_a = nn.Parameter(torch.empty(layers, config.rein_num_tokens, self.rank))
            self.tokens_b = nn.Parameter(torch.empty(layers, self.rank, width))
        self.scale = nn.Parameter(torch.empty(()))
        self.token2feat = nn.Linear(width, width)
        self.delta_f = nn.Linear(width, width)
        if config.link_queries:
            self.transform = nn.Linear(width, config.hidden_dim)
            self.merge = nn.Linear(3 * config.hidden_dim, config.hidden_dim)

    def forward(self, patches: Tensor | None = None, tokens: Tensor | None = None) -> Tensor:
        """Refined patches (B, N, D) from patches (B, N, D) and the layer's tokens (T, D); else all tokens (L, T, D).

        The softmax runs over all tokens; the first one's share is then dropped, so that a patch can choose none. Both
        results are this method's because offloaded parameters are there only while a module's `forward` runs.
        """
        if patches is None or tokens is None:
            if self.rank is None:
                return self.tokens
            return self.tokens_a @ self.tokens_b
        # Tokens are scaled before the product: its sums could leave float16's range.
        attention = (patches @ (tokens.T * patches.shape[-1] ** -0.5)).softmax(dim=-1)  # (B, N, T)
        delta = attention[..., 1:] @ self.token2feat(tokens[1:])  # (B, N, D)
        return patches + self.scale * self.delta_f(delta + patches)

    def queries(self, tokens: Tensor) -> Tensor:
        """Query position embeddings (T, C) from the tokens of all layers (L, T, D): maximum, mean and last."""
        tokens = self.transform(tokens)  # (L, T, C)
        # (T, C, 3)
        summary = torch.stack([tokens.amax(dim=0), tokens.mean(dim=0), tokens[-1]], dim=-1)
        return self.merge(summary.flatten(1))
