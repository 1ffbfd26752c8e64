"""The architecture of a published checkpoint, read from the shapes of its tensors."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError, reason_of, shown
from ..files.documents import read_yaml
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.presets import VIT_LARGE
from .pickles import some

PATCH = 16

OVERRIDES = {
    "num_attention_heads": "heads of the ViT; default: width / 64 for widths from 384",
    "out_indices": "four blocks, from 0, that make the pyramid; default: (7, 11, 15, 23) for 24 blocks",
    "group_norm_groups": "groups of the pixel decoder's norms; default: 32 for a head of width 256",
    "image_size": "crop in pixels, where a DINOv2 file is resampled; default: that of its positions if /16, else 512",
    "window_stride": "step between windows in pixels; default: two thirds of the crop",
    "ground_sampling_distance": "meters per pixel of the training imagery; default: unknown",
    "training_only": "modules inside the network that only training used, such as 'decode_head.reconstruction'",
}
"""Fields that shapes cannot show, in a `--config` file."""


def read_overrides(path: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The fields of a `--config` file; raises `InputError` for an unknown field or a value of the wrong kind."""
    if path is None:
        return {}
    fields = read_yaml(path, "write one 'field: value' a line")
    if unknown := [str(name) for name in fields if name not in OVERRIDES]:
        raise InputError(
            f"{path} has the unknown field {some(unknown)}; the known ones are {', '.join(OVERRIDES)}"
        )
    for name, value in fields.items():
        if not _is_valid(name, value):
            raise InputError(
                f"{path}: {name} cannot be {shown(value)}; it is the {OVERRIDES[name]}"
            )
    return fields


def _is_valid(name: str, value: Any) -> bool:
    if name == "training_only":
        return isinstance(value, list) and all(isinstance(module, str) for module in value)
    if name == "out_indices":
        return (
            isinstance(value, list)
            and len(value) == 4
            and all(type(index) is int for index in value)
        )
    if name == "ground_sampling_distance":
        return type(value) in (int, float) and 0 < value < math.inf
    return type(value) is int and value > 0


def infer_config(
    shapes: Mapping[str, Sequence[int]], overrides: Mapping[str, Any]
) -> CrossEarthConfig:
    """The architecture of a published state dict.

    Args:
        shapes: Published name to shape, ViT included.
        overrides: Fields of `OVERRIDES`, which shapes cannot show.

    Raises:
        InputError: A tensor is missing from which a size is read, or a field is missing that shapes cannot show.
    """
    sizes = Sizes(shapes)
    depth = sizes.count("backbone.blocks.")
    indices = groups = None
    if depth == 24:
        indices = (7, 11, 15, 23)
    head_width = sizes("decode_head.cls_embed.weight", 1)
    if head_width == 256:
        groups = 32
    if "backbone.reins.learnable_tokens" in shapes:
        rein_tokens, rank = sizes("backbone.reins.learnable_tokens", 1), None
    else:
        rein_tokens = sizes("backbone.reins.learnable_tokens_a", 1)
        rank = sizes("backbone.reins.learnable_tokens_a", 2)
    linked = "decode_head.querys2feat.weight" in shapes
    queries = rein_tokens
    if not linked:
        queries = sizes("decode_head.query_embed.weight", 0)
    image_size = table_size(sizes, overrides)
    pixel_layer = "decode_head.pixel_decoder.encoder.layers.0"
    fields = {
        "backbone_config": backbone_fields(sizes, image_size, overrides),
        "out_indices": _choose(overrides, "out_indices", indices, f"{depth} blocks"),
        "rein_num_tokens": rein_tokens,
        "rein_rank": rank,
        "link_queries": linked,
        "num_queries": queries,
        "hidden_dim": head_width,
        "feature_size": sizes("decode_head.pixel_decoder.level_encoding.weight", 1),
        "mask_feature_size": sizes("decode_head.pixel_decoder.mask_feature.weight", 0),
        "encoder_layers": sizes.count("decode_head.pixel_decoder.encoder.layers."),
        "encoder_feedforward_dim": sizes(f"{pixel_layer}.ffn.layers.0.0.weight", 0),
        "decoder_layers": sizes.count("decode_head.transformer_decoder.layers.") + 1,
        "dim_feedforward": sizes(
            "decode_head.transformer_decoder.layers.0.ffn.layers.0.0.weight", 0
        ),
        # Three levels of four points for each of the pixel decoder's heads; the decoder has as many heads.
        "num_attention_heads": max(
            sizes(f"{pixel_layer}.self_attn.attention_weights.weight", 0) // 12, 1
        ),
        "group_norm_groups": _choose(
            overrides, "group_norm_groups", groups, f"a head of width {head_width}"
        ),
        "window_stride": overrides.get("window_stride", round(image_size * 2 / 3)),
        "ground_sampling_distance": overrides.get("ground_sampling_distance"),
        "num_labels": sizes("decode_head.cls_embed.weight", 0) - 1,
    }
    try:
        return CrossEarthConfig(**fields)
    except Exception as error:  # unknown shapes make transformers raise anything
        raise InputError(
            f"the checkpoint's architecture is not supported: {reason_of(error)}"
        ) from error


class Sizes:
    """Looks up axes of named shapes and numbers of layers; the error names a missing tensor."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self.shapes = shapes

    def __call__(self, name: str, axis: int) -> int:
        if name not in self.shapes:
            raise InputError(
                f"the checkpoint lacks '{name}', which shows its architecture; give a complete file"
            )
        if len(self.shapes[name]) <= axis:
            raise InputError(
                f"'{name}' has the shape {tuple(self.shapes[name])}: too few axes; give a CrossEarth file"
            )
        return int(self.shapes[name][axis])

    def count(self, prefix: str) -> int:
        """Number of modules `prefix`0, `prefix`1, ...; raises `InputError` if one between them is missing."""
        found = {
            name[len(prefix) :].split(".")[0] for name in self.shapes if name.startswith(prefix)
        }
        missing = [str(index) for index in range(len(found)) if str(index) not in found]
        if missing or not found:
            raise InputError(
                f"the checkpoint lacks '{prefix}{(missing or ['0'])[0]}'; give a complete file"
            )
        return len(found)


def _choose(overrides: Mapping[str, Any], field: str, default: Any, reason: str) -> Any:
    value = overrides.get(field, default)
    if value is None:
        raise InputError(
            f"{field} cannot be read from shapes for {reason}; give it in a --config file"
        )
    return value


def grid_side(sizes: Sizes) -> int:
    """Patches along a side of the position table."""
    positions = sizes("backbone.pos_embed", 1) - 1
    side = math.isqrt(max(positions, 0))
    if side == 0 or side**2 != positions:
        raise InputError(
            f"'backbone.pos_embed' has {positions} positions, no square; give a model of square crops"
        )
    return side


def table_size(sizes: Sizes, overrides: Mapping[str, Any]) -> int:
    """Side in pixels that the position table is made for."""
    side = grid_side(sizes)
    if overrides.get("image_size", side * PATCH) != side * PATCH:
        raise InputError(
            f"image_size {overrides['image_size']} contradicts 'backbone.pos_embed', whose {side} x {side} positions "
            f"are those of {side * PATCH} pixels; leave it out"
        )
    return side * PATCH


def backbone_fields(sizes: Sizes, image_size: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the configuration of a DINOv2 with 16-pixel patches, by the shapes of its published tensors."""
    width, depth = sizes("backbone.cls_token", 2), sizes.count("backbone.blocks.")
    if width % 64 == 0 and width >= 384:
        known_heads = width // 64
    else:
        known_heads = None
    heads = _choose(overrides, "num_attention_heads", known_heads, f"a ViT of width {width}")
    if width % heads:
        raise InputError(
            f"num_attention_heads {heads} does not divide the ViT's width {width}; correct it"
        )
    fields = VIT_LARGE | {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "image_size": image_size,
    }
    if "backbone.blocks.0.mlp.w12.weight" in sizes.shapes:
        fields["use_swiglu_ffn"] = True
    else:
        fields["mlp_ratio"] = sizes("backbone.blocks.0.mlp.fc1.weight", 0) // width
    if "backbone.register_tokens" in sizes.shapes:
        del fields["use_mask_token"]
        fields |= {
            "model_type": "dinov2_with_registers",
            "num_register_tokens": sizes("backbone.register_tokens", 1),
        }
    return fields
