"""CrossEarth (Gong et al., IEEE TPAMI 2026): a frozen DINOv2 or DINOv3, Rein adapters and a Mask2Former head."""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple

from .configuration_crossearth import CrossEarthConfig
from .loss_crossearth import CrossEarthLoss, CrossEarthTargets, label_maps
from .modeling_backbone import (
    AttentionWeights,
    CrossEarthBackbone,
    backbone_state,
    load_vit,
)
from .modeling_head import (
    PYRAMID_SCALES,
    CrossEarthPixelDecoder,
    CrossEarthTransformerModule,
    decoded_apart,
    images_by_size,
    padded,
    resample,
    weighted_classes,
)
from .modeling_outputs import CrossEarthModelOutput, CrossEarthSegmentationOutput
from .modeling_pretrained import CrossEarthPreTrainedModel
from .modeling_rein import CrossEarthRein
from .semantic_scores import semantic_scores


class CrossEarthModel(CrossEarthPreTrainedModel):
    """Backbone and adapters: a feature pyramid and the queries of the head.

    Source: CrossEarth, section III; Rein, Wei et al., CVPR 2024.
    """

    _keys_to_ignore_on_load_unexpected = [r"^multitask\."]  # what Multi-Task Training alone needs

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        # its layers read it from there
        config.backbone_config._attn_implementation = config._attn_implementation
        self.backbone = CrossEarthBackbone(config)
        self.adapter = CrossEarthRein(config)
        if config.convolutional_stem:
            widths, width = self.backbone.stem.widths, config.backbone_config.hidden_size
            self.laterals = nn.ModuleList(
                nn.Conv2d(channels, width, kernel_size=1) for channels in widths
            )
        if config.freeze_backbone:
            self.freeze_backbone()
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The layer that turns patches into tokens; accelerate's FSDP needs it."""
        return self.backbone.embeddings.get_submodule("patch_embeddings")

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        injector: Callable[[Tensor, int], Tensor] | None = None,
        keep_patch_grid: bool = False,
        output_attentions: bool | None = None,
    ) -> CrossEarthModelOutput:
        """Features of a batch.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16. Shorter sides than
                `config.least_side` are padded to it: tokens and maps are those of the padded images.
            output_hidden_states: Also return the tokens after every block.
            return_dict: `False` for a plain tuple.
            injector: Replaces the patches (B, N, D) after a pyramid block and its adapter; it also takes the level, 0
                to 3. Multi-Task Training uses it.
            keep_patch_grid: Leave the feature maps on the patch grid, unless a stem adds its own maps.
            output_attentions: Also return the attention weights of every block.

        Raises:
            ValueError: H or W is not a multiple of 16, the number of channels is wrong, or a fused attention has no
                attention weights.
        """
        self._check_pixels(pixel_values)
        pixel_values = padded(
            pixel_values.to(self.input_convolutions[0].weight.dtype), self.config.least_side
        )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        weights = AttentionWeights(self.backbone.layer, bool(output_attentions))
        prefix = self.backbone.num_prefix_tokens
        tokens = self.adapter()  # (L, T, D)
        hidden, details = self.backbone.embed(pixel_values)  # (B, prefix + N, D)
        beside = self.backbone.layer_inputs(pixel_values)
        patch_grid = [side // 16 for side in pixel_values.shape[-2:]]
        states, maps = [hidden], {}
        for index, layer in enumerate(self.backbone.layer):
            with weights:
                hidden = layer(hidden, **beside)
            patches = hidden[:, prefix:]  # (B, N, D)
            if self.config.rein_refines_features:
                patches = self.adapter(patches, tokens[index])
            if injector is not None and index in self.config.out_indices:
                patches = injector(patches, self.config.out_indices.index(index))
            hidden = torch.cat([hidden[:, :prefix], patches.to(hidden.device)], dim=1)
            if index in self.config.out_indices:
                maps[index] = patches.transpose(1, 2).unflatten(2, patch_grid)  # (B, D, h, w)
            if output_hidden_states:
                states.append(hidden)
        pyramid = [maps[index] for index in self.config.out_indices]
        if details or not keep_patch_grid:
            pyramid = [
                resample(level, scale) for level, scale in zip(pyramid, PYRAMID_SCALES, strict=True)
            ]
        for level, detail in enumerate(details):
            pyramid[level] = pyramid[level] + self.laterals[level](detail).to(pyramid[level].device)
        queries = collected = None
        if self.config.link_queries:
            queries = self.adapter.queries(tokens)
        if output_hidden_states:
            collected = tuple(states)
        return CrossEarthModelOutput(
            last_hidden_state=hidden,
            feature_maps=tuple(pyramid),
            query_position_embeddings=queries,
            hidden_states=collected,
            attentions=weights(),
        )

    def _check_pixels(self, pixel_values: Tensor) -> None:
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
        output_attentions: bool | None = None,
        **targets: Unpack[CrossEarthTargets],
    ) -> CrossEarthSegmentationOutput:
        """Segments a batch.

        Args:
            pixel_values: (B, num_channels, H, W) normalized; H and W multiples of 16.
            labels: (B, H, W) class ids, 255 and -100 ignored; with them the loss is computed.
            seeds: (B,) int64 for the loss's random points, see [`CrossEarthLoss`].
            output_hidden_states, output_attentions, return_dict: As in [`CrossEarthModel`].
            pixel_mask: (B, H, W), 0 where an image is padded to the size of a larger one, as the image processor says.
                Images of each size then pass the model apart, so that none depends on another.
            **targets: `mask_labels` and `class_labels` in place of `labels`, see `label_maps`; `unlabeled_classes`
                (B, num_labels) bool, for partly labeled images, see [`CrossEarthLoss`].

        Raises:
            ValueError: As in [`CrossEarthModel`] and `label_maps`. Or a label is neither a class nor 255, or inner
                states are asked for although the images have several sizes.
        """
        labels, unlabeled_classes = self._targets(labels, targets)
        groups = images_by_size(pixel_mask, *pixel_values.shape[-2:])
        inner: dict[str, Any] = {
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        if groups and any(inner.values()):
            raise ValueError(
                "images of several sizes have hidden states of as many; pass those of one size alone"
            )
        decode: Callable[[Tensor], tuple[Any, ...]] = partial(
            self._decode, only_last=labels is None, **inner
        )
        states: dict[str, Any] = {}
        if groups:
            classes, masks = decoded_apart(decode, pixel_values, groups)
        else:
            classes, masks, states = decode(pixel_values)
        loss = loss_dict = None
        if labels is None and self.config.class_factors is not None:
            classes = [weighted_classes(classes[-1], self.config.class_factors)]
        if labels is not None:
            loss_dict = self.criterion(classes, masks, labels, seeds, unlabeled_classes)
            loss = torch.stack(list(loss_dict.values())).sum()
        height, width = masks[-1].shape[-2:]
        return CrossEarthSegmentationOutput(
            loss=loss,
            logits=semantic_scores(classes[-1], masks[-1], (height, width)),
            class_queries_logits=classes[-1],
            masks_queries_logits=masks[-1],
            loss_dict=loss_dict,
            **states,
        )

    def _targets(
        self, labels: Tensor | None, targets: Mapping[str, Any]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Label maps and unlabeled classes; raises `TypeError` for a keyword that is neither."""
        if unknown := targets.keys() - CrossEarthTargets.__annotations__.keys():
            raise TypeError(
                f"{type(self).__name__}.forward() got an unexpected keyword argument '{min(unknown)}'"
            )
        masks, classes = targets.get("mask_labels"), targets.get("class_labels")
        return label_maps(labels, masks, classes, self.config.ignore_value), targets.get(
            "unlabeled_classes"
        )

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike[str] | PreTrainedModel,
        config: CrossEarthConfig | None = None,
        num_blocks: int | None = None,
        **loading: Any,
    ) -> Any:
        """A model with the weights of a pretrained ViT; adapters and head are new.

        Args:
            backbone: Folder or Hub id of a DINOv2 (with or without registers) or DINOv3 ViT in transformers' layout; or
                such a model. `conversion.read_backbone` makes one of a file in DINOv2's original layout.
            config: Adapters, head and crop. Its `backbone_config` gives way to the ViT's own, see
                [`CrossEarthConfig.for_backbone`]. Default: the published head.
            num_blocks: Blocks of the ViT that are used, from the first; all if not given.
            **loading: Of the backbone's `from_pretrained`, such as `revision`.

        Raises:
            ValueError: The ViT is of another family or has fewer blocks, or its weights do not fit their configuration.
        """
        vit: Any = backbone
        if not isinstance(backbone, PreTrainedModel):
            vit = load_vit(backbone, **loading)
        config = (config or CrossEarthConfig()).for_backbone(vit.config, num_blocks)
        name = str(vit.name_or_path)
        if os.path.exists(name):
            name = os.path.basename(os.path.abspath(name))
        config.pretrained_backbone = name or vit.config.model_type
        model = cls(config)
        state = backbone_state(vit.state_dict(), config)
        missing, unexpected = model.base_model.backbone.load_state_dict(state, strict=False)
        unfilled = [key for key in missing if not key.startswith("stem.")]
        if unfilled or unexpected:
            raise ValueError(
                f"{name} does not fit its own configuration at {[*unfilled, *unexpected][:3]}"
            )
        return model

    def _decode(self, pixel_values: Tensor, only_last: bool, **inner: Any) -> tuple[Any, ...]:
        """Class logits (B, Q, K+1) and mask logits (B, Q, H/4, W/4) of the decoder's outputs, and inner states."""
        features = self.model(pixel_values, return_dict=True, keep_patch_grid=True, **inner)
        pixels, positions = (
            self.pixel_decoder(features.feature_maps),
            features.query_position_embeddings,
        )
        queries, masks = self.transformer_module(
            pixels.multi_scale_features, pixels.mask_features, positions, only_last=only_last
        )
        # less than the masks' where the model padded
        height, width = (side // 4 for side in pixel_values.shape[-2:])
        classes = [
            self.class_predictor(query).transpose(0, 1).to(masks[-1].device) for query in queries
        ]
        states = {"hidden_states": features.hidden_states, "attentions": features.attentions}
        return classes, [mask[..., :height, :width] for mask in masks], states


__all__ = ["CrossEarthForSemanticSegmentation", "CrossEarthModel", "CrossEarthPreTrainedModel"]
