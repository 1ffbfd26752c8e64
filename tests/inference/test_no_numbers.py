"""Weights and scores that are not numbers are refused, wherever they come from."""

import numpy as np
import pytest
import torch
from affine import Affine
from tiny_model import tiny_config

from crossearth_hf import CrossEarthForSemanticSegmentation, CrossEarthImageProcessor
from crossearth_hf.cli import main
from crossearth_hf.errors import InputError
from crossearth_hf.inference.loading import load_model
from crossearth_hf.inference.windows import WindowScorer
from crossearth_hf.raster.writing import write_geotiff

PROCESSOR = CrossEarthImageProcessor()


def saved(folder, change):
    torch.manual_seed(0)
    model = CrossEarthForSemanticSegmentation(tiny_config())
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def all_nan(model):
    for parameter in model.parameters():
        parameter.fill_(float("nan"))


def one_infinity(model):
    model.pixel_decoder.mask_projection.weight[0, 0] = float("inf")


def beyond_half(model):
    model.class_predictor.weight[0, 0] = 1e6


@pytest.mark.parametrize("change", [all_nan, one_infinity])
def test_a_model_without_numbers_makes_no_map(tmp_path, capsys, change):
    model = saved(tmp_path / "model", change)
    pixels = np.full((3, 40, 40), 99, np.uint8)
    write_geotiff(tmp_path / "s.tif", pixels, crs=None, transform=Affine(1, 0, 5e5, 0, -1, 5e6))
    assert (
        main(["predict", str(tmp_path / "s.tif"), str(tmp_path / "m.tif"), "--model", str(model)])
        == 2
    )
    assert "hold NaN or infinity in" in capsys.readouterr().err
    assert not (tmp_path / "m.tif").exists()


def test_weights_that_a_precision_cannot_hold_are_refused_in_it_alone(tmp_path):
    model = saved(tmp_path / "model", beyond_half)
    load_model(model, device="cpu")
    with pytest.raises(
        InputError, match=r"infinity in class_predictor\.weight, in float16; use float32"
    ):
        load_model(model, device="cpu", dtype="float16")


@torch.inference_mode()
def test_scores_without_numbers_are_refused(model):
    model.pixel_decoder.mask_projection.weight *= 1e30  # finite weights whose products are not
    for parameter in model.transformer_module.decoder.mask_predictor.parameters():
        parameter *= 1e30
    with pytest.raises(
        InputError, match=r"model's scores are not numbers \(NaN\) in float32; convert or train"
    ):
        WindowScorer(model)(torch.randn(2, 3, 64, 64))
    output = model(torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="scores are not numbers"):
        PROCESSOR.post_process_semantic_segmentation(output, [(64, 64)])
