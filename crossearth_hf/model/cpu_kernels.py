"""Faster operations for CPUs with the same results: products, attention, deformable sampling.

Each uses a public operation of PyTorch that has a faster kernel than the obvious one; docs/performance.md gives the
figures. Other devices (CUDA, MPS, other processors) use the obvious operation.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

BLOCK_ATTENTION = "cpu_blocks"
"""Name of [`block_attention`] for `attn_implementation`."""

SHORT_ATTENTION = "cpu_short"
"""Name of [`short_attention`] for `attn_implementation`."""

# The route through a convolution has been measured only on x86.
_HAS_ONEDNN = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
)
_FEWEST_ROWS = 64  # with fewer rows the convolution costs more than it saves
_BLOCK = 512  # query rows whose scores stay in a core's cache
_MOST_TOKENS = 512  # with more, the fused kernel is as fast and needs less memory
_BORDER = 2  # width of the zeros around the maps; sampling points beyond are moved there


class CpuLinear(nn.Linear):
    """A linear layer that computes in oneDNN on x86; PyTorch's own float32 product uses MKL.

    A 1 x 1 convolution over rows as channels-last pixels is the same product. On AMD processors MKL does not use
    AVX-512; on Intel processors both are equally fast.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """(..., D) to (..., D')."""
        if not (_HAS_ONEDNN and self._pays_for(rows)):
            return super().forward(rows)
        # (1, D, N, 1), channels last
        pixels = rows.reshape(1, -1, 1, self.in_features).permute(0, 3, 1, 2)
        product = F.conv2d(pixels, self.weight[:, :, None, None], self.bias)
        return product.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], self.out_features)

    def _pays_for(self, rows: Tensor) -> bool:
        plain = rows.device.type == "cpu" and rows.dtype == self.weight.dtype == torch.float32
        lowered = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        return plain and not lowered and rows.numel() >= _FEWEST_ROWS * self.in_features


def computes_in_float32(images: Tensor, weight: Tensor) -> bool:
    """Whether a depthwise convolution should leave autocast: if it needs a gradient on a CPU.

    On CPUs bfloat16 is not faster forward, and three to six times slower backward.
    """
    trained = torch.is_grad_enabled() and (images.requires_grad or weight.requires_grad)
    return trained and images.device.type == "cpu" and torch.is_autocast_enabled("cpu")


def use_cpu_linears(module: nn.Module) -> None:
    """Turns every plain linear layer of a module into a [`CpuLinear`]; parameters and their names stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = CpuLinear


def use_plain_linears(module: nn.Module) -> None:
    """Turns every [`CpuLinear`] of a module back, for tools that know linear layers by their exact type."""
    for child in module.modules():
        if type(child) is CpuLinear:
            child.__class__ = nn.Linear  # type: ignore[assignment]


def block_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention for each head in blocks of queries, for bfloat16 on CPUs without matrix units (AMX).

    PyTorch's fused kernel converts every product to float32 there; products of the size of a head run in bfloat16.

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


def short_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention by products of whole matrices, for training on small crops in bfloat16 on CPUs.

    The backward pass of PyTorch's fused kernel takes about three times as long there. The fused kernel computes
    everything else: other devices and precisions, no gradient, more than 512 tokens, dropout.

    Args:
        module: The calling layer.
        query, key, value: (B, heads, N, D / heads).
        attention_mask: `None`; CrossEarth has none.
        scaling: Factor of the scores.
        **options: Of transformers' own function for the fused kernel.

    Returns:
        (B, N, heads, D / heads) and no weights, as transformers' attention functions do.
    """
    is_trained = torch.is_grad_enabled() and query.requires_grad
    is_short = query.device.type == "cpu" and query.shape[2] <= _MOST_TOKENS
    is_plain = query.dtype == torch.bfloat16 and not options.get("dropout")
    if not (is_trained and is_short and is_plain):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    with torch.autocast("cpu", enabled=False):
        scores = (query * scaling) @ key.transpose(-1, -2)  # (B, heads, N, N)
        attended = scores.softmax(dim=-1) @ value
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(SHORT_ATTENTION, short_attention)


class CpuGroupNorm(nn.GroupNorm):
    """A group norm that trains as fast in bfloat16 as in float32 on CPUs.

    PyTorch's backward pass of channels-last maps in bfloat16 takes seven times as long as that of contiguous ones.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        is_lowered = maps.device.type == "cpu" and maps.dtype == torch.bfloat16
        if is_lowered and torch.is_grad_enabled():
            maps = maps.contiguous()
        return super().forward(maps)


def sample_levels(
    value: Tensor, sizes: list[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Sums of bilinear samples of several maps: multi-scale deformable attention (Zhu et al., ICLR 2021).

    Every sample is four rows of one table; an embedding bag gathers and weights all rows of a query at once.

    Args:
        value: (B, N, heads, C) float32; the N positions of all levels, one level after the other.
        sizes: Height and width of every level.
        locations: (B, Q, heads, levels, points, 2), x and y in [0, 1] inside a level; the maps are 0 outside.
        weights: (B, Q, heads, levels, points).

    Returns:
        (B, Q, heads * C).
    """
    batch, queries, heads, _, points, _ = locations.shape
    table, starts = _bordered(value, sizes)  # (B, M, heads, C)

    def each_point(numbers: list[int], dtype: torch.dtype) -> Tensor:
        # (levels * points,)
        return torch.tensor(numbers, dtype=dtype, device=value.device).repeat_interleave(points)

    heights, widths = (each_point(list(side), torch.float32) for side in zip(*sizes, strict=True))
    strides = each_point([width + 2 * _BORDER for _, width in sizes], torch.int32)
    x, y = locations.flatten(3, 4).unbind(-1)  # (B, Q, heads, levels * points) each
    x, y = x * widths - 0.5, y * heights - 0.5
    left, top = x.floor(), y.floor()
    right_share, low_share = x - left, y - top
    left = torch.minimum(left.clamp_(min=-_BORDER), widths)
    top = torch.minimum(top.clamp_(min=-_BORDER), heights)
    cells = top.to(torch.int32) * strides + left.to(torch.int32) + each_point(starts, torch.int32)
    images = torch.arange(batch, dtype=torch.int32, device=value.device)[:, None, None, None]
    rows = (images * table.shape[1] + cells) * heads
    rows += torch.arange(heads, dtype=torch.int32, device=value.device)[:, None]
    below = rows + strides * heads
    # (B, Q, heads, 4 * levels * points)
    corners = torch.cat([rows, rows + heads, below, below + heads], dim=-1)
    low = weights.flatten(3) * low_share
    high = weights.flatten(3) - low
    high_right, low_right = high * right_share, low * right_share
    shares = torch.cat([high - high_right, high_right, low - low_right, low_right], dim=-1)
    sampled = F.embedding_bag(
        corners.flatten(0, 2),
        table.flatten(0, 2),
        per_sample_weights=shares.flatten(0, 2),
        mode="sum",
    )
    return sampled.view(batch, queries, -1)


def _bordered(value: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """(B, M, heads, C) maps with a border of zeros; in it, the place of each level's first position."""
    padded, starts, count = [], [], 0
    for level, (height, width) in zip(
        value.split([h * w for h, w in sizes], dim=1), sizes, strict=True
    ):
        grid = F.pad(level.unflatten(1, (height, width)), (0, 0, 0, 0, *(_BORDER,) * 4))
        padded.append(grid.flatten(1, 2))
        starts.append(count + _BORDER * (width + 2 * _BORDER) + _BORDER)
        count += padded[-1].shape[1]
    return torch.cat(padded, dim=1), starts
