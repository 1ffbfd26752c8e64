"""A STAC item that describes a model, with the extension `mlm` (https://stac-extensions.github.io/mlm, version 1.4)."""

import os
import re
from pathlib import Path
from typing import Any

from ..files import stac
from ..inference.loading import load_processor
from ..labels import label_set_of
from ..model.configuration_crossearth import CrossEarthConfig
from .card_sections import CardFacts

ITEM = "stac.json"
"""Name of the item, beside the card."""

_EXTENSIONS = (
    stac.CLASSIFICATION,
    stac.PROCESSING,
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
)
_TASKS = ["semantic-segmentation"]
_SIDES = ["height", "width"]
_ENTRY_POINT = ("modeling_crossearth", "CrossEarthForSemanticSegmentation")
_PAPER = "https://arxiv.org/abs/2410.22629"
_BYTES = (
    4  # of a parameter in float32, in which models are loaded unless another precision is asked for
)


def check_model_item(card: Path) -> None:
    """Raises `InputError` if a file of somebody else is in the place of a model's item."""
    stac.check_item(card.parent / ITEM, "a model")


def model_item(model: Path, facts: CardFacts, card: Path) -> dict[str, Any]:
    """The item of a model, as JSON has it.

    Args:
        model: Folder with weights, configuration and image processor.
        facts: What the card says.
        card: The card, which the item refers to.

    Raises:
        InputError: The image processor cannot be read.
    """
    config = facts.config
    now = stac.now()
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": facts.name,
        "geometry": None,  # a model is not bound to a place
        "properties": {
            "datetime": stac.time_text(now),
            **stac.creation(now),
            "license": facts.license or "other",
            **_model(facts),
            "mlm:input": [_input(model, config)],
            "mlm:output": [_output(config)],
        },
        "links": [],
        "assets": _assets(model, config, card),
    }
    if config.ground_sampling_distance is not None:
        item["properties"]["gsd"] = config.ground_sampling_distance
    return item


def write_model_item(item: dict[str, Any], card: Path) -> None:
    """Writes the item of a model beside its card; raises `InputError` if that fails."""
    stac.write_item(card.parent / ITEM, item)


def _model(facts: CardFacts) -> dict[str, Any]:
    """What the network is and what it needs."""
    config, parameters = facts.config, facts.report.parameters
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", facts.name).strip("_.-0123456789")
    fields = {
        "mlm:name": plain or "crossearth",
        "mlm:architecture": "CrossEarth",
        "mlm:framework": "PyTorch",
        "mlm:tasks": _TASKS,
        "mlm:total_parameters": parameters,
        "mlm:memory_size": _BYTES * parameters,
        "mlm:pretrained": True,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": {"window": config.image_size, "stride": config.window_stride},
    }
    if config.pretrained_backbone:
        fields["mlm:pretrained_source"] = config.pretrained_backbone
    return fields


def _input(model: Path, config: CrossEarthConfig) -> dict[str, Any]:
    """Images in 0..255, and how their values are normalized."""
    processor = load_processor(model)
    scaling = [
        {
            "type": "z-score",
            "mean": mean / processor.rescale_factor,
            "stddev": deviation / processor.rescale_factor,
        }
        for mean, deviation in zip(processor.image_mean, processor.image_std, strict=True)
    ]
    return {
        "name": "pixel_values",
        "bands": _bands(config),
        "input": {
            "shape": [-1, config.num_channels, -1, -1],
            "dim_order": ["batch", "channel", *_SIDES],
            "data_type": "float32",
        },
        "value_scaling": scaling,
        "resize_type": None,
    }


def _output(config: CrossEarthConfig) -> dict[str, Any]:
    """The class of every pixel, as `post_process_semantic_segmentation` of the image processor gives it."""
    return {
        "name": "segmentation",
        "tasks": _TASKS,
        "result": {"shape": [-1, -1, -1], "dim_order": ["batch", *_SIDES], "data_type": "uint8"},
        "classification:classes": stac.described_classes(label_set_of(config)),
    }


def _bands(config: CrossEarthConfig) -> list[str]:
    others = [f"band_{number}" for number in range(4, config.num_channels + 1)]
    return ["red", "green", "blue", *others]


def _assets(model: Path, config: CrossEarthConfig, card: Path) -> dict[str, Any]:
    folder = card.parent
    code = model / f"{_ENTRY_POINT[0]}.py"
    assets: dict[str, Any] = {
        "model": {
            "href": _reference(model / "model.safetensors", folder),
            "type": "application/octet-stream; application=safetensors",
            "roles": ["mlm:model", "mlm:weights", "data"],
            "title": "Weights",
            "mlm:artifact_type": "safetensors",
            "bands": [{"name": name} for name in _bands(config)],
        },
        "config": {
            "href": _reference(model / "config.json", folder),
            "type": "application/json",
            "roles": ["metadata"],
        },
        "card": {"href": f"./{card.name}", "type": "text/markdown", "roles": ["metadata"]},
        "paper": {"href": _PAPER, "type": "text/html", "roles": ["publication"]},
    }
    if code.is_file():
        assets["source_code"] = {
            "href": _reference(code, folder),
            "type": "text/x-python",
            "roles": ["mlm:source_code", "code"],
            "mlm:entrypoint": ":".join(_ENTRY_POINT),
        }
    return assets


def _reference(path: Path, folder: Path) -> str:
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    return f"./{Path(relative).as_posix()}"
