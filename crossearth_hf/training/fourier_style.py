"""Fourier style mix (FDA, Yang & Soatto, CVPR 2020): an alternative to Earth-Style Injection without networks."""

from collections.abc import Sequence

import torch
from torch import Tensor

BAND = 0.02
"""Half the side of the exchanged square of low frequencies, as a share of the image's side."""


def mix_amplitudes(images: Tensor, probability: float, seeds: Sequence[int]) -> Tensor:
    """Gives images low-frequency amplitudes of another image of the batch; phases, and so shapes, stay.

    With several processes the images of one process are mixed with each other.

    Args:
        images: (B, C, H, W) in [0, 1]; each channel is mixed separately.
        probability: Share of the images that are mixed.
        seeds: A seed for each image. It decides whether the image is mixed, its partner, and the weight of the partner
            (uniform in [0, 1]).

    Returns:
        (B, C, H, W) in [0, 1]; images that are not mixed do not change at all.
    """
    if len(images) == 1:
        return images
    result = images.clone()
    spectra = torch.fft.fftshift(torch.fft.fft2(images.float()), dim=(-2, -1))
    band = (..., _middle(images.shape[-2]), _middle(images.shape[-1]))
    for index, seed in enumerate(seeds):
        draw, partner, weight = torch.rand(
            3, generator=torch.Generator().manual_seed(seed)
        ).tolist()
        if draw >= probability:
            continue
        other = (index + 1 + int(partner * (len(images) - 1))) % len(images)
        amplitude = spectra[index].abs()
        amplitude[band] = amplitude[band].lerp(spectra[other].abs()[band], weight)
        spectrum = torch.polar(amplitude, spectra[index].angle())
        mixed = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1))).real
        result[index] = mixed.clamp(0, 1).to(images.dtype)
    return result


def _middle(side: int) -> slice:
    """The low frequencies of a centered spectrum along one axis."""
    reach = max(1, int(side * BAND))
    return slice(side // 2 - reach, side // 2 + reach + 1)
