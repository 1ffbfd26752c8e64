"""Names of published CrossEarth and DINOv2 tensors, and ours."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError

_VIT = "model.backbone"
_LAYER = "transformer_module.decoder.layers.#"
_PIXELS, _PIXEL_LAYER = "decode_head.pixel_decoder", "decode_head.pixel_decoder.encoder.layers.#"
_PUBLISHED_LAYER = "decode_head.transformer_decoder.layers.#"

# The one table of names: published first, then ours. `#` is a number, `*` is weight or bias. Several names of ours
# share one published tensor in equal parts along its first axis.
RENAMES: tuple[tuple[str, ...], ...] = (
    ("backbone.cls_token", f"{_VIT}.embeddings.cls_token"),
    ("backbone.pos_embed", f"{_VIT}.embeddings.position_embeddings"),
    ("backbone.register_tokens", f"{_VIT}.embeddings.register_tokens"),
    ("backbone.patch_embed.proj.*", f"{_VIT}.embeddings.patch_embeddings.projection.*"),
    ("backbone.blocks.#.norm1.*", f"{_VIT}.layer.#.norm1.*"),
    (
        "backbone.blocks.#.attn.qkv.*",
        *(f"{_VIT}.layer.#.attention.{part}_proj.*" for part in "qkv"),
    ),
    ("backbone.blocks.#.attn.proj.*", f"{_VIT}.layer.#.attention.o_proj.*"),
    ("backbone.blocks.#.ls1.gamma", f"{_VIT}.layer.#.layer_scale1.lambda1"),
    ("backbone.blocks.#.norm2.*", f"{_VIT}.layer.#.norm2.*"),
    ("backbone.blocks.#.mlp.fc1.*", f"{_VIT}.layer.#.mlp.fc1.*"),
    ("backbone.blocks.#.mlp.fc2.*", f"{_VIT}.layer.#.mlp.fc2.*"),
    (
        "backbone.blocks.#.mlp.w12.*",
        *(f"{_VIT}.layer.#.mlp.{part}_proj.*" for part in ("gate", "up")),
    ),
    ("backbone.blocks.#.mlp.w3.*", f"{_VIT}.layer.#.mlp.down_proj.*"),
    ("backbone.blocks.#.ls2.gamma", f"{_VIT}.layer.#.layer_scale2.lambda1"),
    ("backbone.reins.scale", "model.adapter.scale"),
    ("backbone.reins.learnable_tokens", "model.adapter.tokens"),
    ("backbone.reins.learnable_tokens_a", "model.adapter.tokens_a"),
    ("backbone.reins.learnable_tokens_b", "model.adapter.tokens_b"),
    ("backbone.reins.mlp_token2feat.*", "model.adapter.token2feat.*"),
    ("backbone.reins.mlp_delta_f.*", "model.adapter.delta_f.*"),
    ("backbone.reins.transform.*", "model.adapter.transform.*"),
    ("backbone.reins.merge.*", "model.adapter.merge.*"),
    (f"{_PIXELS}.input_convs.#.conv.*", "pixel_decoder.input_projections.#.0.*"),
    (f"{_PIXELS}.input_convs.#.gn.*", "pixel_decoder.input_projections.#.1.*"),
    (f"{_PIXELS}.level_encoding.weight", "pixel_decoder.level_embed"),
    *(
        (f"{_PIXEL_LAYER}.self_attn.{part}.*", f"pixel_decoder.encoder.layers.#.self_attn.{part}.*")
        for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    ),
    (f"{_PIXEL_LAYER}.norms.0.*", "pixel_decoder.encoder.layers.#.self_attn_layer_norm.*"),
    (f"{_PIXEL_LAYER}.ffn.layers.0.0.*", "pixel_decoder.encoder.layers.#.fc1.*"),
    (f"{_PIXEL_LAYER}.ffn.layers.1.*", "pixel_decoder.encoder.layers.#.fc2.*"),
    (f"{_PIXEL_LAYER}.norms.1.*", "pixel_decoder.encoder.layers.#.final_layer_norm.*"),
    (f"{_PIXELS}.lateral_convs.0.conv.weight", "pixel_decoder.adapter_1.0.weight"),
    (f"{_PIXELS}.lateral_convs.0.gn.*", "pixel_decoder.adapter_1.1.*"),
    (f"{_PIXELS}.output_convs.0.conv.weight", "pixel_decoder.layer_1.0.weight"),
    (f"{_PIXELS}.output_convs.0.gn.*", "pixel_decoder.layer_1.1.*"),
    (f"{_PIXELS}.mask_feature.*", "pixel_decoder.mask_projection.*"),
    (f"{_PUBLISHED_LAYER}.cross_attn.attn.in_proj_weight", f"{_LAYER}.cross_attn.in_proj_weight"),
    (f"{_PUBLISHED_LAYER}.cross_attn.attn.in_proj_bias", f"{_LAYER}.cross_attn.in_proj_bias"),
    (f"{_PUBLISHED_LAYER}.cross_attn.attn.out_proj.*", f"{_LAYER}.cross_attn.out_proj.*"),
    (f"{_PUBLISHED_LAYER}.norms.0.*", f"{_LAYER}.cross_attn_layer_norm.*"),
    (
        f"{_PUBLISHED_LAYER}.self_attn.attn.in_proj_weight",
        *(f"{_LAYER}.self_attn.{p}_proj.weight" for p in "qkv"),
    ),
    (
        f"{_PUBLISHED_LAYER}.self_attn.attn.in_proj_bias",
        *(f"{_LAYER}.self_attn.{p}_proj.bias" for p in "qkv"),
    ),
    (f"{_PUBLISHED_LAYER}.self_attn.attn.out_proj.*", f"{_LAYER}.self_attn.out_proj.*"),
    (f"{_PUBLISHED_LAYER}.norms.1.*", f"{_LAYER}.self_attn_layer_norm.*"),
    (f"{_PUBLISHED_LAYER}.ffn.layers.0.0.*", f"{_LAYER}.fc1.*"),
    (f"{_PUBLISHED_LAYER}.ffn.layers.1.*", f"{_LAYER}.fc2.*"),
    (f"{_PUBLISHED_LAYER}.norms.2.*", f"{_LAYER}.final_layer_norm.*"),
    ("decode_head.transformer_decoder.post_norm.*", "transformer_module.decoder.layernorm.*"),
    ("decode_head.mask_embed.0.*", "transformer_module.decoder.mask_predictor.mask_embedder.0.0.*"),
    ("decode_head.mask_embed.2.*", "transformer_module.decoder.mask_predictor.mask_embedder.1.0.*"),
    ("decode_head.mask_embed.4.*", "transformer_module.decoder.mask_predictor.mask_embedder.2.0.*"),
    ("decode_head.level_embed.weight", "transformer_module.level_embed.weight"),
    ("decode_head.querys2feat.*", "transformer_module.query_features.*"),
    ("decode_head.query_embed.weight", "transformer_module.queries_embedder.weight"),
    ("decode_head.query_feat.weight", "transformer_module.queries_features.weight"),
    ("decode_head.cls_embed.*", "class_predictor.*"),
)

_PLACEHOLDERS = {"#": r"(0|[1-9]\d{0,3})", "*": "(weight|bias)"}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(
        "".join(_PLACEHOLDERS.get(part, re.escape(part)) for part in re.split("([#*])", template))
    )


def _fill(template: str, values: tuple[str, ...]) -> str:
    pieces = re.split("[#*]", template)
    return "".join(piece + value for piece, value in zip(pieces, (*values, ""), strict=True))


_TO_OURS = tuple((_pattern(published), ours) for published, *ours in RENAMES)
_TO_PUBLISHED = tuple((_pattern(name), published) for published, *ours in RENAMES for name in ours)


def our_names(published: str) -> tuple[str, ...]:
    """Our parameters that a published tensor holds, in the order of its parts; () for an unknown name."""
    for pattern, templates in _TO_OURS:
        if match := pattern.fullmatch(published):
            return tuple(_fill(template, match.groups()) for template in templates)
    return ()


def published_name(ours: str) -> str:
    """The published tensor that holds a parameter of ours, such as "backbone.blocks.0.attn.qkv.bias".

    Raises:
        InputError: No published tensor holds this parameter.
    """
    if (published := _find_published(ours)) is None:
        raise InputError(
            f"'{ours}' is not a parameter of CrossEarth; give names of CrossEarthForSemanticSegmentation"
        )
    return published


def _find_published(ours: str) -> str | None:
    for pattern, published in _TO_PUBLISHED:
        if match := pattern.fullmatch(ours):
            return _fill(published, match.groups())
    return None


def split_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under our names; fused projections become views of their parts. Unknown names are left out."""
    ours: dict[str, Tensor] = {}
    for published, tensor in tensors.items():
        names = our_names(published)
        if len(names) == 1:
            ours[names[0]] = tensor
        elif names:
            ours.update(zip(names, tensor.chunk(len(names)), strict=True))
    return ours


def to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under our names (parameters, gradients, meta tensors, all or some) in the published layout.

    Raises:
        InputError: A name is unknown, or a part of a fused projection is missing.
    """
    published: dict[str, Tensor] = {}
    for name in tensors:
        target = published_name(name)
        if target in published:
            continue
        parts = our_names(target)
        if missing := [part for part in parts if part not in tensors]:
            raise InputError(
                f"'{target}' also needs '{missing[0]}'; give all of {', '.join(parts)}"
            )
        published[target] = tensors[name]
        if len(parts) > 1:
            published[target] = torch.cat([tensors[part] for part in parts])
    return published


_DINOV2_PREFIXES = ("backbone.", "dinov2.", "dinov2_with_registers.")
_DINOV2_KEY = re.compile(
    r"(cls_token|pos_embed|mask_token|register_tokens|patch_embed|blocks|norm)\b"
)
# transformers' names of DINOv2: those on disk become those in memory, which are ours but for the prefix.
_TRANSFORMERS_NAMES = (
    (re.compile(r"^encoder\.layer\.(\d+)\.mlp\.weights_in\."), r"backbone.blocks.\1.mlp.w12."),
    (re.compile(r"^encoder\.layer\.(\d+)\.mlp\.weights_out\."), r"backbone.blocks.\1.mlp.w3."),
    (re.compile(r"^layernorm\."), "backbone.norm."),
    (re.compile(r"^embeddings\.mask_token$"), "backbone.mask_token"),
    (re.compile(r"^(encoder\.)?(embeddings|layer)\."), rf"{_VIT}.\2."),
    (re.compile(r"\.attention\.attention\.(q)uery\."), r".attention.\1_proj."),
    (re.compile(r"\.attention\.attention\.(k)ey\."), r".attention.\1_proj."),
    (re.compile(r"\.attention\.attention\.(v)alue\."), r".attention.\1_proj."),
    (re.compile(r"\.attention\.output\.dense\."), ".attention.o_proj."),
)


def dinov2_to_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DINOv2 file, original or transformers' layout, with or without a prefix, in the published layout.

    Tensors of no known name keep theirs.

    Raises:
        InputError: A part of a projection is missing that the published layout fuses.
    """
    prefix = next((p for p in _DINOV2_PREFIXES if any(name.startswith(p) for name in tensors)), "")
    published: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(prefix)
        if _DINOV2_KEY.match(name):
            name = f"backbone.{name}"
        for pattern, replacement in _TRANSFORMERS_NAMES:
            name = pattern.sub(replacement, name)
        if _find_published(name) is not None:
            ours[name] = tensor
        elif name.startswith("backbone."):
            published[name] = tensor
        else:
            published[key] = tensor
    return published | to_published(ours)
