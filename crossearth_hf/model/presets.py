"""Sizes of models: the published ones, and the small ones of this package."""

from typing import Any

# DINOv2-L with the patch kernel resampled from 14 to 16 pixels, as all published checkpoints use it.
VIT_LARGE: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 512,
    "patch_size": 16,
    "use_mask_token": False,
}

# The small model (our choice; the paper has ViT-L only): six blocks on an ImageNet stem. They start near the identity,
# and the head's larger initial weights and pixel-wise loss make it learn in hundreds of steps instead of thousands.
VIT_TINY = VIT_LARGE | {
    "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 256, "layerscale_value": 0.1,
}  # fmt: skip

HEAD_TINY = {
    "hidden_dim": 128,
    "feature_size": 128,
    "mask_feature_size": 128,
    "num_attention_heads": 4,
}

DEPTH_TINY = {
    "encoder_layers": 1,
    "decoder_layers": 4,
    "encoder_feedforward_dim": 512,
    "dim_feedforward": 512,
}

# DINOv2-small without its last three blocks, beside an ImageNet stem. Our choice.
VIT_SMALL = VIT_LARGE | {
    "hidden_size": 384, "num_hidden_layers": 9, "num_attention_heads": 6, "image_size": 256,
}  # fmt: skip

REIN_TINY = {"rein_num_tokens": 32, "num_queries": 32, "rein_rank": 8, "out_indices": (2, 3, 4, 5)}

TRAINING_TINY = {
    "train_num_points": 2048, "ignore_unlabelled_pixels": True, "semantic_weight": 5.0, "init_std": 0.06,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "large-512": {},
    "large-1024": {"backbone_config": VIT_LARGE | {"image_size": 1024}, "window_stride": 683},
    "tiny": {
        "backbone_config": VIT_TINY,
        "convolutional_stem": True,
        "window_stride": 171,
        **HEAD_TINY,
        **DEPTH_TINY,
        **REIN_TINY,
        **TRAINING_TINY,
    },
    "small": {
        "backbone_config": VIT_SMALL,
        "convolutional_stem": True,
        "stem_makes_patches": False,
        "window_stride": 171,
        **HEAD_TINY,
        **DEPTH_TINY,
        **REIN_TINY,
        **TRAINING_TINY,
        "out_indices": (3, 5, 7, 8),
    },
}

__all__ = ["PRESETS", "VIT_LARGE"]
