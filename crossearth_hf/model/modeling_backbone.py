"""The ViT below CrossEarth: DINOv2, with or without registers, or DINOv3; the convolutional stem in it or beside it."""

import copy
import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_unflatten
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings, Dinov2Layer
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersEmbeddings,
    Dinov2WithRegistersLayer,
)
from transformers.models.dinov3_vit.modeling_dinov3_vit import (
    DINOv3ViTEmbeddings,
    DINOv3ViTLayer,
    DINOv3ViTRopePositionEmbedding,
)

from .configuration_crossearth import CrossEarthConfig, check_family
from .free_sizes import antialiased_positions, is_exporting, scaled_positions
from .modeling_efficientnet_lite import EfficientNetLite


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
        rows, columns = height // self.patch_size, width // self.patch_size
        if is_exporting():
            return torch.cat(
                [table[:, :1], scaled_positions(table[:, 1:], side, rows, columns)], dim=1
            )
        if (height, width) == (side * self.patch_size, side * self.patch_size):
            return table
        # (1, D, side, side)
        grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2).float()
        scale = tuple((cells + 0.1) / side for cells in (rows, columns))
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


class CrossEarthDinov2Embeddings(CrossEarthPositions, Dinov2Embeddings):
    """Class token, patches and positions of DINOv2."""


class CrossEarthDinov2WithRegistersEmbeddings(Dinov2WithRegistersEmbeddings):
    """Class token, registers, patches and positions of DINOv2 with registers.

    Its authors resample this position table to a size, with antialiasing; transformers does the same.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.mask_token = (
            None  # never used: a parameter without gradient would stop distributed training
        )

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Position table (1, 1 + h*w, D) for an image of `height` x `width` pixels."""
        if not is_exporting():
            return super().interpolate_pos_encoding(embeddings, height, width)
        table = self.position_embeddings  # (1, 1 + N, D)
        side, patch = math.isqrt(table.shape[1] - 1), self.config.patch_size
        resized = antialiased_positions(table[:, 1:], side, height // patch, width // patch)
        return torch.cat([table[:, :1], resized], dim=1)


class CrossEarthDINOv3Embeddings(DINOv3ViTEmbeddings):
    """Class token, registers and patches of DINOv3, whose positions come with the attention."""

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.mask_token = None  # never used, see above


# A family joins by naming its embeddings and its layer.
BACKBONES: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "dinov2": (CrossEarthDinov2Embeddings, Dinov2Layer),
    "dinov2_with_registers": (CrossEarthDinov2WithRegistersEmbeddings, Dinov2WithRegistersLayer),
    "dinov3_vit": (CrossEarthDINOv3Embeddings, DINOv3ViTLayer),
}
EMBEDDINGS = tuple(embeddings for embeddings, _ in BACKBONES.values())
_STILL = {"pos_embed_shift": None, "pos_embed_jitter": None, "pos_embed_rescale": None}


class CrossEarthBackbone(nn.Module):
    """The ViT's parameters; [`CrossEarthModel`] walks its layers, since an adapter follows each of them."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        embeddings, layer = BACKBONES[config.backbone_config.model_type]
        self.stem_makes_patches = config.stem_makes_patches
        if config.convolutional_stem:
            self.stem = EfficientNetLite(config.num_channels)
        if config.convolutional_stem and config.stem_makes_patches:
            # The patches are the pixels of the stem's maps at strides 16 and 32, one on top of the other.
            patches = copy.deepcopy(config.backbone_config)
            channels, side = sum(self.stem.widths[-2:]), config.image_size // 16
            patches.update({"num_channels": channels, "patch_size": 1, "image_size": side})
            self.embeddings: Any = embeddings(patches)
        else:
            self.embeddings = embeddings(config.backbone_config)
        self.layer = nn.ModuleList(
            layer(config.backbone_config) for _ in range(config.backbone_config.num_hidden_layers)
        )
        if config.backbone_config.model_type == "dinov3_vit":
            # DINOv3's own training moves the positions at random; here they never move. Our choice, because a crop
            # depends only on its seed, and its scale is already random.
            still = copy.deepcopy(config.backbone_config)
            still.update(_STILL)
            self.rotary = DINOv3ViTRopePositionEmbedding(still)
        # Class token and registers, which come before the patches and bypass the adapters.
        self.num_prefix_tokens = 1 + getattr(config.backbone_config, "num_register_tokens", 0)

    def embed(self, pixel_values: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Tokens (B, prefix + N, D) of a batch and the stem's maps at strides 4 to 32; none without a stem."""
        if not hasattr(self, "stem"):
            return self.embeddings(pixel_values), ()
        maps = self.stem(pixel_values)
        if not self.stem_makes_patches:
            return self.embeddings(pixel_values), maps
        return self.embeddings(self.patch_features(maps)), maps

    def layer_inputs(self, pixel_values: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs of every layer beside the tokens: for DINOv3 the rotary pair (cos, sin), (N, D / heads) each."""
        if not hasattr(self, "rotary"):
            return {}
        precision = self.embeddings.cls_token.dtype
        return {"position_embeddings": self.rotary(pixel_values.to(precision))}

    @property
    def input_convolutions(self) -> list[nn.Conv2d]:
        """The layers that read the pixels: the patch kernel, the stem's first convolution, or both."""
        found: list[nn.Conv2d] = []
        if hasattr(self, "stem"):
            found.append(self.stem.first)
        if not (hasattr(self, "stem") and self.stem_makes_patches):
            patches = self.embeddings.patch_embeddings
            # that of DINOv3 is a convolution itself
            found.append(getattr(patches, "projection", patches))
        return found

    @staticmethod
    def patch_features(maps: tuple[Tensor, ...]) -> Tensor:
        """(B, C, h, w): the stem's maps at strides 16 and 32, one on top of the other at stride 16."""
        coarsest = F.interpolate(
            maps[3], size=maps[2].shape[-2:], mode="bilinear", align_corners=False
        )
        return torch.cat([maps[2], coarsest], dim=1)


def load_vit(backbone: str | os.PathLike[str], **loading: Any) -> PreTrainedModel:
    """A pretrained ViT of a supported family, with every tensor, in float32.

    Args:
        backbone: Folder or Hub id in transformers' layout.
        **loading: Of `from_pretrained`, such as `revision`.

    Raises:
        ValueError: The ViT is of another family, or its weights do not fit its configuration.
    """
    config = AutoConfig.from_pretrained(backbone, **loading)
    check_family(config)
    vit, info = AutoModel.from_pretrained(
        backbone,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, in a sentence of ours
        **loading,
    )
    unfilled = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    if unfilled := [name for name in unfilled if not name.endswith("mask_token")]:
        raise ValueError(
            f"{backbone} does not fit its own configuration at {unfilled[:3]}; download it again"
        )
    return vit


_PATCH_KERNELS = {
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
}
_POSITIONS = "embeddings.position_embeddings"


def checkpointed(run: Callable[..., Any], layer: Callable[..., Any], *arguments: Any) -> Any:
    """Calls `layer` through the checkpointing function `run` with every tensor as a separate argument.

    Reentrant checkpointing sees only gradients of arguments, not of tensors in keywords or lists. A call without any
    tensor is not checkpointed.
    """
    keywords: dict[str, Any] = {}
    if isinstance(layer, partial):
        keywords = layer.keywords
    leaves, structure = tree_flatten((arguments, keywords))
    if not any(isinstance(leaf, Tensor) for leaf in leaves):
        return layer(*arguments)

    def again(*flat: Any) -> Any:
        inputs, own_keywords = tree_unflatten(list(flat), structure)
        return layer(*inputs, **own_keywords)  # in place of those that `layer` holds

    return run(again, *leaves)


class AttentionWeights:
    """A context that keeps the attention weights of layers if they are wanted."""

    def __init__(self, layers: nn.ModuleList, wanted: bool) -> None:
        self.layers, self.wanted = layers, wanted
        self.found: list[Tensor] = []

    def __enter__(self) -> "AttentionWeights":
        self.handles = []
        if self.wanted:
            modules = [layer.get_submodule("attention") for layer in self.layers]
            self.handles = [module.register_forward_hook(self._keep) for module in modules]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _keep(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if outputs[1] is None:
            raise ValueError(
                "fused attention has no weights to give; load the model with attn_implementation='eager'"
            )
        self.found.append(outputs[1])

    def __call__(self) -> tuple[Tensor, ...] | None:
        if not self.wanted:
            return None
        return tuple(self.found)


def backbone_state(vit: Mapping[str, Tensor], config: CrossEarthConfig) -> dict[str, Tensor]:
    """Tensors of a pretrained ViT under the names of [`CrossEarthBackbone`], for the crops of `config`.

    Args:
        vit: The state of transformers' `Dinov2Model`, `Dinov2WithRegistersModel` or `DINOv3ViTModel`.
        config: Says how many blocks are used, from the first, and for which crops; its patches have 16 pixels.

    Returns:
        Embeddings and blocks. The patch kernel and the position table, where there is one, are resampled bicubically,
        as the authors of CrossEarth resample DINOv2's.
    """
    wanted = config.backbone_config
    state = {}
    for name, tensor in vit.items():
        ours = name.removeprefix("encoder.").removeprefix("model.")
        parts = ours.split(".")
        is_used_block = parts[0] == "layer" and int(parts[1]) < wanted.num_hidden_layers
        if is_used_block or (parts[0] == "embeddings" and parts[1] != "mask_token"):
            state[ours] = tensor
    for kernel in _PATCH_KERNELS & state.keys():
        state[kernel] = resampled_kernel(state[kernel], wanted.patch_size)
    if _POSITIONS in state:
        state[_POSITIONS] = resampled_positions(
            state[_POSITIONS], wanted.image_size // wanted.patch_size
        )
    return state


def resampled_kernel(kernel: Tensor, side: int) -> Tensor:
    """A patch kernel (D, C, p, p) for patches of `side` pixels: bicubic, align_corners False, as the original's."""
    if kernel.shape[-2:] == (side, side):
        return kernel
    return _bicubic(kernel, side)


def resampled_positions(table: Tensor, side: int) -> Tensor:
    """A position table (1, 1 + n*n, D) for a grid of `side` x `side` patches; the class token's row stays."""
    old_side = math.isqrt(table.shape[1] - 1)
    if old_side == side:
        return table
    grid = table[:, 1:].unflatten(1, (old_side, old_side)).permute(0, 3, 1, 2)  # (1, D, n, n)
    grid = _bicubic(grid, side).flatten(2).transpose(1, 2)  # (1, side*side, D)
    return torch.cat([table[:, :1], grid], dim=1)


def _bicubic(maps: Tensor, side: int) -> Tensor:
    resized = F.interpolate(maps.float(), size=(side, side), mode="bicubic", align_corners=False)
    return resized.to(maps.dtype)


__all__ = [
    "EMBEDDINGS",
    "CrossEarthBackbone",
    "backbone_state",
    "load_vit",
    "resampled_kernel",
    "resampled_positions",
]
