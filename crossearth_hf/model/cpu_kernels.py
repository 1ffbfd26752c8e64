"""What the network computes differently on a CPU, to the same result: products, attention, deformable sampling.

Each of them is a public operation of PyTorch that reaches a faster kernel than the obvious one does; the figures are
in docs/performance.md. Elsewhere (CUDA, MPS, other processors) the obvious operation runs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

BLOCK_ATTENTION = "cpu_blocks"
"""Name of [`block_attention`] for `attn_implementation`."""

# Only on x86 has the route through a convolution been measured.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")
_FEWEST_ROWS = 64  # below, the detour costs more than it saves
_BLOCK = 512  # query rows whose scores stay in a core's cache
_BORDER = 2  # of zeros around the maps: sampling points further out are moved there


class CpuLinear(nn.Linear):
    """A linear layer that computes in oneDNN on x86, where PyTorch's own float32 product is MKL's.

    A 1 x 1 convolution over rows laid out as channels-last pixels is the same product. On AMD processors MKL does
    without AVX-512; on Intel's the two are alike.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) to (..., D')."""
        if not (_HAS_ONEDNN and self._pays_for(rows)):
            return super().forward(rows)
        pixels = rows.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)  # (1, D, N, 1), channels last
        product = F.conv2d(pixels, self.weight[:, :, None, None], self.bias)
        return product.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], self.out_features)

    def _pays_for(self, rows: Tensor) -> bool:
        plain = rows.device.type == "cpu" and rows.dtype == self.weight.dtype == torch.float32
        lowered = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        return plain and not lowered and rows.numel() >= _FEWEST_ROWS * self.in_features


def computes_in_float32(images: Tensor, weight: Tensor) -> bool:
    """Whether a depthwise convolution is to leave autocast: for a gradient on a CPU.

    There bfloat16 gains nothing forward and takes three to six times as long backward.
    """
    trained = torch.is_grad_enabled() and (images.requires_grad or weight.requires_grad)
    return trained and images.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def use_cpu_linears(module: nn.Module) -> None:
    """Turns every plain linear layer of a module into a [`CpuLinear`]; parameters and their names stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = CpuLinear


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention head by head in blocks of queries, for bfloat16 on CPUs without matrix units (AMX).

    There PyTorch's fused kernel converts every product to float32; products of a head's own size run in bfloat16.

    Args:
        module: The calling layer.
        query, key, value: (B, heads, N, D / heads).
        attention_mask: `None`; CrossEarth has none.
        scaling: Factor of the scores.

    Returns:
        (B, N, heads, D / heads) and no weights, as transformers' attention functions do.
    """
    output = query.new_empty(query.transpose(1, 2).shape)
    for image in range(query.shape[0]):
        for head in range(query.shape[1]):
            rows = query[image, head] * scaling
            keys, values = key[image, head].contiguous(), value[image, head].T.contiguous()
            for start in range(0, len(rows), _BLOCK):
                weights = F.linear(rows[start : start + _BLOCK], keys).softmax(dim=-1)  # (block, N)
                output[image, start : start + _BLOCK, head] = F.linear(weights, values)
    return output, None


AttentionInterface.register(BLOCK_ATTENTION, block_attention)


def sample_levels(value: Tensor, sizes: list[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Sums of bilinear samples of several maps: multi-scale deformable attention (Zhu et al., ICLR 2021).

    Every sample is four rows of one table; an embedding bag gathers and weights all rows of a query at once.

    Args:
        value: (B, N, heads, C) float32; N positions of all levels, one after the other.
        sizes: Height and width of every level.
        locations: (B, Q, heads, levels, points, 2), x and y in [0, 1] inside a level; outside the maps are 0.
        weights: (B, Q, heads, levels, points).

    Returns:
        (B, Q, heads * C).
    """
    batch, queries, heads, _, points, _ = locations.shape
    table, starts = _bordered(value, sizes)  # (B, M, heads, C)

    def each_point(numbers: list[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(numbers, dtype=dtype, device=value.device).repeat_interleave(points)  # (levels * points,)

    heights, widths = (each_point(list(side), torch.float32) for side in zip(*sizes, strict=True))
    strides = each_point([width + 2 * _BORDER for _, width in sizes], torch.int32)
    x, y = locations.flatten(3, 4).unbind(-1)  # (B, Q, heads, levels * points) each
    x, y = x * widths - 0.5, y * heights - 0.5
    left, top = x.floor(), y.floor()
    right_share, low_share = x - left, y - top
    left, top = (torch.minimum(a.clamp_(min=-_BORDER), b) for a, b in ((left, widths), (top, heights)))
    cells = top.to(torch.int32) * strides + left.to(torch.int32) + each_point(starts, torch.int32)
    images = torch.arange(batch, dtype=torch.int32, device=value.device)[:, None, None, None]
    rows = (images * table.shape[1] + cells) * heads
    rows += torch.arange(heads, dtype=torch.int32, device=value.device)[:, None]
    low = weights.flatten(3) * low_share
    high = weights.flatten(3) - low
    high_right, low_right = high * right_share, low * right_share
    sampled = F.embedding_bag(
        torch.cat([rows, rows + heads, rows + strides * heads, rows + (strides + 1) * heads], dim=-1).flatten(0, 2),
        table.flatten(0, 2),
        per_sample_weights=torch.cat([high - high_right, high_right, low - low_right, low_right], -1).flatten(0, 2),
        mode="sum",
    )
    return sampled.view(batch, queries, -1)


def _bordered(value: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """(B, M, heads, C) maps with a border of zeros; in it, the place of each level's first position."""
    padded, starts, count = [], [], 0
    for level, (height, width) in zip(value.split([h * w for h, w in sizes], dim=1), sizes, strict=True):
        grid = F.pad(level.unflatten(1, (height, width)), (0, 0, 0, 0, *(_BORDER,) * 4))
        padded.append(grid.flatten(1, 2))
        starts.append(count + _BORDER * (width + 2 * _BORDER) + _BORDER)
        count += padded[-1].shape[1]
    return torch.cat(padded, dim=1), starts
