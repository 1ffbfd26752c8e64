"""Normalization, judged by the image processor, and by hand."""

import numpy as np
import pytest
import torch

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.errors import InputError
from crossearth_hf.inference.normalization import normalize_pixels
from crossearth_hf.inference.windows import normalize
from crossearth_hf.raster.scene import Raster

PROCESSOR = CrossEarthImageProcessor()
NUMBERS = {
    "mean": PROCESSOR.image_mean,
    "std": PROCESSOR.image_std,
    "rescale_factor": PROCESSOR.rescale_factor,
}


def test_the_processor_gives_the_same_numbers():
    image = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    theirs = PROCESSOR(images=[image], return_tensors="pt")["pixel_values"][0]
    ours = normalize_pixels(torch.from_numpy(image).permute(2, 0, 1), **NUMBERS)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_pixels_without_data_are_the_mean_as_in_prediction():
    rng = np.random.default_rng(0)
    pixels, valid = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8), rng.random((4, 5)) < 0.5
    ours = normalize_pixels(torch.from_numpy(pixels), torch.from_numpy(valid), **NUMBERS)
    assert torch.equal(ours, normalize(Raster(pixels, valid, None, None), PROCESSOR))
    assert (ours[:, ~torch.from_numpy(valid)] == 0).all()


def test_batches_keep_their_shape_and_factor():
    batch = torch.full((2, 3, 4, 4), 1000, dtype=torch.int32)
    out = normalize_pixels(batch, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0), rescale_factor=1e-3)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out[1, :, 2, 3], torch.tensor([1.0, 1.0, 0.0]))


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(
        InputError, match="the image has 4 channels, but the model takes 3; choose 3 bands"
    ):
        normalize_pixels(torch.zeros(2, 4, 8, 8), **NUMBERS)
