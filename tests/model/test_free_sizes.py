"""Resampling whose sizes are unknowns gives what PyTorch's kernels give for numbers."""

import pytest
import torch
from torch.nn import functional as F

from crossearth_hf.model.free_sizes import antialiased_positions, scaled_positions

SIDE, WIDTH = 6, 5
SIZES = [(6, 6), (6, 7), (3, 9), (13, 2), (1, 6), (24, 30)]


@pytest.fixture(scope="module")
def table():
    return torch.randn(
        1, SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )


def grid_of(table):
    return table.unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", SIZES)
def test_scaled_positions_are_those_of_the_scale_factor_rule(table, size):
    scale = tuple((cells + 0.1) / SIDE for cells in size)
    expected = (
        F.interpolate(grid_of(table), scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)
    )
    if size == (SIDE, SIDE):
        expected = table
    torch.testing.assert_close(scaled_positions(table, SIDE, *size), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_antialiased_positions_are_those_of_pytorch(table, size):
    resized = F.interpolate(grid_of(table), size=size, mode="bicubic", antialias=True)
    found = antialiased_positions(table, SIDE, *size)
    torch.testing.assert_close(found, resized.flatten(2).transpose(1, 2), atol=2e-5, rtol=0)
