"""What the tests share: a tiny model, a scene, and the folder of reference data where it is at hand."""

from pathlib import Path

import pytest
import torch
from paths import SHARED
from rasters import write_raster
from small_jobs import PIXELS
from tiny_model import tiny_config

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)

LONG_FILES = (
    "test_exporting.py",
    "test_engines.py",
    "test_wheel.py",
    "test_reliability.py",
    "test_notebooks.py",
    "test_deepness.py",
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


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which holds the scene in.tif."""
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "in.tif", PIXELS)
    return tmp_path
