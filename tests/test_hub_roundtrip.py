"""A saved folder works in a process that does not have this package."""

import json
import subprocess
import sys

import torch

from crossearth_hf import CrossEarthImageProcessor

CODE_FILES = {
    "configuration_crossearth.py",
    "image_processing_crossearth.py",
    "loss_crossearth.py",
    "modeling_crossearth.py",
}

STRANGER = """
import sys, torch
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "crossearth_hf":
            raise ImportError("not installed here")
sys.meta_path.insert(0, Blocker())
import transformers
torch.set_num_threads(1)  # as in the tests: sums depend on it in the last bit
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
assert type(model.config).__module__.startswith("transformers_modules")
torch.save(result, out)
"""


def test_a_saved_folder_loads_where_the_package_is_missing(model, tmp_path, monkeypatch):
    folder, out = tmp_path / "model", tmp_path / "result.pt"
    model.save_pretrained(folder)
    processor = CrossEarthImageProcessor()
    processor.save_pretrained(folder)
    assert {path.name for path in folder.glob("*.py")} == CODE_FILES
    names = {path.name for path in folder.iterdir()}
    assert names == CODE_FILES | {"config.json", "model.safetensors", "preprocessor_config.json"}
    auto_map = json.loads((folder / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForSemanticSegmentation",
        "AutoModelForUniversalSegmentation",
    }

    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [sys.executable, "-c", STRANGER, str(folder), str(out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    found = torch.load(out, weights_only=True)
    image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image).logits
        base = model.model(image).feature_maps[2]
    for auto in ("AutoModelForSemanticSegmentation", "AutoModelForUniversalSegmentation"):
        torch.testing.assert_close(found[auto], expected, rtol=0, atol=0)
    torch.testing.assert_close(found["base"], base, rtol=0, atol=0)
    pixels = processor(torch.zeros(3, 20, 20, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found["pixels"], pixels, rtol=0, atol=0)


def test_the_base_models_folder_ships_the_same_code(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == CODE_FILES
