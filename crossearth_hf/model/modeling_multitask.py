"""Multi-Task Training of CrossEarth (Gong et al., IEEE TPAMI 2026): segmentation and masked image modeling.

What training alone needs is one submodule, `multitask`; the models for inference drop it when they load. The training
code of the paper is not public: [`CrossEarthForMultiTaskTraining`] names the choices that are ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.processing_utils import Unpack
from transformers.utils.generic import can_return_tuple

from .configuration_crossearth import CrossEarthConfig
from .loss_crossearth import CrossEarthTargets
from .modeling_crossearth import CrossEarthForSemanticSegmentation
from .modeling_head import padded
from .modeling_outputs import CrossEarthSegmentationOutput

LARGEST_SIDE = 512  # pixels; a larger image is rebuilt at this size and enlarged
DILATIONS = (1, 6, 12, 18)


@dataclass
class CrossEarthMultiTaskOutput(CrossEarthSegmentationOutput):
    """Output of [`CrossEarthForMultiTaskTraining`]; without `labels` the segmentation's fields are `None`.

    Args:
        reconstruction (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`):
            The masked images rebuilt, in the scale of `pixel_values`.
        styled_reconstruction (`torch.FloatTensor` of shape `(number of styled images, num_channels, height, width)`):
            The styled images rebuilt.
        visible (`torch.BoolTensor` of shape `(batch_size, height, width)`):
            Where the masked images show the image rather than the mask token.
    """

    reconstruction: Tensor | None = None
    styled_reconstruction: Tensor | None = None
    visible: Tensor | None = None


def visible_blocks(
    shape: tuple[int, int, int], ratio: float, block: int, seeds: Sequence[int] | None = None
) -> Tensor:
    """Random masks (B, H, W) of that `shape`, False in the blocks that are hidden; drawn on the CPU on every device.

    Blocks lie on a grid from the top left; those at the other borders may be cut, and an image smaller than a block is
    one block.

    Args:
        shape: Batch, height and width of the images, in pixels.
        ratio: Probability that a block is hidden.
        block: Side of a block in pixels.
        seeds: A number >= 0 for each image, on which alone its mask then depends; otherwise PyTorch's global generator
            draws.
    """
    batch, height, width = shape
    grid = (math.ceil(height / block), math.ceil(width / block))
    if seeds is None:
        noise = torch.rand(batch, *grid, device="cpu")
    else:
        # The second number separates this draw from others of the same seed.
        noise = torch.from_numpy(
            np.stack([np.random.default_rng((seed, 1)).random(grid) for seed in seeds])
        )
    return (
        (noise >= ratio)
        .repeat_interleave(block, dim=1)
        .repeat_interleave(block, dim=2)[:, :height, :width]
    )


class CrossEarthExtractor(nn.Module):
    """Geospatial Semantic Extractor: five 3x3 convolutions with ReLU, from pixels to stride 16."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        width = config.backbone_config.hidden_size
        ladder = config.mim_extractor_channels or [
            max(width // share, 1) for share in (16, 8, 4, 2)
        ]
        channels = [config.num_channels, *ladder, width]
        layers: list[nn.Module] = []
        for index, stride in enumerate((2, 2, 2, 2, 1)):
            layers += [
                nn.Conv2d(channels[index], channels[index + 1], 3, stride, padding=1),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), one vector for each of the backbone's patches."""
        return self.layers(images).flatten(2).transpose(1, 2)


class CrossEarthInjector(nn.Module):
    """Adds to the patches of one stage what the extractor's features find among them."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        width = config.backbone_config.hidden_size
        self.num_heads = config.backbone_config.num_attention_heads
        self.query_norm = nn.LayerNorm(width)
        self.patch_norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, width)

    def forward(self, patches: Tensor, details: Tensor) -> Tensor:
        """Patches (B, N, D) that go on, from patches (B, N, D) and the extractor's features (B, N, D)."""
        # (B, heads, N, D / heads)
        query = self.query_norm(details).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        value = self.patch_norm(patches).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        found = F.scaled_dot_product_attention(query, value, value)
        return patches + self.linear(found.transpose(1, 2).flatten(2))


class CrossEarthASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al., TPAMI 2018): four dilations side by side."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, width, kernel_size=1)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width // len(DILATIONS), 3, padding=dilation, dilation=dilation)
            for dilation in DILATIONS
        )
        self.project = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, C, h, w)."""
        x = F.relu(self.reduce(x))
        x = torch.cat([F.relu(branch(x)) for branch in self.branches], dim=1)  # (B, C, h, w)
        return F.relu(self.project(x))


class CrossEarthMerge(nn.Conv2d):
    """A 1x1 convolution of maps that are enlarged to one size and concatenated.

    Computed as the sum of the convolution's parts, each before its map is enlarged, which gives the same numbers. The
    concatenation alone would take 1 GiB for one crop of 512 pixels and the published width.
    """

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """(B, C', H, W) of `size` from maps (B, C, h, w)."""
        weights, bias = self.weight.chunk(len(maps), dim=1), self.bias  # (C', C, 1, 1) each
        merged = self._enlarged(maps[0], weights[0], bias, size)
        for level, weight in zip(maps[1:], weights[1:], strict=True):
            merged += self._enlarged(level, weight, None, size)
        return merged

    @staticmethod
    def _enlarged(
        maps: Tensor, weight: Tensor, bias: Tensor | None, size: tuple[int, int]
    ) -> Tensor:
        return F.interpolate(
            F.conv2d(maps, weight, bias), size, mode="bilinear", align_corners=False
        )


class CrossEarthReconstruction(GradientCheckpointingLayer):
    """Reconstruction head: the feature pyramid back to pixels."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        in_channels = config.backbone_config.hidden_size
        width = config.mim_reconstruction_width or 4 * max(in_channels // 16, 1)
        self.aspp = CrossEarthASPP(in_channels, width)
        self.merge = CrossEarthMerge(4 * width, width // 2, kernel_size=1)
        self.pixels = nn.Conv2d(width // 2, config.num_channels, kernel_size=1)

    def forward(self, size: tuple[int, int], *maps: Tensor) -> Tensor:
        """Images (B, C, H, W) of `size` from the four `maps` (B, D, h, w) of the pyramid."""
        inner = (min(size[0], LARGEST_SIDE), min(size[1], LARGEST_SIDE))
        merged = self.merge([self.aspp(level) for level in maps], inner)  # (B, C/2, H', W')
        images = self.pixels(F.relu(merged, inplace=True))
        if inner == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=False)


class CrossEarthMultiTask(nn.Module):
    """Everything that Multi-Task Training adds to a segmentation model."""

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(
            torch.empty(config.num_channels, config.image_size, config.image_size)
        )
        self.extractor = CrossEarthExtractor(config)
        self.injectors = nn.ModuleList(CrossEarthInjector(config) for _ in config.out_indices)
        self.reconstruction = CrossEarthReconstruction(config)

    def forward(self, images: Tensor, visible: Tensor) -> Tensor:
        """Images (B, C, H, W) with the mask token where `visible` (B, H, W) is False.

        The token is an image of the model's crop size; other sizes see its top left part or its periodic repetition.
        """
        height, width = images.shape[-2:]
        rows, columns = (math.ceil(side / self.mask_token.shape[-1]) for side in (height, width))
        token = self.mask_token.repeat(1, rows, columns)[:, :height, :width]
        return torch.where(visible[:, None], images, token.to(images.dtype))


class CrossEarthForMultiTaskTraining(CrossEarthForSemanticSegmentation):
    """CrossEarth with both training tasks on one backbone (CrossEarth, section III).

    From the paper: a learned token image replaces blocks of the image; an extractor of five convolutions and an
    injector at each of the four pyramid stages help the backbone; a head with an ASPP shared by the four levels
    reconstructs the clean image. The loss is the segmentation loss plus L1 distances: of the reconstruction of the
    masked image, of the reconstruction of the styled image, if there is one, and between the two.

    Our choices, where the paper is silent or its code history contradicts itself:

    - The segmentation loss uses the path of inference, without injector, also for styled images.
    - Masked images are made from clean ones. Masks are drawn per image, 70 % of 64 px blocks (`mim_*` in the config);
      the mask token is cut or repeated if the image does not have the size of the model's crop.
    - Masked and styled images pass the backbone together, in an additional pass; the extractor and the backbone see the
      same images. Images without a style cost nothing in the styled part.
    - The loss of a batch is the mean over its images: an image without a style adds 0 to the styled parts. Batch size
      and number of processes do not change the weight of an image. Gradients of the L1 distance between the two
      reconstructions reach both.
    - Extractor: 3x3 convolutions, strides 2, 2, 2, 2, 1, widths 64, 128, 256, 512, 1024 for ViT-L.
    - Injector: multi-head attention without projections, with the backbone's heads, between layer norms of the
      extractor's features and of the patches; each stage has its own norms and linear layer. Class token and registers
      bypass it.
    - ASPP: a quarter of the width per branch, ReLU after every convolution; the map of full resolution has half the
      width. Sides above 512 px are rebuilt at 512 and enlarged. The distance is taken over all pixels of the image,
      padding included.
    """

    _auto_class = "AutoModelForPreTraining"  # saved folders carry the code; other auto classes still load them

    def __init__(self, config: CrossEarthConfig) -> None:
        super().__init__(config)
        if config.mim_block_size > config.image_size:
            raise ValueError(
                f"mim_block_size {config.mim_block_size} exceeds image_size {config.image_size}; choose a smaller block"
            )
        self.multitask = CrossEarthMultiTask(config)
        self.post_init()
        # `post_init` merges the patterns of the parts, but no unexpected name below `multitask.` may be ignored.
        self._keys_to_ignore_on_load_unexpected: set[str] = set()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        seeds: Tensor | None = None,
        clean_pixel_values: Tensor | None = None,
        styled: Tensor | None = None,
        visible: Tensor | None = None,
        return_dict: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **targets: Unpack[CrossEarthTargets],
    ) -> CrossEarthMultiTaskOutput:
        """Losses of a batch.

        Args:
            pixel_values: (B, C, H, W) normalized; H and W multiples of 16; the styled image where styling fired.
            labels: (B, H, W) int64 class ids, 255 ignored. Without them there is only the reconstruction: the head is
                not used, see [`~CrossEarthForMultiTaskTraining.freeze_head`].
            seeds: (B,) int64 >= 0: an image's mask and the loss's random points then depend on its own seed alone.
                Without them PyTorch's global generator draws.
            clean_pixel_values: (B, C, H, W) normalized, before styling; `pixel_values` if not given.
            styled: (B,) bool, which images were styled; given with `clean_pixel_values` or not at all.
            visible: (B, H, W) bool, False where pixels are hidden; drawn at random if not given.
            return_dict: `False` for a plain tuple.
            output_hidden_states, output_attentions: also return those of the path of segmentation, which then runs
                without labels too.
            **targets: As in [`CrossEarthForSemanticSegmentation`].

        Raises:
            ValueError: H or W is not a multiple of 16; a label is neither a class nor 255; tensors do not fit together.
        """
        _check_styled(pixel_values, clean_pixel_values, styled)
        clean = pixel_values
        if clean_pixel_values is not None:
            clean = clean_pixel_values
        inner = {
            "output_hidden_states": output_hidden_states,
            "output_attentions": output_attentions,
        }
        for name, value in inner.items():
            if value is None:
                inner[name] = getattr(self.config, name)
        segmentation: Any = {}
        # Before reconstruction, so that its random points are those of a model without the second task.
        if labels is not None or "mask_labels" in targets or any(inner.values()):
            segmentation = super().forward(
                pixel_values, labels, seeds, return_dict=True, **inner, **targets
            )
        if visible is None:
            visible = self._visible(clean, seeds)
        if visible.dtype != torch.bool or visible.shape != clean[:, 0].shape:
            raise ValueError(
                f"visible is {visible.dtype} of shape {tuple(visible.shape)}; give one bool for each pixel: "
                f"{tuple(clean[:, 0].shape)}"
            )
        if styled is None:
            styled = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        masked = self.multitask(clean, visible).to(clean.device)
        # (B + number of styled, C, H, W)
        rebuilt = self._rebuild(torch.cat([masked, pixel_values[styled]]))
        reconstruction, styled_reconstruction = rebuilt[: len(clean)], rebuilt[len(clean) :]
        loss_dict = {
            name: loss.to(clean.device)
            for name, loss in (segmentation.get("loss_dict") or {}).items()
        }
        hidden = None
        if self.config.mim_hidden_only:
            hidden = ~visible
        loss_dict |= self._reconstruction_losses(
            reconstruction, styled_reconstruction, clean, styled, hidden
        )
        return CrossEarthMultiTaskOutput(
            **(
                dict(segmentation)
                | {"loss": torch.stack(list(loss_dict.values())).sum(), "loss_dict": loss_dict}
            ),
            reconstruction=reconstruction,
            styled_reconstruction=styled_reconstruction,
            visible=visible,
        )

    def freeze_head(self) -> None:
        """Freezes parameters that reconstruction does not use: the head, and the layers that make its queries.

        Call it before training without labels, because distributed training needs a gradient for every parameter.
        """
        unused: list[nn.Module] = [
            self.pixel_decoder,
            self.transformer_module,
            self.class_predictor,
        ]
        if not self.config.rein_refines_features:
            unused.append(self.model.adapter)
        elif self.config.link_queries:
            unused += [self.model.adapter.transform, self.model.adapter.merge]
        for module in unused:
            module.requires_grad_(False)

    def segmentation_model(self) -> CrossEarthForSemanticSegmentation:
        """The model for inference, for scoring and saving between steps; it shares all its parameters with this one."""
        with torch.device("meta"):
            model = CrossEarthForSemanticSegmentation(self.config)
        for name in [name for name, _ in model.named_children()]:
            setattr(model, name, getattr(self, name))
        return model.train(self.training)

    def _visible(self, images: Tensor, seeds: Tensor | None) -> Tensor:
        batch, _, height, width = images.shape
        ratio, block = self.config.mim_mask_ratio, self.config.mim_block_size
        if seeds is None:
            numbers = None
        else:
            numbers = seeds.tolist()
        return visible_blocks((batch, height, width), ratio, block, numbers).to(images.device)

    def _rebuild(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) through extractor, backbone with injectors, and reconstruction head."""
        height, width = images.shape[-2:]
        images = padded(images, self.config.least_side)
        details = self.multitask.extractor(images)  # (B, N, D)
        features = self.model(
            images,
            output_hidden_states=False,
            return_dict=True,
            injector=lambda patches, level: self.multitask.injectors[level](patches, details),
        )
        rebuilt = self.multitask.reconstruction(tuple(images.shape[-2:]), *features.feature_maps)
        return rebuilt[..., :height, :width].to(images.device)

    def _reconstruction_losses(
        self,
        reconstruction: Tensor,
        styled_reconstruction: Tensor,
        clean: Tensor,
        styled: Tensor,
        hidden: Tensor | None,
    ) -> dict[str, Tensor]:
        weight = self.config.mim_weight / len(clean)
        return {
            "loss_reconstruct_masked": weight * _distances(reconstruction, clean, hidden).sum(),
            "loss_reconstruct_styled": weight
            * _distances(styled_reconstruction, clean[styled]).sum(),
            "loss_reconstruct_consistency": weight
            * _distances(reconstruction[styled], styled_reconstruction).sum(),
        }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CrossEarthMultiTask):
            init.zeros_(module.mask_token)
            for part in module.modules():
                if isinstance(part, nn.Conv2d) and part is not module.reconstruction.pixels:
                    init.kaiming_normal_(part.weight, nonlinearity="relu")


def _distances(first: Tensor, second: Tensor, pixels: Tensor | None = None) -> Tensor:
    """Mean absolute difference (B,) of the images (B, C, H, W); with `pixels` (B, H, W) only over these pixels."""
    differences = (first.float() - second.float()).abs()
    if pixels is None:
        return differences.mean(dim=(1, 2, 3))
    chosen = pixels[:, None].to(differences)  # (B, 1, H, W)
    count = chosen.sum(dim=(1, 2, 3)).clamp(min=1) * differences.shape[1]
    return (differences * chosen).sum(dim=(1, 2, 3)) / count


def _check_styled(
    pixel_values: Tensor, clean_pixel_values: Tensor | None, styled: Tensor | None
) -> None:
    if (clean_pixel_values is None) != (styled is None):
        raise ValueError(
            "clean_pixel_values and styled belong together; give both, or neither where nothing is styled"
        )
    if clean_pixel_values is not None and clean_pixel_values.shape != pixel_values.shape:
        raise ValueError(
            f"clean_pixel_values has the shape {tuple(clean_pixel_values.shape)}, pixel_values "
            f"{tuple(pixel_values.shape)}; make them the same"
        )
    if styled is not None and (
        styled.dtype != torch.bool or styled.shape != pixel_values.shape[:1]
    ):
        raise ValueError(
            f"styled is {styled.dtype} of shape {tuple(styled.shape)}; give one bool for each of the "
            f"{len(pixel_values)} images"
        )


__all__ = ["CrossEarthForMultiTaskTraining", "CrossEarthMultiTaskOutput"]
