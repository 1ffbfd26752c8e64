"""What the tests share: a tiny model, a scene, and the folder of reference data where it is at hand."""

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from paths import SHARED
from rasters import write_raster
from small_jobs import PIXELS
from speed.materials import spread_queries
from tiny_model import VIT, tiny_config

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)

LONG_FILES = (
    "test_exporting.py",
    "test_wheel.py",
    "test_reliability.py",
    "test_notebooks.py",
    "test_distributed.py",
    "test_memory.py",
    "test_hub_roundtrip.py",
    "test_modeling_crossearth.py",
    "test_fuzz.py",
    "test_workers.py",
)
"""Files of more than half a minute, which come first: at the end, one of them would keep one core busy alone."""

torch.set_num_threads(1)  # tensors are tiny here: threads would only wait for one another


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture
def config() -> CrossEarthConfig:
    return tiny_config()


@pytest.fixture
def model(config: CrossEarthConfig) -> CrossEarthForSemanticSegmentation:
    torch.manual_seed(0)
    return CrossEarthForSemanticSegmentation(config).eval()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.exists():
        pytest.skip("the reference data is not here")
    return SHARED


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and its processor on disk."""
    folder = tmp_path_factory.mktemp("model")
    CrossEarthForSemanticSegmentation(tiny_config()).save_pretrained(folder)
    CrossEarthImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def traced_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, its processor and its graph, logits.onnx; all test processes share one, for tracing is slow."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "traced"
    with FileLock(root / "traced.lock"):
        if not (folder / "logits.onnx").exists():
            _save_traced(folder)
    return folder


def _save_traced(folder: Path) -> None:
    import onnx  # noqa: PLC0415

    from crossearth_hf.export.graph import logits_graph  # noqa: PLC0415

    torch.manual_seed(0)
    config = tiny_config(
        class_factors=[0.5, 1.0, 0.8, 0.6, 0.7, 0.9],
        ground_sampling_distance=0.5,
        encoder_layers=1,
        decoder_layers=2,
        out_indices=(0, 0, 1, 1),
        backbone_config=VIT | {"num_hidden_layers": 2},
    )
    model = CrossEarthForSemanticSegmentation(config).eval()
    spread_queries(
        model
    )  # those of a fresh head are nearly alike, and rounding would decide between classes
    model.save_pretrained(folder)
    CrossEarthImageProcessor(
        image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3]
    ).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Tiny\n")
    onnx.save(logits_graph(model), folder / "logits.onnx")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which holds the scene in.tif."""
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "in.tif", PIXELS)
    return tmp_path
