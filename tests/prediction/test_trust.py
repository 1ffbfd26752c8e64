"""Sentences beside maps that may not be trusted, and the mean confidence that they are about."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasters import write_raster
from shapely.geometry import mapping
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


@pytest.mark.parametrize("part", ["data", "area"])
def test_at_another_resolution_only_mapped_pixels_count(tmp_path, part):
    """The left quarter is a pure color, which the model is sure of; the rest is not, or has no data."""
    pixels = np.full((3, 100, 120), 0 if part == "data" else 128, np.uint8)
    pixels[:, :, :30] = np.array([255, 1, 1])[:, None, None]
    place = Affine(2, 0, 500_000, 0, -2, 5_000_000)
    nodata = 0 if part == "data" else None
    write_raster(tmp_path / "a.tif", pixels, nodata=nodata, transform=place)
    options = {"model": (ColorModel(), CrossEarthImageProcessor()), "progress": False, "tell": None}
    if part == "area":
        left = shapely.box(500_000, 5_000_000 - 200, 500_060, 5_000_000)
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
        feature = {"type": "Feature", "properties": {}, "geometry": mapping(left)}
        layer = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
        (tmp_path / "left.geojson").write_text(json.dumps(layer))
        options["aoi"] = tmp_path / "left.geojson"
    report = predict(
        tmp_path / "a.tif", tmp_path / "m.tif", confidence=tmp_path / "c.tif", window=64,
        resolution=3.0, **options,
    )  # fmt: skip
    with rasterio.open(tmp_path / "c.tif") as source:
        mean = float(source.read(1, masked=True).mean()) * source.scales[0]
    assert mean > 0.8
    assert report.confidence == pytest.approx(mean, abs=0.02)
