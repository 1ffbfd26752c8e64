"""What the tests share: a tiny configuration, and the folder of reference data where it is at hand."""

from pathlib import Path

import pytest
import torch
from rasters import write_raster
from small_jobs import PIXELS

from crossearth_hf import CrossEarthConfig, CrossEarthForSemanticSegmentation, CrossEarthImageProcessor

torch.set_num_threads(1)  # tensors are tiny here: threads would only wait for one another

SHARED = Path(__file__).resolve().parents[2] / "shared"

VIT = {
    "model_type": "dinov2",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "use_mask_token": False,
}


def tiny_config(**overrides: object) -> CrossEarthConfig:
    """The sizes of the reference checkpoint: width 64, four blocks, 64 px, ten tokens of rank 4."""
    fields = {
        "backbone_config": VIT,
        "out_indices": (0, 1, 2, 3),
        "rein_num_tokens": 10,
        "num_queries": 10,
        "rein_rank": 4,
        "hidden_dim": 32,
        "feature_size": 32,
        "mask_feature_size": 32,
        "encoder_layers": 2,
        "encoder_feedforward_dim": 48,
        "decoder_layers": 5,
        "dim_feedforward": 80,
        "num_attention_heads": 4,
        "group_norm_groups": 8,
        "train_num_points": 64,
        "window_stride": 43,
        "num_labels": 6,
    }
    return CrossEarthConfig(**(fields | overrides))


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
