"""CrossEarth's configuration: sizes of the backbone, of the Rein adapters and of the Mask2Former head."""

import difflib
import math
from dataclasses import fields
from typing import Any

from transformers import AutoConfig, Mask2FormerConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_checks import (
    HEAD_LIMITS,
    check_backbone_sizes,
    check_channels,
    check_colors,
    check_head_sizes,
    check_types,
)
from .presets import PRESETS, VIT_LARGE

AUTO_MAP = {
    "AutoConfig": "configuration_crossearth.CrossEarthConfig",
    "AutoModel": "modeling_crossearth.CrossEarthModel",
    "AutoModelForSemanticSegmentation": "modeling_crossearth.CrossEarthForSemanticSegmentation",
    "AutoModelForUniversalSegmentation": "modeling_crossearth.CrossEarthForSemanticSegmentation",
}


_OF_A_WHOLE_VIT = (
    "stage_names", "out_features", "out_indices", "architectures", "transformers_version", "_name_or_path",
)  # fmt: skip
"""Fields of a saved ViT that do not apply to a part of it."""


_NEAR = 0.87  # similarity of an unknown name that counts as a misspelled field


class CrossEarthConfig(Mask2FormerConfig):
    r"""Configuration of a CrossEarth model; the defaults are the published ViT-L/16 at 512 pixels.

    The head's fields (`hidden_dim`, `encoder_layers`, `train_num_points`, ...) are those of
    [`Mask2FormerConfig`]; as there, `decoder_layers` counts predictions, one more than layers.

    Args:
        backbone_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of a DINOv2, DINOv2-with-registers or DINOv3 ViT with 16-pixel patches. Default: ViT-L/16 at
            512. DINOv3 moves its positions at random in its own training (`pos_embed_shift`, `pos_embed_jitter`,
            `pos_embed_rescale`); here they stay where they are.
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
            Whether the decoder's queries are computed from the Rein tokens; otherwise they are learned embeddings.
        group_norm_groups (`int`, *optional*, defaults to 32):
            Groups of the pixel decoder's GroupNorm layers.
        convolutional_stem (`bool`, *optional*, defaults to `False`):
            Whether EfficientNet-Lite0 replaces the patch kernel: its maps at strides 16 and 32 become the patches, and
            its maps at strides 4 to 32 are added to the pyramid. This is a hybrid ViT (Dosovitskiy et al., ICLR 2021,
            section 3.1), our choice for small models, which have no pretrained ViT.
        stem_makes_patches (`bool`, *optional*, defaults to `True`):
            Whether the stem's maps become the patches. Otherwise the ViT keeps its own, maybe pretrained, patch kernel,
            and the stem adds detail to the pyramid. Only with `convolutional_stem`.
        pretrained_backbone (`str`, *optional*):
            Name of the pretrained ViT at the start of training, for the model's card.
        freeze_backbone (`bool`, *optional*, defaults to `True`):
            Whether the ViT is built without gradients. Adapters, head and a stem beside the ViT are always trained, and
            with more than three channels also the kernels that read the pixels.
        ignore_unlabelled_pixels (`bool`, *optional*, defaults to `False`):
            Whether the mask losses ignore pixels with the label 255. `False`, as in the original code, counts them as
            background of every class.
        semantic_weight (`float`, *optional*, defaults to 0.0):
            Weight of an additional pixel-wise cross-entropy of the class scores. Our choice for small models, which are
            trained for few steps; the published models do not use it.
        class_factors (`list[float]`, *optional*):
            A factor in (0, 1] for the score of each class; `None` for 1. A class that is often missed gets a larger
            factor than the others. Our choice, because sums of query scores are not calibrated on imagery that differs
            from the training data. `crossearth calibrate` chooses the factors. They do not change the loss.
        confidence_temperature (`float`, *optional*):
            Above 1 for an overconfident model, below 1 for an underconfident one; `None` for 1. It changes confidences
            and probabilities of maps, not their classes. `crossearth calibrate` chooses it.
        window_stride (`int`, *optional*, defaults to 341):
            Step between sliding windows in pixels; the window is `image_size`.
        ground_sampling_distance (`float`, *optional*):
            Meters per pixel of the training imagery, where it is known.
        class_colors (`list[list[int]]`, *optional*):
            Red, green and blue (0 to 255) of every class, in which maps show it. Default: colors of the package.
        mim_mask_ratio (`float`, *optional*, defaults to 0.7):
            Multi-Task Training: probability that a block of an image is hidden.
        mim_block_size (`int`, *optional*, defaults to 64):
            Multi-Task Training: side of a block in pixels.
        mim_weight (`float`, *optional*, defaults to 1.0):
            Multi-Task Training: weight of each reconstruction loss beside the segmentation loss.
        mim_hidden_only (`bool`, *optional*, defaults to `False`):
            Multi-Task Training: whether the reconstruction loss of a masked image uses only its hidden pixels, because
            copying visible pixels teaches nothing. Our choice.
        mim_extractor_channels (`list[int]`, *optional*):
            Multi-Task Training: widths of the extractor's first four convolutions; the fifth has the backbone's.
            Default: a sixteenth, an eighth, a quarter and a half of that.
        mim_reconstruction_width (`int`, *optional*):
            Multi-Task Training: channels of the reconstruction head. Default: a quarter of the backbone's width, 256
            for ViT-L.
    """

    model_type = "crossearth"
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="dinov2", init_kwargs=VIT_LARGE
        )
    }
    backbones_supported = ["dinov2", "dinov2_with_registers", "dinov3_vit"]
    # `Trainer` would gather these for every image, but masks of all queries are a hundred times larger than scores.
    keys_to_ignore_at_inference = [
        "loss_dict", "hidden_states", "attentions", "class_queries_logits", "masks_queries_logits",
    ]  # fmt: skip

    out_indices: list[int] | tuple[int, ...] = (7, 11, 15, 23)
    rein_num_tokens: int = 100
    rein_rank: int | None = 16
    rein_scale: float = 0.001
    rein_refines_features: bool = True
    link_queries: bool = True
    group_norm_groups: int = 32
    convolutional_stem: bool = False
    stem_makes_patches: bool = True
    pretrained_backbone: str | None = None
    freeze_backbone: bool = True
    ignore_unlabelled_pixels: bool = False
    semantic_weight: float = 0.0
    class_factors: list[float] | tuple[float, ...] | None = None
    confidence_temperature: float | None = None
    window_stride: int = 341
    ground_sampling_distance: float | None = None
    class_colors: list[list[int]] | None = None
    mim_mask_ratio: float = 0.7
    mim_block_size: int = 64
    mim_weight: float = 1.0
    mim_hidden_only: bool = False
    mim_extractor_channels: list[int] | tuple[int, ...] | None = None
    mim_reconstruction_width: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # Before transformers makes a list of all layers or names for all classes.
        check_head_sizes({name: getattr(self, name, None) for name in HEAD_LIMITS} | kwargs)
        backbone = self.backbone_config
        if isinstance(backbone, dict):
            check_backbone_sizes(backbone)
        if self.id2label is None:
            # the ISPRS classes, which most published checkpoints have
            kwargs.setdefault("num_labels", 6)
        self._check_names(kwargs)
        super().__post_init__(**kwargs)
        self.auto_map = {**(getattr(self, "auto_map", None) or {}), **AUTO_MAP}
        self._check()
        self._check_multitask()

    def validate(self) -> None:
        """Checks all fields; transformers calls it when a configuration is made, loaded or saved.

        Raises:
            ValueError: A field has the wrong type or is outside its range, or two fields contradict each other.
        """
        super().validate()
        self._check()
        self._check_multitask()

    def to_diff_dict(self) -> dict[str, Any]:
        """Fields that differ from the defaults; class names always, since two of them are transformers' default."""
        return super().to_diff_dict() | {"id2label": self.id2label, "label2id": self.label2id}

    @property
    def image_size(self) -> int:
        """Side of the crop that the model was built for, in pixels: the position table's size and the window."""
        return int(self.backbone_config.image_size)

    @image_size.setter
    def image_size(self, pixels: int) -> None:
        check_backbone_sizes({"image_size": pixels})
        if pixels % 16:
            raise ValueError(f"image_size {pixels} is not a multiple of 16; choose one that is")
        self.backbone_config.image_size = pixels

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
        check_channels(number)
        self.backbone_config.num_channels = number

    def for_backbone(self, vit: Any, num_blocks: int | None = None) -> "CrossEarthConfig":
        """This configuration with a ViT's sizes in `backbone_config`, with patches of 16 pixels and the same crops.

        If the depth changes, the pyramid uses the blocks at a third, a half, two thirds and the end, like ViT-L's.

        Args:
            vit: The configuration of a pretrained ViT.
            num_blocks: Number of its blocks to use, from the first; all if not given.

        Raises:
            ValueError: The ViT's family is not supported, it has fewer blocks, or a stem makes the patches.
        """
        check_family(vit)
        if self.convolutional_stem and self.stem_makes_patches:
            raise ValueError(
                "a stem that makes the patches leaves a pretrained ViT without its own; set stem_makes_patches=False, "
                "as the preset 'small' does, or convolutional_stem=False"
            )
        depth = vit.num_hidden_layers
        if num_blocks is not None:
            depth = num_blocks
        if not 4 <= depth <= vit.num_hidden_layers:
            raise ValueError(
                f"{depth} blocks are not 4 to {vit.num_hidden_layers}, the backbone's own number; choose one of these"
            )
        fields = self.to_dict()
        sizes = {"patch_size": 16, "image_size": self.image_size, "num_hidden_layers": depth}
        own = {name: value for name, value in vit.to_dict().items() if name not in _OF_A_WHOLE_VIT}
        fields["backbone_config"] = own | sizes
        if vit.model_type == "dinov2":
            fields["backbone_config"]["use_mask_token"] = False
        if depth != self.backbone_config.num_hidden_layers:
            third = max(2 * depth // 3 - 1, depth // 2)
            fields["out_indices"] = (depth // 3 - 1, depth // 2 - 1, third, depth - 1)
        return type(self)(**fields)

    def _check_names(self, given: dict[str, Any]) -> None:
        """Raises `TypeError` for a name that is all but a field; transformers takes others for notes of the user's."""
        known = {field.name for field in fields(self)}
        for name in given:
            near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            if near and not hasattr(type(self), name):
                raise TypeError(
                    f"CrossEarthConfig has no field '{name}'; did you mean '{near[0]}'?"
                )

    def _check(self) -> None:
        check_types(self)
        backbone = self.backbone_config
        check_family(backbone)
        check_channels(backbone.num_channels)
        if backbone.patch_size != 16:
            raise ValueError(
                f"patch_size {backbone.patch_size} is not 16; resample the patch kernel (`crossearth convert` does)"
            )
        if backbone.model_type == "dinov3_vit" and backbone.hidden_size % (
            4 * backbone.num_attention_heads
        ):
            raise ValueError(
                f"hidden_size {backbone.hidden_size} over {backbone.num_attention_heads} heads is no multiple of 4, as "
                "rotary positions need it; choose other heads"
            )
        if backbone.image_size % 16:
            raise ValueError(
                f"image_size {backbone.image_size} is not a multiple of 16; choose one that is"
            )
        if len(self.out_indices) != 4 or not all(
            0 <= i < backbone.num_hidden_layers for i in self.out_indices
        ):
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
            raise ValueError(
                f"feature_size {self.feature_size} must equal hidden_dim {self.hidden_dim}"
            )
        if self.feature_size % self.group_norm_groups:
            raise ValueError(
                f"group_norm_groups {self.group_norm_groups} does not divide feature_size {self.feature_size}"
            )
        if [*self.feature_strides, self.common_stride] != [4, 8, 16, 32, 4]:
            raise ValueError(
                f"feature_strides {self.feature_strides} and common_stride {self.common_stride} are not those of the "
                "pyramid; leave them at [4, 8, 16, 32] and 4"
            )
        self._check_read_out()
        if not all(isinstance(name, str) for name in self.id2label.values()):
            raise ValueError(f"id2label {self.id2label} must map ids to names")
        if type(self.window_stride) is not int or self.window_stride < 1:
            raise ValueError(
                f"window_stride {self.window_stride!r} must be a whole number of pixels, 1 or more"
            )
        meters = self.ground_sampling_distance
        if meters is not None and not (type(meters) in (int, float) and 0 < meters < math.inf):
            raise ValueError(
                f"ground_sampling_distance {meters!r} must be a positive number of meters, or None"
            )
        check_colors(self.class_colors)

    def _check_read_out(self) -> None:
        factors = self.class_factors
        if factors is not None and (
            len(factors) != self.num_labels or not all(0 < factor <= 1 for factor in factors)
        ):
            raise ValueError(
                f"class_factors {list(factors)} must be {self.num_labels} numbers above 0, at most 1"
            )
        temperature = self.confidence_temperature
        if temperature is not None and not (
            type(temperature) in (int, float) and 0 < temperature < math.inf
        ):
            raise ValueError(
                f"confidence_temperature {temperature!r} must be a positive number, or None"
            )

    def _check_multitask(self) -> None:
        if not 0 <= self.mim_mask_ratio <= 1:
            raise ValueError(
                f"mim_mask_ratio {self.mim_mask_ratio} is not a probability; choose one from 0 to 1, as 0.7"
            )
        channels, width = self.mim_extractor_channels, self.mim_reconstruction_width
        if channels is not None and (len(channels) != 4 or min(channels) < 1):
            raise ValueError(
                f"mim_extractor_channels {tuple(channels)} must be four positive widths, or None"
            )
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


def check_family(vit: Any) -> None:
    """Raises `ValueError` unless a configuration is that of a ViT which CrossEarth can stand on."""
    families = CrossEarthConfig.backbones_supported
    if vit.model_type not in families:
        raise ValueError(
            f"backbone '{vit.model_type}' is not supported; use one of {', '.join(families)}"
        )


__all__ = ["PRESETS", "CrossEarthConfig"]
