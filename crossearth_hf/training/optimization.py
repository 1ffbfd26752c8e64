"""The optimizer's groups and the learning rate of the published recipe."""

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


def param_groups(model: nn.Module, weight_decay: float, backbone_lr_multiplier: float = 1.0) -> list[dict[str, Any]]:
    """AdamW's groups of the trainable parameters: those that decay and those that do not.

    With a multiplier other than 1 the ViT's own weights, not LoRA's, have groups of their own; "lr_multiplier" of each
    group is for who sets the learning rates.

    The published rule (CrossEarth's configs): no decay for norms, query embeddings, the transformer decoder's level
    embedding, Rein's tokens and scale; decay for all others, biases and the pixel decoder's level encoding too. The
    published runs freeze the ViT and are silent on the rest. Our choices: no decay of a trained ViT's class token,
    registers, position table and LayerScale, nor of the learned mask image; LoRA's factors decay.
    """
    exempt = {id(parameter) for module in model.modules() for parameter in _exempt(module)}
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    vit = {id(p) for name, p in trainable if ".backbone." in f".{name}" and ".lora_" not in name}
    if backbone_lr_multiplier != 1:
        slow = vit
    else:
        slow = set()
    return [
        {
            "params": [p for _, p in trainable if (id(p) in slow) == is_slow and (id(p) in exempt) == is_exempt],
            "weight_decay": 0.0 if is_exempt else weight_decay,
            "lr_multiplier": backbone_lr_multiplier if is_slow else 1.0,
        }
        for is_slow in ([False, True] if slow else [False])
        for is_exempt in (False, True)
    ]


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up from a millionth, then polynomial decay to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps)
    progress = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
    return config.learning_rate * (1 - progress) ** POLY_POWER


def _exempt(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters of `module` itself, not of its children, that never decay."""
    # nn.Embedding: learned queries and the transformer decoder's level embedding.
    whole = isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.Embedding)
    for name, parameter in module.named_parameters(recurse=False):
        if whole or name in _EXEMPT_NAMES:
            yield parameter
