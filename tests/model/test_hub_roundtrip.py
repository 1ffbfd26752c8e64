"""A saved folder works in a process that does not have this package."""

import json
import subprocess
import sys

import pytest
import torch

from crossearth_hf import CrossEarthImageProcessor

CODE_FILES = {
    "configuration_crossearth.py",
    "cpu_kernels.py",
    "earth_style.py",
    "image_inputs.py",
    "image_processing_crossearth.py",
    "loss_crossearth.py",
    "modeling_crossearth.py",
    "modeling_efficientnet_lite.py",
    "modeling_head.py",
    "modeling_rein.py",
    "style_networks.py",
}

STRANGER = """
import sys, torch
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "crossearth_hf":
            raise ImportError("not installed here")
sys.meta_path.insert(0, Blocker())
import transformers
torch.set_num_threads(1)  # as in the tests: sums depend on it in the last bit,
torch.set_grad_enabled(False)  # and on whether anyone wants gradients
folder, out = sys.argv[1:]
result = {}
image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
for auto in ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"):
    model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True).eval()
    result[auto] = model(image).logits.detach()
result["base"] = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()(
    image
).feature_maps[2].detach()
processor = transformers.AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
result["pixels"] = processor(torch.zeros(3, 20, 20, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
if processor.do_earth_style_injection:
    image = torch.arange(3 * 32 * 40, dtype=torch.uint8).view(3, 32, 40)
    result["styled"] = processor(image, return_tensors="pt")["pixel_values"]
assert type(model.config).__module__.startswith("transformers_modules")
torch.save(result, out)
"""


def opened_by_a_stranger(folder, tmp_path, monkeypatch):
    """What a process without the package computes from a saved folder."""
    out = tmp_path / "result.pt"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [sys.executable, "-c", STRANGER, str(folder), str(out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("with_styles", [False, True])
def test_a_saved_folder_loads_where_the_package_is_missing(model, tmp_path, monkeypatch, with_styles):
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    options = {"do_earth_style_injection": True, "style_probability": 1.0, "style_block_size": 8, "style_seed": 2}
    processor = CrossEarthImageProcessor(**(options if with_styles else {}))
    processor.save_pretrained(folder)
    assert {path.name for path in folder.glob("*.py")} == CODE_FILES
    names = {path.name for path in folder.iterdir()}
    styles = {"earth_style.safetensors"} if with_styles else set()
    assert names == CODE_FILES | styles | {"config.json", "model.safetensors", "preprocessor_config.json"}
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
    }

    found = opened_by_a_stranger(folder, tmp_path, monkeypatch)
    image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image).logits
        base = model.model(image).feature_maps[2]
    for auto in ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"):
        torch.testing.assert_close(found[auto], expected, rtol=0, atol=0)
    torch.testing.assert_close(found["base"], base, rtol=0, atol=0)
    if with_styles:
        image = torch.arange(3 * 32 * 40, dtype=torch.uint8).view(3, 32, 40)
        styled = processor(image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found["styled"], styled, rtol=0, atol=0)
    else:
        pixels = processor(torch.zeros(3, 20, 20, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found["pixels"], pixels, rtol=0, atol=0)


def test_the_base_models_folder_ships_the_same_code(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == CODE_FILES
