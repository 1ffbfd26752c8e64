"""Networks that read the style of an image and render an image in a style.

Ghiasi et al., "Exploring the structure of a real-time, arbitrary neural artistic stylization network" (BMVC 2017): in
the mobile form that Magenta published, and in the original size, of which Jackson et al., "Style Augmentation" (CVPR
workshops 2019), published weights for PyTorch.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STYLE_SIZE = 100

_SMALLEST = 5  # the mirrored borders of the style transfer need two pixels at a quarter of the size

# MobileNetV2 (Sandler et al., CVPR 2018): expansion, channels and stride of each inverted residual block.
_BLOCKS = (
    [(1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 32, 1), (6, 64, 2)]
    + [(6, 64, 1)] * 3
    + [(6, 96, 1)] * 3
    + [(6, 160, 2), (6, 160, 1), (6, 160, 1), (6, 320, 1)]
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" borders: with stride 2 an even side is padded at its far end only."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        margins = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            margins += [total // 2, total - total // 2]
        if any(margins):
            x = F.pad(x, margins)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, filter each channel, narrow; added to its input if the shapes agree."""

    def __init__(self, in_channels: int, expansion: int, out_channels: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = None
        if expansion > 1:
            self.expand = nn.Conv2d(in_channels, width, 1)
        self.depthwise = SameConv2d(width, width, 3, stride, groups=width)
        self.project = nn.Conv2d(width, out_channels, 1)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        hidden = x
        if self.expand is not None:
            hidden = F.relu6(self.expand(x))
        hidden = self.project(F.relu6(self.depthwise(hidden)))
        if self.is_residual:
            return x + hidden
        return hidden


class StylePredictor(nn.Module):
    """P_s: an image -> its style embedding of 100 numbers; a MobileNetV2 whose batch norms are folded into it.

    Attributes:
        smallest_image: Smallest side in pixels that leaves one position of the last feature map.
    """

    smallest_image = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, 32, 3, 2)
        channels = 32
        blocks = []
        for expansion, width, stride in _BLOCKS:
            blocks.append(InvertedResidual(channels, expansion, width, stride))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(channels, 1280, 1)
        self.embedding = nn.Linear(1280, STYLE_SIZE, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Style embeddings.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], of any size; the published network saw 256 x 256 pixels.

        Returns:
            (B, 100).
        """
        # (B, 1280, H/32, W/32)
        features = F.relu6(self.head(self.blocks(F.relu6(self.stem(images)))))
        return self.embedding(features.mean(dim=(2, 3)))


class Branches(nn.ModuleList):
    """Modules side by side on one input, their channels concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, sum of C', H', W')."""
        return torch.cat([branch(x) for branch in self], dim=1)


class InceptionStylePredictor(nn.Sequential):
    """P_s in the original size: Inception-v3 (Szegedy et al., CVPR 2016) up to its last 17 x 17 block.

    The batch norms, and the scaling of pixels from [0, 1] to [-1, 1], are folded into the convolutions.

    Attributes:
        smallest_image: Smallest side in pixels; its strides and unpadded borders leave one position.
    """

    smallest_image = 43

    def __init__(self) -> None:
        stem = [
            *_chain(3, (32, 3, 2, 0), (32, 3, 1, 0), (64, 3)), nn.MaxPool2d(3, 2),
            *_chain(64, (80, 1), (192, 3, 1, 0)), nn.MaxPool2d(3, 2),
        ]  # fmt: skip
        fives = [
            _inception_a(192, 32),
            _inception_a(256, 64),
            _inception_a(288, 64),
            _inception_b(288),
        ]
        sixes = [_inception_c(768, width) for width in (128, 160, 160, 192)]
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(768, STYLE_SIZE)]
        super().__init__(*stem, *fives, *sixes, *pooled)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> (B, 100); raises `ValueError` for images of less than 43 pixels on a side."""
        if min(images.shape[-2:]) < self.smallest_image:
            height, width = images.shape[-2:]
            raise ValueError(
                f"an image of {height} x {width} pixels is too small for Inception-v3: give at least 43 x 43"
            )
        return super().forward(images)


def _chain(channels: int, *layers: Any) -> nn.Sequential:
    """Convolutions with ReLU, each given as (channels, kernel[, stride, padding]); by default the size is kept."""
    modules: list[nn.Module] = []
    for width, kernel, *rest in layers:
        stride, padding = rest or (1, "same")
        modules += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
        channels = width
    return nn.Sequential(*modules)


def _pooled(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), *_chain(channels, (width, 1)))


def _inception_a(channels: int, width: int) -> Branches:
    five, threes = _chain(channels, (48, 1), (64, 5)), _chain(channels, (64, 1), (96, 3), (96, 3))
    return Branches([_chain(channels, (64, 1)), five, threes, _pooled(channels, width)])


def _inception_b(channels: int) -> Branches:
    threes = _chain(channels, (64, 1), (96, 3), (96, 3, 2, 0))
    return Branches([_chain(channels, (384, 3, 2, 0)), threes, nn.MaxPool2d(3, 2)])


def _inception_c(channels: int, width: int) -> Branches:
    row, column = (1, 7), (7, 1)
    once = _chain(channels, (width, 1), (width, row), (192, column))
    twice = _chain(channels, (width, 1), (width, column), (width, row), (width, column), (192, row))
    return Branches([_chain(channels, (192, 1)), once, twice, _pooled(channels, 192)])


class InstanceNorm(nn.Module):
    """Normalizes every channel of every image to mean 0 and variance 1.

    PyTorch's own layer (2.13, on a CPU) is slower, and its gradients are wrong in the channels-last layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        centered = x - x.mean(dim=(2, 3), keepdim=True)
        return centered * inverse_deviation(centered)


class StyleNorm(nn.Module):
    """Instance normalization whose scale and shift are linear in the style embedding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(STYLE_SIZE, channels)
        self.shift = nn.Linear(STYLE_SIZE, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) normalized over H and W, scaled and shifted by (B, 100) embeddings."""
        scale, shift = (
            self.scale(style)[..., None, None],
            self.shift(style)[..., None, None],
        )  # (B, C, 1, 1)
        centered = x - x.mean(dim=(2, 3), keepdim=True)
        return torch.addcmul(shift, centered, scale * inverse_deviation(centered))


def inverse_deviation(centered: Tensor) -> Tensor:
    """(B, C, 1, 1): one over the standard deviation of (B, C, H, W) numbers whose mean is 0."""
    return torch.rsqrt(centered.square().mean(dim=(2, 3), keepdim=True) + 1e-5)


class StyledConv(nn.Module):
    """A convolution with mirrored borders and its `StyleNorm`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = _mirrored_conv(in_channels, out_channels, kernel_size, bias=False)
        self.norm = StyleNorm(out_channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 100) -> (B, C', H, W)."""
        return self.norm(self.conv(x), style)


class StyledResidual(nn.Module):
    """Two styled convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = StyledConv(channels, channels, 3)
        self.conv2 = StyledConv(channels, channels, 3)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 100) -> (B, C, H, W)."""
        return x + self.conv2(F.relu(self.conv1(x, style)), style)


class StyleTransfer(nn.Module):
    """P_t: re-renders images under style embeddings.

    Args:
        widths: Channels at full, half and quarter size.
        normalize_contraction: Instance norms without style in the first three layers, as in the original size.
    """

    def __init__(
        self, widths: tuple[int, int, int] = (8, 16, 32), *, normalize_contraction: bool = False
    ) -> None:
        super().__init__()
        first, second, third = widths
        # The mobile form has batch norms in its first three layers, folded into them.
        norm: type[nn.Module] = nn.Identity
        if normalize_contraction:
            norm = InstanceNorm
        norms = [norm() for _ in widths]
        self.contract = nn.Sequential(
            _mirrored_conv(3, first, 9), norms[0], nn.ReLU(),
            _mirrored_conv(first, second, 3, stride=2), norms[1], nn.ReLU(),
            _mirrored_conv(second, third, 3, stride=2), norms[2], nn.ReLU(),
        )  # fmt: skip
        self.residual = nn.ModuleList(StyledResidual(third) for _ in range(5))
        self.expand = nn.ModuleList(
            [StyledConv(third, second, 3), StyledConv(second, first, 3), StyledConv(first, 3, 9)]
        )

    def forward(self, images: Tensor, styles: Tensor) -> Tensor:
        """Images in another style.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], at least 5 x 5 pixels.
            styles: (B, 100).

        Returns:
            (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: A side of the images is shorter than 5 pixels.
        """
        height, width = images.shape[-2:]
        if min(height, width) < _SMALLEST:
            raise ValueError(
                f"an image of {height} x {width} pixels is too small for the style transfer: give at least 5 x 5"
            )
        x = self.contract(images)  # (B, C, ceil(H/4), ceil(W/4))
        for block in self.residual:
            x = block(x, styles)
        for layer in self.expand[:2]:
            x = F.relu(layer(F.interpolate(x, scale_factor=2, mode="nearest"), styles))
        return self.expand[2](x, styles)[..., :height, :width].sigmoid()


def _mirrored_conv(
    in_channels: int, out_channels: int, size: int, *, stride: int = 1, bias: bool = True
) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        size,
        stride,
        padding=size // 2,
        padding_mode="reflect",
        bias=bias,
    )


Predictor = StylePredictor | InceptionStylePredictor


def style_networks(architecture: str) -> tuple[Predictor, StyleTransfer]:
    """Predictor and transfer: "mobile" (Magenta's, 2.5 M weights) or "original" (that of Jackson et al., 11 M)."""
    if architecture == "mobile":
        return StylePredictor(), StyleTransfer()
    if architecture == "original":
        return InceptionStylePredictor(), StyleTransfer((32, 64, 128), normalize_contraction=True)
    raise ValueError(
        f"style networks '{architecture}' are unknown; the known ones are mobile and original"
    )


__all__ = [
    "STYLE_SIZE",
    "InceptionStylePredictor",
    "Predictor",
    "StylePredictor",
    "StyleTransfer",
    "style_networks",
]
