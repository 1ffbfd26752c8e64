"""The share of each class in the scores of a pixel, which is what maps give as confidence."""

import torch
from torch import Tensor


def class_shares(scores: Tensor, temperature: float | None = None) -> Tensor:
    """Shares of (K, ...) scores >= 0 in their sum over K, in 0..1; 0 where all scores are.

    A temperature above 1 makes a model less sure, one below 1 surer (Guo et al., On calibration of modern neural
    networks, 2017, section 4.2; our choice: the power is taken of shares, since the scores are sums over queries). It
    never changes which class is the top one.

    Args:
        scores: Sums over queries, as the model gives them.
        temperature: `config.confidence_temperature`; None for 1.
    """
    least = torch.finfo(scores.dtype).tiny
    shares = scores / scores.sum(0, keepdim=True).clamp_min(least)
    if temperature is None:
        return shares
    tempered = shares ** (1 / temperature)
    return tempered / tempered.sum(0, keepdim=True).clamp_min(least)
