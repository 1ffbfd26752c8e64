"""Which bands a scene reads, for models of three channels and of more; rasterio writes the rasters."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasters import write_raster

from crossearth_hf.errors import InputError
from crossearth_hf.raster.bands import choose_bands
from crossearth_hf.raster.raw_bands import transparency_band
from crossearth_hf.raster.scene import Scene

RED, GREEN, BLUE, ALPHA, OTHER = (
    ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha, ColorInterp.undefined,
)  # fmt: skip


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(1, 256, (6, 40, 60), dtype=np.uint8)


def write(path, pixels, *roles):
    """A raster with these roles of its bands; with none of its own rasterio takes a fourth band for transparency."""
    return write_raster(path, pixels, roles=roles or (OTHER,) * len(pixels))


def chosen(path, bands=None, num_channels=3):
    with rasterio.open(path) as source:
        return choose_bands(source, bands, num_channels, transparency_band(source))


def test_more_than_three_channels_are_the_first_bands_in_their_order(tmp_path, noise):
    path = write(tmp_path / "a.tif", noise, BLUE, GREEN, RED, OTHER, OTHER, OTHER)
    assert chosen(path) == [3, 2, 1]
    assert chosen(path, num_channels=4) == [1, 2, 3, 4]
    assert chosen(path, [3, 2, 1, 6], num_channels=4) == [3, 2, 1, 6]
    assert chosen(path, [2]) == [2]


def test_transparency_is_no_channel_unless_asked_for(tmp_path, noise):
    noise[2] = 255
    path = write(tmp_path / "a.tif", noise[:5], RED, GREEN, ALPHA, BLUE, OTHER)
    assert chosen(path, num_channels=4) == [1, 2, 4, 5]
    assert chosen(path, [1, 2, 3, 4], num_channels=4) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (
            None,
            r"a.tif has 3 bands of data, but the model takes 4 channels; give a raster with 4 bands, or use a model",
        ),
        (
            [1, 2, 3],
            r"bands 1,2,3 do not fit .*a.tif, which has 3 bands, and a model of 4 channels; give a raster with",
        ),
        ([1, 2, 3, 4], "bands 1,2,3,4 do not fit .* which has 3 bands, and a model of 4 channels"),
    ],
)
def test_too_few_bands_are_refused(tmp_path, noise, bands, message):
    path = write(tmp_path / "a.tif", noise[:3], RED, GREEN, BLUE)
    with pytest.raises(InputError, match=message):
        Scene(path, bands=bands, num_channels=4)


@pytest.mark.parametrize("bands", [[1], [1, 2, 3], [1, 2, 3, 4, 5], [0, 1, 2, 3], [1, 2, 3, 7]])
def test_other_numbers_than_the_channels_are_refused(tmp_path, noise, bands):
    path = write(tmp_path / "a.tif", noise)
    with pytest.raises(InputError, match="and a model of 4 channels; give 4 numbers from 1 to 6"):
        Scene(path, bands=bands, num_channels=4)


def test_a_band_that_is_wrongly_marked_as_transparency_is_named(tmp_path, noise):
    noise[3] = 255
    path = write(tmp_path / "a.tif", noise[:4], RED, GREEN, BLUE, ALPHA)
    with pytest.raises(
        InputError,
        match="band 4 is marked as transparency: if it holds data, choose the bands 1,2,3,4",
    ):
        Scene(path, num_channels=4)
    for resolution in (None, 1.0):
        with Scene(path, bands=[1, 2, 3, 4], num_channels=4, resolution=resolution) as scene:
            assert (scene.read(2, 3, 10, 10).pixels[3] == 255).all()


def test_a_scene_of_four_channels(tmp_path, noise):
    noise[3, :10] = 0  # data, although the band is marked as transparency
    path = write(tmp_path / "a.tif", noise[:4], RED, GREEN, BLUE, ALPHA)
    with Scene(path, bands=[1, 2, 3, 4], num_channels=4) as scene:
        raster = scene.read(5, 7, 20, 30)
        np.testing.assert_array_equal(raster.pixels, noise[:4, 5:25, 7:37])
        assert raster.valid.all()
        assert "bands 1,2,3,4 of 4 as 4 channels" in scene.summary()
        small = scene.thumbnail(60)
        np.testing.assert_array_equal(small.pixels, noise[:3])  # what is shown


def test_every_band_has_a_stretch_and_a_resolution_of_its_own(tmp_path, noise):
    factors = np.array([1, 20, 100, 200])[:, None, None]
    path = write(tmp_path / "a.tif", (noise[:4] * factors).astype(np.uint16))
    with Scene(path, num_channels=4) as scene:
        pixels = scene.read(0, 0, 40, 60).pixels
    for band, values in zip(pixels, noise, strict=False):
        low, high = np.percentile(values, (2, 98))
        expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
        assert np.abs(band - expected).max() <= 1
    with Scene(path, num_channels=4, resolution=1.0) as scene:  # from 0.5 m
        assert scene.read(0, 0, 20, 30).pixels.shape == (4, 20, 30)
        assert scene.read(0, 0, 20, 30).valid.all()
