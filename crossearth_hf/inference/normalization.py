"""From 8-bit pixels to the network's input, in one function, so that training and maps use the same numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError


def normalize_pixels(
    pixels: Tensor,
    valid: Tensor | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    rescale_factor: float = 1 / 255,
) -> Tensor:
    """Rescales and normalizes images as the image processor does; pixels without data become 0, the mean.

    Args:
        pixels: (..., C, H, W) in 0..255, any type.
        valid: (..., H, W) bool, False where there is no data; None if all pixels have data.
        mean, std: C numbers each, for the rescaled pixels of each channel.
        rescale_factor: Factor that is applied to the pixels first.

    Returns:
        (..., C, H, W) float32 on the device of `pixels`.

    Raises:
        InputError: The images have another number of channels than the mean.
    """
    if pixels.shape[-3] != len(mean):
        raise InputError(
            f"the image has {pixels.shape[-3]} channels, but the model takes {len(mean)}; choose {len(mean)} bands"
        )
    channels = [torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (mean, std)]
    normalized = (
        pixels.to(torch.float32, copy=True).mul_(rescale_factor).sub_(channels[0]).div_(channels[1])
    )
    if valid is None:
        return normalized
    return normalized.mul_(valid.unsqueeze(-3))
