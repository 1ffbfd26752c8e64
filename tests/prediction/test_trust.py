"""Sentences beside maps that may not be trusted, and the mean confidence that they are about."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasters import write_raster
from stub_model import ColorModel

from crossearth_hf import CrossEarthImageProcessor
from crossearth_hf.prediction import predict
from crossearth_hf.prediction.trust import LEAST_CONFIDENCE, doubts
from crossearth_hf.raster.grid import Grid

COVER = ("land", "building", "road", "water", "vegetation")


def grid(meters):
    crs = rasterio.crs.CRS.from_epsg(32632)
    return Grid(100, 100, crs, Affine(meters, 0, 500_000, 0, -meters, 5_000_000))


def test_each_reason_has_its_sentence():
    assert doubts(grid(0.3), 3, COVER, 0.95, None) == ()
    (gray,) = doubts(grid(0.3), 1, COVER, 0.95, None)
    assert "one band" in gray
    (coarse,) = doubts(grid(10), 3, COVER, 0.95, None)
    assert "Pixels of 10 m hardly show any building or road" in coarse
    assert doubts(grid(10), 3, COVER, 0.95, 10.0) == (), (
        "the advice on the resolution speaks of models that know it"
    )
    assert doubts(grid(10), 3, ("water", "wood"), 0.95, None) == ()
    (unsure,) = doubts(grid(0.3), 3, COVER, LEAST_CONFIDENCE - 0.1, None)
    assert f"mean confidence is {LEAST_CONFIDENCE - 0.1:.2f}" in unsure
    assert doubts(grid(0.3), 3, COVER, None, None) == ()


@pytest.mark.parametrize("resolution", [None, 3.0])
def test_a_report_has_the_mean_confidence_and_the_doubts(tmp_path, resolution):
    pixels = np.random.default_rng(0).integers(100, 160, (3, 100, 120), dtype=np.uint8)
    pixels[:, :30, :40] = 0
    write_raster(
        tmp_path / "a.tif", pixels, nodata=0, transform=Affine(2, 0, 500_000, 0, -2, 5_000_000)
    )
    report = predict(
        tmp_path / "a.tif", tmp_path / "m.tif", model=(ColorModel(), CrossEarthImageProcessor()), progress=False,
        confidence=tmp_path / "c.tif", window=64, resolution=resolution, tell=None,
    )  # fmt: skip
    with rasterio.open(tmp_path / "c.tif") as source:
        mean = float(source.read(1, masked=True).mean()) * source.scales[0] + source.offsets[0]
    assert report.confidence == pytest.approx(mean, abs=0.003 if resolution is None else 0.02)
    (unsure,) = report.doubts
    assert unsure in report.table()
    assert f"mean confidence is {report.confidence:.2f}" in unsure
