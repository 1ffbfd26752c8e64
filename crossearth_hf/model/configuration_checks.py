"""Limits of the fields of a configuration, and the checks of single fields."""

import math
from collections.abc import Mapping
from typing import Any

# Our choice: beyond any published ViT, and few enough for objects of the configuration to be made at once.
MOST_LAYERS = 256
LARGEST_WIDTH = 65_536
LARGEST_SIDE = 16_384
MOST_TOKENS = 10_000

MOST_CLASSES = 255
"""Maps and label maps hold ids of 8 bits, of which 255 means "ignored"."""

MOST_CHANNELS = 1024
"""Our choice: hyperspectral sensors have some hundred bands."""

HEAD_LIMITS = {
    "encoder_layers": MOST_LAYERS, "decoder_layers": MOST_LAYERS,
    "hidden_dim": LARGEST_WIDTH, "feature_size": LARGEST_WIDTH, "mask_feature_size": LARGEST_WIDTH,
    "encoder_feedforward_dim": LARGEST_WIDTH, "dim_feedforward": LARGEST_WIDTH, "num_attention_heads": LARGEST_WIDTH,
    "group_norm_groups": LARGEST_WIDTH, "mim_reconstruction_width": LARGEST_WIDTH,
    "num_queries": MOST_TOKENS, "rein_num_tokens": MOST_TOKENS, "rein_rank": MOST_TOKENS,
    "num_labels": MOST_CLASSES,
}  # fmt: skip

_BACKBONE_LIMITS = {
    "num_hidden_layers": MOST_LAYERS, "hidden_size": LARGEST_WIDTH, "num_attention_heads": LARGEST_WIDTH,
    "mlp_ratio": MOST_LAYERS, "intermediate_size": LARGEST_WIDTH, "image_size": LARGEST_SIDE,
    "num_register_tokens": MOST_TOKENS,
}  # fmt: skip

_MAY_BE_ZERO = ("num_register_tokens",)

_SWITCHES = (
    "rein_refines_features", "link_queries", "convolutional_stem", "stem_makes_patches", "freeze_backbone",
    "ignore_unlabelled_pixels",
)  # fmt: skip

_NUMBERS = {
    "rein_scale": -math.inf, "semantic_weight": 0.0, "mim_mask_ratio": 0.0, "mim_block_size": 1.0, "mim_weight": 0.0,
}  # fmt: skip
"""Fields of our own that are numbers, and the least that they may be."""


def check_head_sizes(values: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a size of head or adapters that is not a number, or beyond any published model's."""
    _check_sizes(values, HEAD_LIMITS)


def check_backbone_sizes(values: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a size in a ViT's configuration that is not a number, or beyond any published ViT's."""
    _check_sizes(values, _BACKBONE_LIMITS)


def check_types(config: Any) -> None:
    """Raises `ValueError` for a field of `CrossEarthConfig` of another type, or a number outside its range."""
    for name in _SWITCHES:
        if type(getattr(config, name)) is not bool:
            raise ValueError(f"{name} {getattr(config, name)!r} must be True or False")
    for name, least in _NUMBERS.items():
        value = getattr(config, name)
        if type(value) not in (int, float) or not least <= value < math.inf:
            rule = "a finite number"
            if least > -math.inf:
                rule += f", {least:g} or more"
            raise ValueError(f"{name} {value!r} must be {rule}")
    check_head_sizes({name: getattr(config, name) for name in HEAD_LIMITS if name != "num_labels"})
    indices = config.out_indices
    if not isinstance(indices, list | tuple) or any(type(index) is not int for index in indices):
        raise ValueError(
            f"out_indices {indices!r} must be whole numbers; give four blocks of the backbone"
        )


def check_colors(colors: list[list[int]] | None) -> None:
    """Raises `ValueError` for class colors that are not red, green and blue from 0 to 255."""
    for color in colors or ():
        if len(color) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in color):
            raise ValueError(
                f"class_colors holds {color!r}; a color is red, green and blue from 0 to 255"
            )


def check_channels(number: Any) -> None:
    """Raises `ValueError` for a number of input channels below 3 or beyond `MOST_CHANNELS`."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 3:
        raise ValueError(
            f"num_channels {number!r} must be a whole number, 3 or more; repeat gray images as red, green and blue"
        )
    if number > MOST_CHANNELS:
        raise ValueError(f"num_channels {number} must be at most {MOST_CHANNELS}; correct it")


def _check_sizes(values: Mapping[str, Any], limits: Mapping[str, int]) -> None:
    for name, most in limits.items():
        value = values.get(name)
        least = int(name not in _MAY_BE_ZERO)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise ValueError(
                f"{name} {str(value)[:40]} must be a whole number from {least} to {most}"
            )


__all__ = [
    "HEAD_LIMITS",
    "check_backbone_sizes",
    "check_channels",
    "check_colors",
    "check_head_sizes",
    "check_types",
]
