"""What all CrossEarth models have in common: initial weights, loading, and the frozen backbone."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.models.dinov2.modeling_dinov2 import Dinov2LayerScale
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersLayerScale,
)
from transformers.models.dinov3_vit.modeling_dinov3_vit import (
    DINOv3ViTLayerScale,
    DINOv3ViTRopePositionEmbedding,
)
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderLayer,
    Mask2FormerPreTrainedModel,
)

from .configuration_crossearth import CrossEarthConfig
from .cpu_kernels import use_cpu_linears, use_plain_linears
from .modeling_backbone import BACKBONES, EMBEDDINGS, checkpointed
from .modeling_head import CrossEarthPixelDecoder
from .modeling_rein import CrossEarthRein


class CrossEarthPreTrainedModel(Mask2FormerPreTrainedModel):
    """Initialization and loading, common to all CrossEarth models."""

    config_class = CrossEarthConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    accepts_loss_kwargs = (
        False  # or `Trainer` would take `**targets` for a place to pass its own numbers
    )
    _no_split_modules = [
        *(part.__name__ for pair in BACKBONES.values() for part in pair),
        "EfficientNetLite", "CrossEarthRein", "CrossEarthPixelDecoder", "CrossEarthTransformerModule",
        "CrossEarthMultiTask",
    ]  # fmt: skip

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
        """The last step of construction, which transformers requires of every model."""
        use_cpu_linears(self)
        super().post_init()

    @property
    def input_convolutions(self) -> list[nn.Conv2d]:
        """The layers that read the pixels: the patch kernel, the stem's first convolution, or both."""
        return self.base_model.backbone.input_convolutions

    def freeze_backbone(self) -> None:
        """Stops gradients of the ViT's parameters; they still pass through it to the adapters of earlier blocks.

        With more than three channels the kernels that read the pixels are trained all the same (our choice): no
        pretrained ones know the other bands, and what these do not let in nothing behind them can learn. A stem beside
        the ViT is trained too: it is no part of the foundation model.
        """
        backbone = self.base_model.backbone
        backbone.requires_grad_(False)
        if self.config.convolutional_stem and not self.config.stem_makes_patches:
            backbone.stem.requires_grad_(True)
        if self.config.num_channels > 3:
            for convolution in self.input_convolutions:
                convolution.requires_grad_(True)
        self.config.freeze_backbone = True

    def __setattr__(self, name: str, value: Any) -> None:
        # PyTorch's eager quantization marks a model so before it looks for linear layers by their exact type: without
        # this it would find none and say nothing.
        if name == "qconfig":
            use_plain_linears(self)
        super().__setattr__(name, value)

    @property
    def dtype(self) -> torch.dtype:
        """The widest type of the weights: a saved folder names it, and loads in it, so that no part loses bits."""
        types = {
            parameter.dtype for parameter in self.parameters() if parameter.is_floating_point()
        }
        return max(types, key=lambda each: each.itemsize, default=torch.float32)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        **options: Any,
    ) -> None:
        """As in transformers, with all tensors of a layer's call in sight: `use_reentrant=True` needs that."""
        super()._set_gradient_checkpointing(
            enable, partial(checkpointed, gradient_checkpointing_func), **options
        )

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # transformers skips modules without direct parameters when a class lives outside its package: deformable
        # attention would silently lose the ring of sampling offsets that it starts from.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossEarthRein):
            self._init_rein(module)
        elif isinstance(module, EMBEDDINGS):
            for parameter in module.parameters(recurse=False):
                init.trunc_normal_(parameter, std=self.config.backbone_config.initializer_range)
        elif isinstance(
            module, Dinov2LayerScale | Dinov2WithRegistersLayerScale | DINOv3ViTLayerScale
        ):
            init.constant_(module.lambda1, self.config.backbone_config.layerscale_value)
        elif isinstance(module, DINOv3ViTRopePositionEmbedding):
            # saved nowhere
            init.copy_(module.inv_freq, DINOv3ViTRopePositionEmbedding(module.config).inv_freq)
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


__all__ = ["CrossEarthPreTrainedModel"]
