"""A saved folder works in a process that does not have this package."""

import json

import torch
from strangers import opened_by_a_stranger

from crossearth_hf import CrossEarthImageProcessor

CODE_FILES = {
    "configuration_crossearth.py",
    "cpu_kernels.py",
    "earth_style.py",
    "free_sizes.py",
    "image_inputs.py",
    "image_processing_crossearth.py",
    "loss_crossearth.py",
    "loss_points.py",
    "modeling_crossearth.py",
    "modeling_efficientnet_lite.py",
    "modeling_head.py",
    "modeling_backbone.py",
    "modeling_rein.py",
    "style_networks.py",
    "configuration_checks.py",
    "modeling_outputs.py",
    "modeling_pretrained.py",
    "presets.py",
    "processor_settings.py",
    "semantic_scores.py",
    "style_bank.py",
    "style_files.py",
}
OF_THE_PROCESSOR = {
    "earth_style.py",
    "image_inputs.py",
    "image_processing_crossearth.py",
    "processor_settings.py",
    "style_bank.py",
    "style_files.py",
    "style_networks.py",
}
"""Modules that come with a saved image processor."""


def test_saved_folders_load_where_the_package_is_missing(model, tmp_path, monkeypatch):
    styling = CrossEarthImageProcessor(
        do_earth_style_injection=True, style_probability=1.0, style_block_size=8, style_seed=2
    )
    processors = {"plain": CrossEarthImageProcessor(), "styled": styling}
    for name, processor in processors.items():
        folder = tmp_path / name
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        assert {path.name for path in folder.glob("*.py")} == CODE_FILES
        styles = {"earth_style.safetensors"} if name == "styled" else set()
        assert {path.name for path in folder.iterdir()} == CODE_FILES | styles | {
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
        assert set(auto_map) == {
            "AutoConfig",
            "AutoModel",
            "AutoModelForSemanticSegmentation",
            "AutoModelForUniversalSegmentation",
        }

    folders = [tmp_path / name for name in processors]
    plain, styled = opened_by_a_stranger(folders, tmp_path, monkeypatch)
    image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image).logits
        base = model.model(image).feature_maps[2]
    for found in (plain, styled):
        for auto in ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"):
            torch.testing.assert_close(found[auto], expected, rtol=0, atol=0)
        torch.testing.assert_close(found["base"], base, rtol=0, atol=0)
    black = torch.zeros(3, 20, 20, dtype=torch.uint8)
    pixels = processors["plain"](black, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(plain["pixels"], pixels, rtol=0, atol=0)
    image = torch.arange(3 * 32 * 40, dtype=torch.uint8).view(3, 32, 40)
    expected = styling(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(styled["styled"], expected, rtol=0, atol=0)


def test_the_base_models_folder_ships_the_code_of_networks(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == CODE_FILES - OF_THE_PROCESSOR
