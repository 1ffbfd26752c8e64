"""CrossEarth's configuration: sizes of the backbone, of the Rein adapters and of the Mask2Former head."""

import math
from typing import Any

from transformers import AutoConfig, Mask2FormerConfig
from transformers.configuration_utils import SubConfigSpec

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

AUTO_MAP = {
    "AutoConfig": "configuration_crossearth.CrossEarthConfig",
    "AutoModel": "modeling_crossearth.CrossEarthModel",
    "AutoModelForSemanticSegmentation": "modeling_crossearth.CrossEarthForSemanticSegmentation",
    "AutoModelForUniversalSegmentation": "modeling_crossearth.CrossEarthForSemanticSegmentation",
}


MOST_LAYERS, LARGEST_WIDTH, LARGEST_SIDE, MOST_TOKENS, MOST_CLASSES = 256, 65_536, 16_384, 10_000, 255
"""Our choice: beyond any published ViT, and few enough for objects of the configuration to be made at once. Maps and
label maps hold ids of 8 bits, of which 255 means "ignored"."""

MOST_CHANNELS = 1024
"""Our choice: hyperspectral sensors have some hundred bands."""

_HEAD_LIMITS = {
    "encoder_layers": MOST_LAYERS, "decoder_layers": MOST_LAYERS,
    "hidden_dim": LARGEST_WIDTH, "feature_size": LARGEST_WIDTH, "mask_feature_size": LARGEST_WIDTH,
    "encoder_feedforward_dim": LARGEST_WIDTH, "dim_feedforward": LARGEST_WIDTH, "num_attention_heads": LARGEST_WIDTH,
    "group_norm_groups": LARGEST_WIDTH, "mim_reconstruction_width": LARGEST_WIDTH,
    "num_queries": MOST_TOKENS, "rein_num_tokens": MOST_TOKENS, "rein_rank": MOST_TOKENS,
    "num_labels": MOST_CLASSES,
}  # fmt: skip
_BACKBONE_LIMITS = {
    "num_hidden_layers": MOST_LAYERS, "hidden_size": LARGEST_WIDTH, "num_attention_heads": LARGEST_WIDTH,
    "mlp_ratio": MOST_LAYERS, "image_size": LARGEST_SIDE, "num_register_tokens": MOST_TOKENS,
}  # fmt: skip


class CrossEarthConfig(Mask2FormerConfig):
    r"""Configuration of a CrossEarth model; the defaults are the published ViT-L/16 at 512 pixels.

    The head's fields (`hidden_dim`, `encoder_layers`, `train_num_points`, ...) are those of
    [`Mask2FormerConfig`]; as there, `decoder_layers` counts predictions, one more than layers.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            A DINOv2 (or DINOv2-with-registers) configuration with 16-pixel patches. Default: ViT-L/16 at 512.
        num_channels (`int`, *optional*, defaults to 3):
            Input channels, 3 or more, the first three red, green and blue. Kept in `backbone_config`. A trained RGB
            model gets more by `training.adaptation.extend_channels`.
        out_indices (`list[int]`, *optional*, defaults to `(7, 11, 15, 23)`):
            Four blocks (from 0) whose patch tokens become the pyramid, finest level first.
        rein_num_tokens (`int`, *optional*, defaults to 100):
            Learned tokens per block (Rein, Wei et al., CVPR 2024, section 3.2).
        rein_rank (`int`, *optional*, defaults to 16):
            Rank of the tokens' factors A and B (LoRA-Rein, section 3.3); `None` learns the tokens themselves.
        rein_scale (`float`, *optional*, defaults to 0.001):
            Initial value of the learned factor in front of the adapters' output.
        rein_refines_features (`bool`, *optional*, defaults to `True`):
            Whether the tokens refine the patches after every block; otherwise the features are the ViT's own, and the
            tokens only make the queries (`link_queries`).
        link_queries (`bool`, *optional*, defaults to `True`):
            Whether the decoder's queries are computed from the Rein tokens; otherwise they are embeddings of their
            own, as in Mask2Former.
        group_norm_groups (`int`, *optional*, defaults to 32):
            Groups of the pixel decoder's GroupNorm layers.
        convolutional_stem (`bool`, *optional*, defaults to `False`):
            Whether EfficientNet-Lite0 stands in for the patch kernel: its maps at strides 16 and 32 become the
            patches, those at strides 4 to 32 are added to the pyramid. A hybrid ViT (Dosovitskiy et al., ICLR 2021,
            section 3.1); our choice for small models, for which no pretrained ViT exists.
        freeze_backbone (`bool`, *optional*, defaults to `True`):
            Whether the ViT is built without gradients; adapters and head are always trained, and so are, with more
            than three channels, the kernels that read the pixels: no pretrained ones know the other bands.
        ignore_unlabelled_pixels (`bool`, *optional*, defaults to `False`):
            Whether pixels with the label 255 are left out of the mask losses. `False` is the original's way: they
            count as background of every class.
        semantic_weight (`float`, *optional*, defaults to 0.0):
            Weight of a pixel-wise cross-entropy of the class scores beside Mask2Former's losses. Our choice for
            small models, which have few steps to learn in; the published models do without.
        window_stride (`int`, *optional*, defaults to 341):
            Step between sliding windows in pixels; the window is `image_size`.
        ground_sampling_distance (`float`, *optional*):
            Meters per pixel of the training imagery, where it is known.
        mim_mask_ratio (`float`, *optional*, defaults to 0.7):
            Multi-Task Training: probability that a block of an image is hidden.
        mim_block_size (`int`, *optional*, defaults to 64):
            Multi-Task Training: side of a block in pixels.
        mim_weight (`float`, *optional*, defaults to 1.0):
            Multi-Task Training: weight of each reconstruction loss beside the segmentation loss.
        mim_extractor_channels (`list[int]`, *optional*):
            Multi-Task Training: widths of the extractor's first four convolutions; the fifth has the backbone's.
            Default: a sixteenth, an eighth, a quarter and a half of that.
        mim_reconstruction_width (`int`, *optional*):
            Multi-Task Training: channels of the reconstruction head. Default: a quarter of the backbone's width, 256
            for ViT-L.
    """

    model_type = "crossearth"
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="dinov2", init_kwargs=VIT_LARGE)
    }
    backbones_supported = ["dinov2", "dinov2_with_registers"]
    keys_to_ignore_at_inference = ["loss_dict", "hidden_states"]

    out_indices: list[int] | tuple[int, ...] = (7, 11, 15, 23)
    rein_num_tokens: int = 100
    rein_rank: int | None = 16
    rein_scale: float = 0.001
    rein_refines_features: bool = True
    link_queries: bool = True
    group_norm_groups: int = 32
    convolutional_stem: bool = False
    freeze_backbone: bool = True
    ignore_unlabelled_pixels: bool = False
    semantic_weight: float = 0.0
    window_stride: int = 341
    ground_sampling_distance: float | None = None
    mim_mask_ratio: float = 0.7
    mim_block_size: int = 64
    mim_weight: float = 1.0
    mim_extractor_channels: list[int] | tuple[int, ...] | None = None
    mim_reconstruction_width: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # Before transformers makes a list of all layers or names for all classes.
        _check_sizes({name: getattr(self, name, None) for name in _HEAD_LIMITS} | kwargs, _HEAD_LIMITS)
        backbone = self.backbone_config
        if isinstance(backbone, dict):
            _check_sizes(backbone, _BACKBONE_LIMITS)
        if self.id2label is None:
            kwargs.setdefault("num_labels", 6)  # the ISPRS classes, which most published checkpoints have
        super().__post_init__(**kwargs)
        self.auto_map = {**(getattr(self, "auto_map", None) or {}), **AUTO_MAP}
        self._check()
        self._check_multitask()

    def to_diff_dict(self) -> dict[str, Any]:
        """Fields that differ from the defaults; class names always, since two of them are transformers' default."""
        return super().to_diff_dict() | {"id2label": self.id2label, "label2id": self.label2id}

    @property
    def image_size(self) -> int:
        """Side of the crop that the model was built for, in pixels: the position table's size and the window."""
        return int(self.backbone_config.image_size)

    @property
    def least_side(self) -> int:
        """Shortest side of an image: one pixel at the pyramid's coarsest stride. The model pads smaller ones."""
        return int(self.feature_strides[-1])

    @property
    def num_channels(self) -> int:
        """Channels of the images that the model takes."""
        return int(self.backbone_config.num_channels)

    @num_channels.setter
    def num_channels(self, number: int) -> None:
        _check_channels(number)
        self.backbone_config.num_channels = number

    def _check(self) -> None:
        backbone = self.backbone_config
        if backbone.model_type not in self.backbones_supported:
            raise ValueError(
                f"backbone '{backbone.model_type}' is not supported; use one of {', '.join(self.backbones_supported)}"
            )
        _check_channels(backbone.num_channels)
        if backbone.patch_size != 16:
            raise ValueError(
                f"patch_size {backbone.patch_size} is not 16; resample the patch kernel (`crossearth convert` does)"
            )
        if backbone.image_size % 16:
            raise ValueError(f"image_size {backbone.image_size} is not a multiple of 16; choose one that is")
        if len(self.out_indices) != 4 or not all(0 <= i < backbone.num_hidden_layers for i in self.out_indices):
            raise ValueError(
                f"out_indices {tuple(self.out_indices)} must name four of the backbone's blocks "
                f"0..{backbone.num_hidden_layers - 1}"
            )
        if self.link_queries and self.num_queries != self.rein_num_tokens:
            raise ValueError(
                f"num_queries {self.num_queries} differs from rein_num_tokens {self.rein_num_tokens}; linked queries "
                "are computed from the tokens: make them equal or set link_queries=False"
            )
        if self.feature_size != self.hidden_dim:
            raise ValueError(f"feature_size {self.feature_size} must equal hidden_dim {self.hidden_dim}")
        if self.feature_size % self.group_norm_groups:
            raise ValueError(
                f"group_norm_groups {self.group_norm_groups} does not divide feature_size {self.feature_size}"
            )
        if [*self.feature_strides, self.common_stride] != [4, 8, 16, 32, 4]:
            raise ValueError(
                f"feature_strides {self.feature_strides} and common_stride {self.common_stride} are not those of the "
                "pyramid; leave them at [4, 8, 16, 32] and 4"
            )
        if not all(isinstance(name, str) for name in self.id2label.values()):
            raise ValueError(f"id2label {self.id2label} must map ids to names")
        if type(self.window_stride) is not int or self.window_stride < 1:
            raise ValueError(f"window_stride {self.window_stride!r} must be a whole number of pixels, 1 or more")
        meters = self.ground_sampling_distance
        if meters is not None and not (type(meters) in (int, float) and 0 < meters < math.inf):
            raise ValueError(f"ground_sampling_distance {meters!r} must be a positive number of meters, or None")

    def _check_multitask(self) -> None:
        if not 0 <= self.mim_mask_ratio <= 1:
            raise ValueError(
                f"mim_mask_ratio {self.mim_mask_ratio} is not a probability; choose one from 0 to 1, as 0.7"
            )
        if self.mim_block_size < 1:
            raise ValueError(f"mim_block_size {self.mim_block_size} must be positive; 64 pixels is the default")
        if not 0 <= self.mim_weight < math.inf:
            raise ValueError(f"mim_weight {self.mim_weight} must be a finite number, 0 or more; 1 is the default")
        channels, width = self.mim_extractor_channels, self.mim_reconstruction_width
        if channels is not None and (len(channels) != 4 or min(channels) < 1):
            raise ValueError(f"mim_extractor_channels {tuple(channels)} must be four positive widths, or None")
        if width is not None and (width < 1 or width % 4):
            raise ValueError(
                f"mim_reconstruction_width {width} is not a positive multiple of 4, as its four branches need; "
                "choose one, or None"
            )

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "CrossEarthConfig":
        """Configuration called `name` in `PRESETS`, with fields replaced by `overrides`; `ValueError` if unknown."""
        if name not in PRESETS:
            raise ValueError(f"'{name}' is not a preset; the known ones are {', '.join(PRESETS)}")
        return cls(**(PRESETS[name] | overrides))


def _check_sizes(values: dict[str, Any], limits: dict[str, int]) -> None:
    for name, most in limits.items():
        value = values.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise ValueError(f"{name} {str(value)[:40]} must be a whole number from 1 to {most}")


def _check_channels(number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 3:
        raise ValueError(
            f"num_channels {number!r} must be a whole number, 3 or more; repeat gray images as red, green and blue"
        )
    if number > MOST_CHANNELS:
        raise ValueError(f"num_channels {number} must be at most {MOST_CHANNELS}; correct it")


# The small model (our choice; the paper has ViT-L only): six blocks on an ImageNet stem. They start near the identity,
# and the head's larger initial weights and pixel-wise loss make it learn in hundreds of steps instead of thousands.
VIT_TINY = VIT_LARGE | {
    "hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "image_size": 256, "layerscale_value": 0.1,
}  # fmt: skip
HEAD_TINY = {"hidden_dim": 128, "feature_size": 128, "mask_feature_size": 128, "num_attention_heads": 4}
DEPTH_TINY = {"encoder_layers": 1, "decoder_layers": 4, "encoder_feedforward_dim": 512, "dim_feedforward": 512}
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
}

__all__ = ["PRESETS", "CrossEarthConfig"]
