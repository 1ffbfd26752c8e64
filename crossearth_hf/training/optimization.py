"""The optimizer's groups and the learning rate of the published recipe."""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from .config import TrainConfig

WARMUP_START = 1e-6
POLY_POWER = 0.9

_EXEMPT_NAMES = {
    "scale", "tokens", "tokens_a", "tokens_b", "mask_token",  # Rein, Multi-Task Training
    "cls_token", "register_tokens", "position_embeddings", "lambda1",  # the ViT, where it is trained
}  # fmt: skip


def param_groups(
    model: nn.Module,
    weight_decay: float,
    backbone_lr_multiplier: float = 1.0,
    backbone_layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """AdamW's groups of the trainable parameters: for each learning rate, one with weight decay and one without.

    The training loop multiplies the learning rate of a group by its "lr_multiplier". That of the ViT's own weights,
    without LoRA's, is `backbone_lr_multiplier` times `backbone_layer_decay` for every block between them and the last
    one (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022); patches and positions count as block -1. A
    convolutional stem beside the ViT has `backbone_lr_multiplier`.

    The published rule (CrossEarth's configs): norms, query embeddings, the transformer decoder's level embedding,
    Rein's tokens and scale do not decay; all others decay, including biases and the pixel decoder's level encoding. The
    published runs freeze the ViT, so the rest is our choice: a trained ViT's class token, registers, position table and
    LayerScale and the learned mask image do not decay; LoRA's factors decay.
    """
    exempt = {id(parameter) for module in model.modules() for parameter in _exempt(module)}
    blocks = 1 + max((_block(name) for name, _ in model.named_parameters()), default=-1)
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            multiplier = _lr_multiplier(name, blocks, backbone_lr_multiplier, backbone_layer_decay)
            by_rate.setdefault(multiplier, []).append(parameter)
    groups = []
    for multiplier, parameters in sorted(by_rate.items(), reverse=True):
        decaying = [parameter for parameter in parameters if id(parameter) not in exempt]
        fixed = [parameter for parameter in parameters if id(parameter) in exempt]
        groups.append(
            {"params": decaying, "weight_decay": weight_decay, "lr_multiplier": multiplier}
        )
        groups.append({"params": fixed, "weight_decay": 0.0, "lr_multiplier": multiplier})
    return groups


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up from a millionth, then polynomial decay to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (
            WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps
        )
    progress = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    return config.learning_rate * (1 - progress) ** POLY_POWER


def _lr_multiplier(name: str, blocks: int, backbone: float, layer_decay: float) -> float:
    """The factor of the learning rate for the parameter `name` of a model whose ViT has `blocks` blocks."""
    if ".backbone." not in f".{name}" or ".lora_" in name:
        return 1.0
    if ".stem." in name:
        return backbone
    after_it = blocks - 1 - _block(name)
    if ".layernorm." in name:
        after_it = 0
    return backbone * layer_decay**after_it


def _block(name: str) -> int:
    """The number of the ViT's block that the parameter `name` belongs to; -1 for none."""
    found = re.search(r"\bbackbone\.layer\.(\d+)\.", name)
    if found is None:
        return -1
    return int(found[1])


def _exempt(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters without weight decay of `module` itself, not of its children."""
    # nn.Embedding: learned queries and the transformer decoder's level embedding.
    whole = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Embedding)
    for name, parameter in module.named_parameters(recurse=False):
        if whole or name in _EXEMPT_NAMES:
            yield parameter
