"""Tiny configurations, which tests of the network share."""

from crossearth_hf import CrossEarthConfig

VIT = {
    "model_type": "dinov2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "use_mask_token": False,
}
REGISTERS = {name: value for name, value in VIT.items() if name != "use_mask_token"} | {
    "model_type": "dinov2_with_registers",
    "num_register_tokens": 3,
}
DINOV3 = REGISTERS | {"model_type": "dinov3_vit", "intermediate_size": 128}
FAMILIES = (
    {},
    {"link_queries": False},
    {"rein_rank": None},
    {"convolutional_stem": True},
    {"convolutional_stem": True, "stem_makes_patches": False},
    {"backbone_config": REGISTERS},
    {"backbone_config": DINOV3},
)


def tiny_config(**overrides: object) -> CrossEarthConfig:
    """The sizes of the reference checkpoint: width 64, four blocks, 64 px, ten tokens of rank 4."""
    fields = {
        "backbone_config": VIT,
        "out_indices": (0, 1, 2, 3),
        "rein_num_tokens": 10,
        "num_queries": 10,
        "rein_rank": 4,
        "hidden_dim": 32,
        "feature_size": 32,
        "mask_feature_size": 32,
        "encoder_layers": 2,
        "encoder_feedforward_dim": 48,
        "decoder_layers": 5,
        "dim_feedforward": 80,
        "num_attention_heads": 4,
        "group_norm_groups": 8,
        "train_num_points": 64,
        "window_stride": 43,
        "num_labels": 6,
    }
    return CrossEarthConfig(**(fields | overrides))
