"""CrossEarth (Gong et al., IEEE TPAMI 2026): a frozen DINOv2, Rein adapters and a Mask2Former head."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings, Dinov2Layer, Dinov2LayerScale
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersEmbeddings,
    Dinov2WithRegistersLayer,
    Dinov2WithRegistersLayerScale,
)
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderLayer,
    Mask2FormerPreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .configuration_crossearth import CrossEarthConfig
from .cpu_kernels import use_cpu_linears
from .image_processing_crossearth import semantic_scores
from .loss_crossearth import CrossEarthLoss
from .modeling_efficientnet_lite import EfficientNetLite
from .modeling_head import (
    PYRAMID_SCALES,
    CrossEarthPixelDecoder,
    CrossEarthTransformerModule,
    decoded_apart,
    images_by_size,
    padded,
    resample,
)
from .modeling_rein import CrossEarthRein


@dataclass
class CrossEarthModelOutput(ModelOutput):
    """Output of [`CrossEarthModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`):
            Class, register and patch tokens after the last block and its adapter; no final norm.
        feature_maps (`tuple` of four `torch.FloatTensor` of shape `(batch_size, hidden_size, height, width)`):
            Pyramid at strides 4, 8, 16 and 32.
        query_position_embeddings (`torch.FloatTensor` of shape `(num_queries, hidden_dim)`, *optional*):
            Queries computed from the Rein tokens, the same for every image; `None` without `link_queries`.
        hidden_states (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_hidden_states=True`):
            Embeddings, then the tokens after each block and its adapter.
    """

    last_hidden_state: Tensor | None = None
    feature_maps: tuple[Tensor, ...] | None = None
    query_position_embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class CrossEarthSegmentationOutput(ModelOutput):
    """Output of [`CrossEarthForSemanticSegmentation`].

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Sum of `loss_dict`.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height / 4, width / 4)`):
            A preview for tools that expect it: scores in [0, num_queries] at mask resolution, NOT log-odds (no
            softmax belongs on top). Label maps come from the processor's `post_process_semantic_segmentation`, which
            resizes masks before the sigmoid.
        class_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_labels + 1)`):
            Class logits of every query; the last class is "no object".
        masks_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, height / 4, width / 4)`):
            Mask logits of every query.
        loss_dict (`dict`, *optional*, returned with `labels`):
            Weighted class, mask and dice loss of every decoder output, see [`CrossEarthLoss`].
        hidden_states (`tuple` of `torch.FloatTensor`, *optional*, returned with `output_hidden_states=True`):
            Those of [`CrossEarthModel`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    class_queries_logits: Tensor | None = None
    masks_queries_logits: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class CrossEarthPositions:
    """Mixin for DINOv2's embeddings: the position table is resampled as in the original, by scale factor."""

    position_embeddings: nn.Parameter
    patch_size: int

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Position table (1, 1 + h*w, D) for an image of `height` x `width` pixels.

        The 0.1 that DINOv2 adds against rounding enters the sampling coordinates: interpolating to a target size
        gives other numbers.
        """
        table = self.position_embeddings  # (1, 1 + N, D)
        side = math.isqrt(table.shape[1] - 1)
        if (height, width) == (side * self.patch_size, side * self.patch_size):
            return table
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()  # (1, D, side, side)
        scale = tuple((pixels // self.patch_size + 0.1) / side for pixels in (height, width))
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class CrossEarthDinov2Embeddings(CrossEarthPositions, Dinov2Embeddings):
    """Class token, patches and positions of DINOv2."""


class CrossEarthDinov2WithRegistersEmbeddings(CrossEarthPositions, Dinov2WithRegistersEmbeddings):
    """Class token, registers, patches and positions of DINOv2 with registers."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.mask_token = None  # never used: a parameter without gradient would stop distributed training


# A family joins by naming its embeddings and its layer; DINOv3 needs its rotary positions handed to each layer too.
BACKBONES: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "dinov2": (CrossEarthDinov2Embeddings, Dinov2Layer),
    "dinov2_with_registers": (CrossEarthDinov2WithRegistersEmbeddings, Dinov2WithRegistersLayer),
}


class CrossEarthBackbone(nn.Module):
    """The ViT's parameters; [`CrossEarthModel`] walks its layers, since an adapter follows each of them."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        embeddings, layer = BACKBONES[config.backbone_config.model_type]
        if config.convolutional_stem:
            self.stem = EfficientNetLite(config.num_channels)
            # The patches are the pixels of the stem's maps at strides 16 and 32, one on top of the other.
            patches = copy.deepcopy(config.backbone_config)
            channels, side = sum(self.stem.widths[-2:]), config.image_size // 16
            patches.update({"num_channels": channels, "patch_size": 1, "image_size": side})
            self.embeddings = embeddings(patches)
        else:
            self.embeddings = embeddings(config.backbone_config)
        self.layer = nn.ModuleList(
            layer(config.backbone_config) for _ in range(config.backbone_config.num_hidden_layers)
        )
        # Class token and registers, which come before the patches and bypass the adapters.
        self.num_prefix_tokens = 1 + getattr(config.backbone_config, "num_register_tokens", 0)

    def embed(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens (B, prefix + N, D) of a batch and the stem's maps at strides 4 to 32; none without a stem."""
        if not hasattr(self, "stem"):
            return self.embeddings(pixel_values), ()
        maps = self.stem(pixel_values)
        return self.embeddings(self.patch_features(maps)), maps

    @staticmethod
    def patch_features(maps: tuple[Tensor, ...]) -> Tensor:
        """(B, C, h, w): the stem's maps at strides 16 and 32, one on top of the other at stride 16."""
        coarsest = F.interpolate(maps[3], size=maps[2].shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([maps[2], coarsest], dim=1)


class CrossEarthPreTrainedModel(Mask2FormerPreTrainedModel):
    """Initialization and loading, common to all CrossEarth models."""

    config_class = CrossEarthConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["Dinov2Layer", "Dinov2WithRegistersLayer", "Mask2FormerMaskedAttentionDecoderLayer"]

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; `config.freeze_backbone` holds for loaded models too."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded
        if isinstance(loaded, tuple):  # with output_loading_info=True
            model = loaded[0]
        if model.config.freeze_backbone:
            model.freeze_backbone()
        return loaded

    def post_init(self) -> None:
        """What transformers asks every model to call at the end of its construction."""
        use_cpu_linears(self)
        super().post_init()

    @property
    def input_convolution(self) -> nn.Conv2d:
        """What reads the pixels: the patch kernel, or the stem's first convolution."""
        backbone = self.base_model.backbone
        if self.config.convolutional_stem:
            return backbone.stem.first
        return backbone.embeddings.patch_embeddings.projection

    def freeze_backbone(self) -> None:
        """Stops gradients of the ViT's parameters; they still pass through it to the adapters of earlier blocks.

        With more than three channels the kernels that read the pixels are trained all the same (our choice): no
        pretrained ones know the other bands, and what these do not let in nothing behind them can learn.
        """
        self.base_model.backbone.requires_grad_(False)
        self.input_convolution.requires_grad_(self.config.num_channels > 3)
        self.config.freeze_backbone = True

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # transformers skips modules without direct parameters when a class lives outside its package: deformable
        # attention would silently lose the ring of sampling offsets that it starts from.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossEarthRein):
            self._init_rein(module)
        elif isinstance(module, CrossEarthPositions):
            for parameter in module.parameters(recurse=False):
                init.trunc_normal_(parameter, std=self.config.backbone_config.initializer_range)
        elif isinstance(module, Dinov2LayerScale | Dinov2WithRegistersLayerScale):
            init.constant_(module.lambda1, self.config.backbone_config.layerscale_value)
        elif isinstance(module, Mask2FormerPixelDecoderEncoderLayer):
            init.xavier_uniform_(module.fc1.weight)
            init.xavier_uniform_(module.fc2.weight)
        elif isinstance(module, CrossEarthPixelDecoder):
            init.normal_(module.level_embed)  # zeros in transformers 5.20
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)

    def _init_rein(self, module: CrossEarthRein) -> None:
        width = self.config.backbone_config.hidden_size
        if module.rank is None:
            bound = math.sqrt(6 / (module.fan_in + width))
            init.uniform_(module.tokens, -bound, bound)
        else:
            bound = math.sqrt(6 / (module.fan_in + math.sqrt(width * module.rank)))
            init.uniform_(module.tokens_a, -bound, bound)
            init.uniform_(module.tokens_b, -bound, bound)
        init.constant_(module.scale, module.initial_scale)
        for linear in (module.token2feat, module.delta_f):
            init.kaiming_uniform_(linear.weight, a=math.sqrt(5))


class CrossEarthModel(CrossEarthPreTrainedModel):
    """Backbone and adapters: a feature pyramid and the queries of the head.

    Source: CrossEarth, section III; Rein, Wei et al., CVPR 2024.
    """

    _keys_to_ignore_on_load_unexpected = [r"^multitask\."]  # what Multi-Task Training alone needs

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        config.backbone_config._attn_implementation = config._attn_implementation  # its layers read it from there
        self.backbone = CrossEarthBackbone(config)
        self.adapter = CrossEarthRein(config)
        if config.convolutional_stem:
            widths, width = self.backbone.stem.widths, config.backbone_config.hidden_size
            self.laterals = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels in widths)
        if config.freeze_backbone:
            self.freeze_backbone()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """What turns patches into tokens; accelerate's FSDP asks for it."""
        return self.backbone.embeddings.get_submodule("patch_embeddings")

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        injector: Callable[[Tensor, int], Tensor] | None = None,
        keep_patch_grid: bool = False,
    ) -> CrossEarthModelOutput:
        """Features of a batch.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16. Shorter sides than
                `config.least_side` are padded to it: tokens and maps are those of the padded images.
            output_hidden_states: also return the tokens after every block.
            return_dict: `False` for a plain tuple.
            injector: maps the patches (B, N, D) after a pyramid block and its adapter, and the level 0 to 3, to those
                that go on in their place; Multi-Task Training uses it.
            keep_patch_grid: leave the feature maps on the patch grid, unless a stem adds its own: for a caller that
                projects them before it resamples.

        Raises:
            ValueError: H or W is not a multiple of 16, or the images have another number of channels than the model.
        """
        channels, height, width = pixel_values.shape[1:]
        if channels != self.config.num_channels:
            raise ValueError(
                f"the images have {channels} channels and the model takes {self.config.num_channels}; choose as many "
                "bands, or extend the model (crossearth_hf.training.adaptation.extend_channels)"
            )
        for name, pixels in (("height", height), ("width", width)):
            if pixels % 16:
                remedy = f"pad to {math.ceil(pixels / 16) * 16} or let the processor do it"
                raise ValueError(f"{name} {pixels} is not a multiple of 16; {remedy}")
        pixel_values = padded(pixel_values, self.config.least_side)
        if output_hidden_states is None:
            collect = self.config.output_hidden_states
        else:
            collect = output_hidden_states
        prefix = self.backbone.num_prefix_tokens
        tokens = self.adapter.all_tokens()  # (L, T, D)
        hidden, details = self.backbone.embed(pixel_values)  # (B, prefix + N, D)
        patch_grid = [side // 16 for side in pixel_values.shape[-2:]]
        states, maps = [hidden], {}
        for index, layer in enumerate(self.backbone.layer):
            hidden = layer(hidden)
            patches = hidden[:, prefix:]  # (B, N, D)
            if self.config.rein_refines_features:
                patches = self.adapter(patches, tokens[index])
            if injector is not None and index in self.config.out_indices:
                patches = injector(patches, self.config.out_indices.index(index))
            hidden = torch.cat([hidden[:, :prefix], patches], dim=1)
            if index in self.config.out_indices:
                maps[index] = patches.transpose(1, 2).unflatten(2, patch_grid)  # (B, D, h, w)
            if collect:
                states.append(hidden)
        pyramid = [maps[index] for index in self.config.out_indices]
        if details or not keep_patch_grid:
            pyramid = [resample(level, scale) for level, scale in zip(pyramid, PYRAMID_SCALES, strict=True)]
        for level, detail in enumerate(details):
            pyramid[level] = pyramid[level] + self.laterals[level](detail)
        return CrossEarthModelOutput(
            last_hidden_state=hidden,
            feature_maps=tuple(pyramid),
            query_position_embeddings=self.adapter.queries(tokens) if self.config.link_queries else None,
            hidden_states=tuple(states) if collect else None,
        )


class CrossEarthForSemanticSegmentation(CrossEarthPreTrainedModel):
    """CrossEarth with its Mask2Former head (Cheng et al., CVPR 2022)."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        self.model = CrossEarthModel(config)
        self.pixel_decoder = CrossEarthPixelDecoder(config)
        self.transformer_module = CrossEarthTransformerModule(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.criterion = CrossEarthLoss(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        seeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        pixel_mask: Tensor | None = None,
    ) -> CrossEarthSegmentationOutput:
        """Segments a batch.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16.
            labels: (B, H, W) int64 class ids, 255 ignored; with them the loss is computed.
            seeds: (B,) int64 for the loss's random points, see [`CrossEarthLoss`].
            output_hidden_states, return_dict: As in [`CrossEarthModel`].
            pixel_mask: (B, H, W), 0 where an image is padded to the size of a larger one, as the image processor says.
                Images of each size then pass the model apart, so that none depends on another.

        Raises:
            ValueError: as [`CrossEarthModel`], or a label is neither a class nor 255; hidden states asked for of images
                of several sizes.
        """
        groups = images_by_size(pixel_mask, *pixel_values.shape[-2:])
        if groups and output_hidden_states:
            raise ValueError("images of several sizes have hidden states of as many; pass those of one size alone")
        decode = partial(self._decode, only_last=labels is None, output_hidden_states=output_hidden_states)
        decoded = (*decoded_apart(decode, pixel_values, groups), None) if groups else decode(pixel_values)
        classes, masks, hidden_states = decoded
        loss_dict = None
        if labels is not None:
            loss_dict = self.criterion(classes, masks, labels, seeds)
        return CrossEarthSegmentationOutput(
            loss=None if loss_dict is None else torch.stack(list(loss_dict.values())).sum(),
            logits=semantic_scores(classes[-1], masks[-1], masks[-1].shape[-2:]),
            class_queries_logits=classes[-1],
            masks_queries_logits=masks[-1],
            loss_dict=loss_dict,
            hidden_states=hidden_states,
        )

    def _decode(self, pixel_values: Tensor, only_last: bool, output_hidden_states: bool | None) -> tuple[Any, ...]:
        """Class logits (B, Q, K+1) and mask logits (B, Q, H/4, W/4) of the decoder's outputs, and hidden states."""
        features = self.model(
            pixel_values, output_hidden_states=output_hidden_states, return_dict=True, keep_patch_grid=True
        )
        pixels, positions = self.pixel_decoder(features.feature_maps), features.query_position_embeddings
        queries, masks = self.transformer_module(
            pixels.multi_scale_features, pixels.mask_features, positions, only_last=only_last
        )
        height, width = (side // 4 for side in pixel_values.shape[-2:])  # less than the masks' where the model padded
        classes = [self.class_predictor(query).transpose(0, 1) for query in queries]
        return classes, [mask[..., :height, :width] for mask in masks], features.hidden_states


__all__ = ["CrossEarthForSemanticSegmentation", "CrossEarthModel", "CrossEarthPreTrainedModel"]
