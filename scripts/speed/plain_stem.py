"""EfficientNet-Lite0 (Tan & Le, ICML 2019) for the baseline of the small model: the stem that stands for patches."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Every stage's expansion, kernel, stride, width and number of blocks (Tan & Le, table 1, without squeeze-excitation).
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def _convolve(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """The convolution with TensorFlow's padding: where it is odd, the pixel more goes right and bottom."""
    missing = convolution.kernel_size[0] - convolution.stride[0]
    before, after = missing // 2, missing - missing // 2
    return convolution(F.pad(maps, (before, after, before, after)))


class PlainResidual(nn.Module):
    """Expansion, depthwise convolution, projection."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self.expand = nn.Conv2d(inputs, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        hidden = maps
        if hasattr(self, "expand"):
            hidden = torch.clamp(self.expand(maps), 0, 6)
        hidden = self.project(torch.clamp(_convolve(self.depthwise, hidden), 0, 6))
        if hidden.shape == maps.shape:
            return hidden + maps
        return hidden


class PlainStem(nn.Module):
    """EfficientNet-Lite0 without its classifier, batch normalization folded into the weights."""

    widths: ClassVar[tuple[int, ...]] = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, stride=2)
        self.stages, inputs = nn.ModuleList(), 32
        for expansion, kernel, stride, width, blocks in _STAGES:
            stage = nn.Sequential()
            for step in [stride] + [1] * (blocks - 1):
                stage.append(PlainResidual(inputs, width, expansion, kernel, step))
                inputs = width
            self.stages.append(stage)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, C, h, w) maps at strides 4, 8, 16, 32."""
        maps, hidden = [], torch.clamp(_convolve(self.first, pixels), 0, 6)
        for stage in self.stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return [maps[1], maps[2], maps[4], maps[6]]
