"""Convolutions of the stem in lower precision; test_imagenet_stem has the network as a whole."""

import pytest
import torch
from torch.nn import functional as F

from crossearth_hf.model.modeling_efficientnet_lite import Convolution


@pytest.mark.parametrize("stride", [1, 2])
def test_a_trained_depthwise_convolution_leaves_autocast_and_comes_back(stride):
    torch.manual_seed(0)
    layer = Convolution(8, 8, kernel=5, stride=stride, groups=8)
    maps = torch.randn(2, 8, 12, 16).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(maps)
        with torch.no_grad():
            unlearned = layer(maps)
    assert found.dtype == unlearned.dtype == torch.bfloat16

    exact = maps.detach().double().requires_grad_()
    weight = layer.weight.detach().double().requires_grad_()
    before = (5 - stride) // 2
    padded = F.pad(exact, (before, 5 - stride - before) * 2)
    expected = F.conv2d(padded, weight, layer.bias.double(), stride, groups=8)
    upstream = torch.randn(found.shape).bfloat16()
    found.backward(upstream)
    expected.backward(upstream.double())
    # one rounding to bfloat16
    assert torch.allclose(found.double(), expected, rtol=2**-7, atol=1e-3)
    # none; in bfloat16 1e-1
    assert torch.allclose(layer.weight.grad.double(), weight.grad, atol=1e-4)
    assert torch.allclose(maps.grad.double(), exact.grad, rtol=2**-7, atol=1e-3)


def test_autocast_decides_elsewhere():
    pointwise = Convolution(8, 8, kernel=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert pointwise(torch.randn(1, 8, 4, 4)).dtype == torch.bfloat16
    assert Convolution(8, 8, kernel=3, groups=8)(torch.randn(1, 8, 4, 4)).dtype == torch.float32
