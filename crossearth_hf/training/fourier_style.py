"""Fourier style mix (FDA, Yang & Soatto, CVPR 2020): a peer of Earth-Style Injection that needs no networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

BAND = 0.02
"""Half the side of the square of low frequencies that is exchanged, as a share of the image's side."""


def mix_amplitudes(images: Tensor, probability: float, seeds: Sequence[int]) -> Tensor:
    """Gives images the low-frequency amplitudes of another image of the batch; the phases, and so the shapes, stay.

    In a run of several processes the batch is that of one of them.

    Args:
        images: (B, C, H, W) in [0, 1]; every channel is mixed by itself.
        probability: Share of the images that are mixed.
        seeds: One per image: whether it is mixed, with which image and how far (uniform in [0, 1]).

    Returns:
        (B, C, H, W) in [0, 1]; images that are not mixed do not change at all.
    """
    result = images.clone()
    spectra = torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1))
    height, width = images.shape[-2:]
    rows, columns = max(1, int(height * BAND)), max(1, int(width * BAND))
    band = (
        ...,
        slice(height // 2 - rows, height // 2 + rows + 1),
        slice(width // 2 - columns, width // 2 + columns + 1),
    )
    for index, seed in enumerate(seeds):
        draws = torch.rand(3, generator=torch.Generator().manual_seed(seed)).tolist()
        if draws[0] >= probability or len(images) == 1:
            continue
        other = (index + 1 + int(draws[1] * (len(images) - 1))) % len(images)
        amplitude, phase = spectra[index].abs(), spectra[index].angle()
        amplitude[band] = amplitude[band].lerp(spectra[other].abs()[band], draws[2])
        mixed = torch.fft.ifft2(torch.fft.ifftshift(torch.polar(amplitude, phase), dim=(-2, -1))).real
        result[index] = mixed.clamp(0, 1).to(images.dtype)
    return result
