"""Another pixel size, read by windows: no seams, and neighbors without data do not count."""

import numpy as np
import pytest

from crossearth_hf.raster import resampling
from crossearth_hf.raster.resampling import read_resampled

SIZE = (90, 140)


@pytest.fixture
def bands():
    rng = np.random.default_rng(0)
    masks = np.ones((2, *SIZE), dtype=bool)
    masks[0, 20:40, 30:60] = masks[1, 60:, :50] = False
    return rng.integers(100, 4000, (2, *SIZE)).astype(np.uint16), masks


def reader(bands):
    values, masks = bands
    return lambda row, col, h, w: (
        values[:, row : row + h, col : col + w],
        masks[:, row : row + h, col : col + w],
    )


@pytest.mark.parametrize("scale", [(2.6, 2.6), (0.7, 0.7), (1.37, 3.1), (7.3, 5.0)])
def test_windows_and_blocks_have_no_seams(bands, scale, monkeypatch):
    height, width = (int(n / s) for n, s in zip(SIZE, scale, strict=True))
    whole = read_resampled(reader(bands), SIZE, scale, (0, 0, height, width))
    row, col = height // 3, width // 4
    part = read_resampled(reader(bands), SIZE, scale, (row, col, height - row - 2, width - col - 1))
    monkeypatch.setattr(resampling, "_SOURCE_SIDE", 30)
    blocks = read_resampled(reader(bands), SIZE, scale, (0, 0, height, width))
    inner = np.s_[:, row : height - 2, col : width - 1]
    for values, masks, where in ((*part, inner), (*blocks, np.s_[:])):
        np.testing.assert_array_equal(masks, whole[1][where])
        np.testing.assert_allclose(values, whole[0][where].astype(float), atol=1)  # rounding


def test_what_is_no_data_does_not_count(bands):
    values, masks = bands
    clean = read_resampled(reader((values, masks)), SIZE, (2.0, 2.0), (0, 0, 45, 70))
    spoilt = read_resampled(
        reader((np.where(masks, values, 65535), masks)), SIZE, (2.0, 2.0), (0, 0, 45, 70)
    )
    np.testing.assert_array_equal(clean[0], spoilt[0])
    np.testing.assert_array_equal(clean[1], spoilt[1])
    assert not clean[1][0, 11:19, 16:29].any()
    assert clean[0][clean[1]].max() < 4000


def test_a_constant_stays_and_nearest_takes_values_over(bands):
    constant = np.full((1, *SIZE), 7, np.float32), np.ones((1, *SIZE), dtype=bool)
    values, masks = read_resampled(reader(constant), SIZE, (2.0, 2.0), (0, 0, 45, 70))
    np.testing.assert_allclose(values, 7, rtol=1e-6)
    assert masks.all()
    values, _ = read_resampled(
        reader((bands[0], bands[1] | True)), SIZE, (3.0, 3.0), (0, 0, 30, 46), nearest=True
    )
    np.testing.assert_array_equal(values, bands[0][:, 1::3, 1::3][:, :30, :46])
