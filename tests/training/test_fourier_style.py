"""The Fourier mix: phases stay, only low amplitudes move, an image depends on its own seed and the batch."""

import torch

from crossearth_hf.training.fourier_style import BAND, mix_amplitudes


def images(count=3):
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


def test_high_frequencies_and_phases_stay():
    batch = images()
    mixed = mix_amplitudes(batch, 1.0, [1, 2, 3])
    before, after = (torch.fft.fftshift(torch.fft.fft2(x), dim=(-2, -1)) for x in (batch, mixed))
    low = torch.zeros(64, 96, dtype=torch.bool)
    rows, columns = max(1, int(64 * BAND)), max(1, int(96 * BAND))
    low[32 - rows : 32 + rows + 1, 48 - columns : 48 + columns + 1] = True
    torch.testing.assert_close(after[..., ~low], before[..., ~low], atol=1e-3, rtol=1e-3)
    assert (after[..., low].abs() - before[..., low].abs()).abs().max() > 1
    torch.testing.assert_close(
        after[..., low].angle().cos(), before[..., low].angle().cos(), atol=1e-3, rtol=1e-3
    )


def test_the_mean_color_moves_towards_the_other_image():
    dark, bright = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.8)
    mixed = mix_amplitudes(torch.cat([dark, bright]), 1.0, [5, 6])
    assert 0.2 < mixed[0].mean() < 0.8
    assert 0.2 < mixed[1].mean() < 0.8


def test_probability_and_seeds_decide():
    batch = images()
    assert torch.equal(mix_amplitudes(batch, 0.0, [1, 2, 3]), batch)
    assert torch.equal(mix_amplitudes(batch, 1.0, [1, 2, 3]), mix_amplitudes(batch, 1.0, [1, 2, 3]))
    assert not torch.equal(
        mix_amplitudes(batch, 1.0, [1, 2, 3])[0], mix_amplitudes(batch, 1.0, [9, 2, 3])[0]
    )
    assert torch.equal(mix_amplitudes(batch[:1], 1.0, [1]), batch[:1])  # nobody to mix with


def test_every_channel_is_mixed_by_itself():
    batch = torch.rand(3, 5, 64, 96, generator=torch.Generator().manual_seed(1))
    mixed = mix_amplitudes(batch, 1.0, [1, 2, 3])
    for channels in ([0, 1, 2], [4], [3, 4]):
        torch.testing.assert_close(
            mix_amplitudes(batch[:, channels], 1.0, [1, 2, 3]), mixed[:, channels]
        )
