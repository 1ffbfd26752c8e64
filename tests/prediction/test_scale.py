"""A country-sized scene goes through a fixed amount of memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from rasters import with_legend

SIDES = (7_500, 15_000, 22_500, 30_000)
MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]

# In a process of its own, for the peak of its memory. The network costs next to nothing: one query for each of six
# classes, masks at a quarter of the resolution, as the real one has them.
RUN = """
import json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import rasterio
import torch
from affine import Affine

from crossearth_hf import CrossEarthConfig, CrossEarthImageProcessor
from crossearth_hf.raster.scene import Scene
from crossearth_hf.prediction import MapOutputs, predict_map
from crossearth_hf.inference.memory import keep_freed_memory

side, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
keep_freed_memory()  # as the command does


class Free(torch.nn.Module):
    device, dtype = torch.device("cpu"), torch.float32
    config = CrossEarthConfig(num_labels=6)

    def forward(self, pixel_values):
        masks = pixel_values[:, :, ::4, ::4].repeat(1, 2, 1, 1)
        classes = torch.eye(6, 7).expand(len(masks), -1, -1) * 9
        return SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


profile = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", tiled=True, compress="deflate",
               crs="EPSG:32632", transform=Affine(1, 0, 5e5, 0, -1, 5e6), sparse_ok=True)
with rasterio.open(folder / "scene.tif", "w", **profile) as scene:
    drawn = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    for start in range(0, side - 256, 2560):
        scene.write(drawn, window=rasterio.windows.Window(start, start, 256, 256))
before, start = peak(), time.process_time()
outputs = MapOutputs.checked(folder / "scene.tif", folder / "map.tif", confidence=folder / "c.tif", overwrite=True)
with Scene(folder / "scene.tif") as scene:
    report = predict_map(scene, outputs, Free(), CrossEarthImageProcessor(), window=512, stride=341, progress=False)
seconds = time.process_time() - start
print(json.dumps({"memory": peak() - before, "seconds": seconds, "pixels": int(report.pixels.sum())}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", SIDES)
def test_memory_does_not_grow_with_the_scene(tmp_path, side):
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(side), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    measured = json.loads(run.stdout.splitlines()[-1])
    print(side, measured)  # shown by -s: processor seconds over pixels lie on a line
    assert measured["pixels"] == side**2
    assert measured["memory"] < 1024 * MIB
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "c.tif",
        *with_legend("map.tif"),
        "scene.tif",
    ]
