"""A saved folder in a process that does not have this package."""

import subprocess
import sys

import torch

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
results = []
for folder in sys.argv[2:]:
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
    results.append(result)
torch.save(results, sys.argv[1])
"""


def opened_by_a_stranger(folders, tmp_path, monkeypatch):
    """What a process without the package computes from each of some saved folders."""
    out = tmp_path / "result.pt"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command = [sys.executable, "-c", STRANGER, str(out), *map(str, folders)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(out, weights_only=True)
