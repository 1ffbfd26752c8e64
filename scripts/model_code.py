"""Writes the code that the models in hub_cards carry, as `save_pretrained` does: `make model-code`."""

from pathlib import Path

from transformers.dynamic_module_utils import custom_object_save

from crossearth_hf import (
    CrossEarthConfig,
    CrossEarthForSemanticSegmentation,
    CrossEarthImageProcessor,
)
from crossearth_hf.inference.loading import HUB_CARDS


def write_model_code(folder: Path) -> None:
    """Puts the modules of configuration, network and image processor into a folder, with those that they import."""
    for module in folder.glob("*.py"):
        module.unlink()
    for saved in (CrossEarthConfig, CrossEarthForSemanticSegmentation, CrossEarthImageProcessor):
        custom_object_save(saved, folder)


if __name__ == "__main__":
    for config in HUB_CARDS.glob("*/config.json"):
        write_model_code(config.parent)
