"""What is computed differently while the network is exported, so that one graph takes images of every size.

Sizes are no numbers then but unknowns: they decide no branch, are no keys and fix no scale factor. Outside of an export
PyTorch's own kernels do the same.
"""

import torch
from torch import Tensor

_CUBIC = -0.75  # of PyTorch's bicubic interpolation
_ANTIALIASED_CUBIC = -0.5  # of the same with antialiasing


def is_exporting() -> bool:
    """Whether `torch.export` traces the network; PyTorch tells from 2.7 on, and the extra `onnx` needs more."""
    tells = getattr(torch.compiler, "is_exporting", None)
    return tells is not None and bool(tells())


def width_and_height(sizes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """(levels, 2) widths and heights of maps given as height and width; device and type are those of `like`."""
    if not is_exporting():
        return like.new_tensor([(width, height) for height, width in sizes])
    numbers = [like.new_full((1,), side) for height, width in sizes for side in (width, height)]
    return torch.cat(numbers).view(len(sizes), 2)


def scaled_positions(table: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """DINOv2's resampling of a position table: bicubic by a scale factor that counts a tenth of a patch more.

    Args:
        table: (1, side * side, D).
        side: Rows and columns of the table.
        rows, columns: Those wanted.

    Returns:
        (1, rows * columns, D); the table itself where it has these sizes.
    """
    sizes = torch.stack(
        [table.new_full((), cells, dtype=torch.float32) for cells in (rows, columns)]
    )
    unchanged = (sizes == side).all()
    scales = torch.where(unchanged, torch.ones_like(sizes), (sizes + 0.1) / side)
    weights = [
        _cubic_weights(cells, side, scale)
        for cells, scale in zip((rows, columns), scales, strict=True)
    ]
    return _resampled(table, side, *weights)


def antialiased_positions(table: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """The resampling of DINOv2 with registers: bicubic to a size, with antialiasing; arguments as above."""
    weights = [_antialiased_weights(cells, side, table.device) for cells in (rows, columns)]
    return _resampled(table, side, *weights)


def _resampled(table: Tensor, side: int, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(1, rows * columns, D) of a table (1, side * side, D) and weights (rows, side) and (columns, side)."""
    grid = table.float().unflatten(1, (side, side))  # (1, side, side, D)
    grid = (horizontal @ grid).permute(0, 2, 1, 3)  # (1, columns, side, D)
    grid = (vertical @ grid).permute(0, 2, 1, 3)  # (1, rows, columns, D)
    return grid.flatten(1, 2).to(table.dtype)


def _cubic_weights(count: int, side: int, scale: Tensor) -> Tensor:
    """(count, side): what every old cell gives to a new one; cells beyond the edge are those at the edge."""
    places = (torch.arange(count, device=scale.device) + 0.5) / scale - 0.5
    first = places.floor()
    cells = torch.arange(side, device=scale.device)
    weights = scale.new_zeros((1, side))
    for tap in range(-1, 3):
        cell = (first + tap).clamp(0, side - 1)
        share = _cubic((places - first - tap).abs(), _CUBIC)
        weights = weights + share[:, None] * (cell[:, None] == cells).float()
    return weights


def _antialiased_weights(count: int, side: int, device: torch.device) -> Tensor:
    """(count, side): the same with a kernel as wide as a new cell, whose shares inside the table sum to one."""
    scale = torch.full((), side, device=device) / torch.full(
        (), count, dtype=torch.float32, device=device
    )
    width = scale.clamp_min(1)
    centers = (torch.arange(count, device=device) + 0.5) * scale
    distances = (torch.arange(side, device=device) + 0.5 - centers[:, None]).abs() / width
    weights = _cubic(distances, _ANTIALIASED_CUBIC)
    return weights / weights.sum(dim=1, keepdim=True)


def _cubic(distances: Tensor, sharpness: float) -> Tensor:
    """Keys's cubic kernel (1981) at distances of 0 and more, in cells."""
    near = ((sharpness + 2) * distances - (sharpness + 3)) * distances * distances + 1
    far = ((distances - 5) * distances + 8) * distances * sharpness - 4 * sharpness
    return torch.where(distances <= 1, near, torch.where(distances < 2, far, torch.zeros_like(far)))


__all__ = ["antialiased_positions", "is_exporting", "scaled_positions", "width_and_height"]
