"""EfficientNet-Lite0 (Tan & Le, ICML 2019, in the form for small devices: no squeeze-excitation, ReLU6).

The convolutional stem of the small preset, and the encoder of the peer that the evidence compares with. Batch
normalization is folded into the convolutions: the statistics of ImageNet stay as they are, whatever the batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .cpu_kernels import computes_in_float32


class Stage(NamedTuple):
    """Blocks of one resolution: expansion of the first layer, kernel, stride of the first block, width, blocks."""

    expansion: int
    kernel: int
    stride: int
    width: int
    blocks: int


FIRST_WIDTH = 32
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
STRIDE_ENDS = {4: 1, 8: 2, 16: 4, 32: 6}
"""Last stage of every stride; its width is that of the maps."""


class Convolution(nn.Conv2d):
    """A convolution with bias that pads as TensorFlow does for even sides: the odd pixel goes right and bottom."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding, is_odd = divmod(kernel - stride, 2)
        odd_padding = None
        if is_odd:
            odd_padding = (padding, padding + 1) * 2
            padding = 0
        super().__init__(inputs, outputs, kernel, stride, padding=padding, groups=groups)
        self.odd_padding = odd_padding

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H // stride, W // stride); the sides are at least 2 where the stride is."""
        if self.groups > 1 and computes_in_float32(images, self.weight):
            with torch.autocast("cpu", enabled=False):
                return self._convolved(images.float()).to(images.dtype)
        return self._convolved(images)

    def _convolved(self, images: Tensor) -> Tensor:
        if self.odd_padding is not None:
            images = F.pad(images, self.odd_padding)
        return super().forward(images)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection; added to the input if the shapes agree."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        hidden = inputs * stage.expansion
        self.expand = None
        if stage.expansion > 1:
            self.expand = Convolution(inputs, hidden, 1)
        self.depthwise = Convolution(hidden, hidden, stage.kernel, stride, groups=hidden)
        self.project = Convolution(hidden, stage.width, 1)
        self.residual = stride == 1 and inputs == stage.width

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = maps
        if self.expand is not None:
            hidden = F.relu6(self.expand(maps), inplace=True)
        hidden = self.project(F.relu6(self.depthwise(hidden), inplace=True))
        if self.residual:
            return hidden + maps
        return hidden


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0 without its classifier, for images of `num_channels` channels."""

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__()
        self.first = Convolution(num_channels, FIRST_WIDTH, 3, stride=2)
        self.stages = nn.ModuleList()
        width = FIRST_WIDTH
        for stage in STAGES:
            first = InvertedResidual(width, stage, stage.stride)
            width = stage.width
            others = [InvertedResidual(width, stage, 1) for _ in range(stage.blocks - 1)]
            self.stages.append(nn.Sequential(first, *others))
        self.widths = tuple(STAGES[end].width for end in STRIDE_ENDS.values())

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Maps at strides 4, 8, 16 and 32.

        Args:
            pixel_values: (B, num_channels, H, W), RGB with ImageNet's mean and deviation; H and W multiples of 16.

        Returns:
            (B, C, H // stride, W // stride) per stride, with 24, 40, 112 and 320 channels.
        """
        # All maps follow the input's layout; depthwise convolutions are the faster for it, on CPU and GPU.
        hidden = self.first(pixel_values.contiguous(memory_format=torch.channels_last))
        hidden = F.relu6(hidden, inplace=True)
        maps = []
        for index, stage in enumerate(self.stages):
            hidden = stage(hidden)
            if index in STRIDE_ENDS.values():
                maps.append(hidden)
        return tuple(maps)


def fold_batch_norm(
    weight: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, ...]:
    """Weight (C', C, k, k) and bias (C',) of a convolution without bias and the batch normalization that follows it."""
    factor = scale / torch.sqrt(variance + 1e-3)  # EfficientNet's epsilon
    return weight * factor[:, None, None, None], shift - mean * factor
