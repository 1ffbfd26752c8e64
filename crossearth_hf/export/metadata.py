"""What an exported file says about itself: classes, colors, normalization, pixel size, license."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ..labels import label_set_of
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .networks import PATCH, Form


def file_metadata(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    folder: Path,
    form: Form,
) -> dict[str, str]:
    """Keys and values, each in JSON.

    Args:
        model, processor: As `load_model` returns them.
        folder: Where they came from; the license stands in its card.
        form: What goes into the file and what comes out.

    Returns:
        Always `class_names` ({"0": name, ...}), `class_colors` (red, green and blue by class), `image_mean`,
        `image_std`, `rescale_factor`, `size_multiple`, `least_side`, `window` and `stride` in pixels, `input`,
        `output`; where there is one `ground_sampling_distance` in meters, `confidence_temperature` and `license`.
    """
    config, classes = model.config, label_set_of(model.config)
    known: dict[str, Any] = {
        "class_names": {str(index): name for index, name in enumerate(classes.classes)},
        "class_colors": [list(color) for color in classes.colors],
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "rescale_factor": processor.rescale_factor,
        "ground_sampling_distance": config.ground_sampling_distance,
        "confidence_temperature": config.confidence_temperature,
        "license": stated_license(folder),
        "size_multiple": PATCH,
        "least_side": config.least_side,
        "window": config.image_size,
        "stride": config.window_stride,
        "input": form.input,
        "output": form.output,
    }
    return {key: json.dumps(value) for key, value in known.items() if value is not None}


def deepness_metadata(model: CrossEarthForSemanticSegmentation) -> dict[str, str]:
    """What QGIS's plugin Deepness reads from a file beside `class_names`, each in JSON.

    Source: its page "Adding metadata to ONNX model"; `tile_size` is what its code reads for `tiles_size`.
    """
    config = model.config
    known: dict[str, Any] = {
        "model_type": "Segmentor",
        "tiles_size": config.image_size,
        "tile_size": config.image_size,
        "tiles_overlap": round(100 * (1 - config.window_stride / config.image_size)),
        "standardization_mean": [0.0] * config.num_channels,  # the file normalizes
        "standardization_std": [1.0] * config.num_channels,
        "seg_thresh": 0.0,  # the largest share decides, however small
        "seg_small_segment": 0,
    }
    if config.ground_sampling_distance is not None:
        known["resolution"] = 100 * config.ground_sampling_distance  # centimeters per pixel
    return {key: json.dumps(value) for key, value in known.items()}


def stated_license(folder: Path) -> str | None:
    """The license in a model's card; None without a card that can be read, or without a license in it."""
    try:
        data = ModelCard.load(folder / "README.md").data.to_dict()
    except Exception:  # a stranger's card makes the library raise anything
        return None
    found = data.get("license_name") or data.get("license")
    if isinstance(found, str):
        return found
    return None
