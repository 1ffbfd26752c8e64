"""A new model on a pretrained ViT: adapters and head with weights drawn by a fixed seed, to be trained."""

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InputError, reason_of
from ..labels import get_label_set
from ..model.configuration_crossearth import PRESETS, CrossEarthConfig
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.presets import VIT_LARGE
from .backbones import MASK_TOKEN, Backbone
from .pickles import some

SEED = 0
DEFAULT_PRESET = "large-512"
USED_OVERRIDES = (
    "num_attention_heads",
    "out_indices",
    "image_size",
    "window_stride",
    "ground_sampling_distance",
)
"""Fields of a `--config` file that say something of a new model."""


def new_model(
    backbone: Backbone,
    *,
    preset: str | None = None,
    num_blocks: int | None = None,
    label_set: str | None = None,
    overrides: Mapping[str, Any],
) -> CrossEarthForSemanticSegmentation:
    """A model on a backbone, in float32; its adapters and head are random, and the same each time.

    Args:
        backbone: The pretrained ViT.
        preset: Name in `PRESETS` of head, adapters and crop; `DEFAULT_PRESET` if not given.
        num_blocks: Blocks of the ViT that are used, from the first; all if not given.
        label_set: Name in `LABEL_SETS` of the classes; six without names if not given.
        overrides: Fields of `USED_OVERRIDES`.

    Raises:
        InputError: The preset, the label set or a field is unknown, or the configuration fits no network.
    """
    if strange := sorted(overrides.keys() - {*USED_OVERRIDES}):
        raise InputError(
            f"a new model has no {some(strange)}; the fields for one are {', '.join(USED_OVERRIDES)}"
        )
    given = {
        name: value for name, value in overrides.items() if name in ("out_indices", *_OF_THE_WINDOW)
    }
    if label_set is not None:
        labels = get_label_set(label_set)
        given |= {"id2label": labels.id2label, "label2id": labels.label2id}
    try:
        config = _preset(preset or DEFAULT_PRESET, overrides).for_backbone(
            backbone.vit.config, num_blocks
        )
        config = CrossEarthConfig(**(config.to_dict() | given))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            return CrossEarthForSemanticSegmentation.from_backbone(backbone.vit, config, num_blocks)
    except (ValueError, AssertionError) as error:  # torch's attention asserts
        raise InputError(f"no model can be made on {backbone.name}: {reason_of(error)}") from error


_OF_THE_WINDOW = ("window_stride", "ground_sampling_distance")


def _preset(name: str, overrides: Mapping[str, Any]) -> CrossEarthConfig:
    """A preset, with crops of another size if requested."""
    size = overrides.get("image_size")
    if name not in PRESETS or size is None:
        return CrossEarthConfig.from_preset(name)
    sizes = PRESETS[name].get("backbone_config", VIT_LARGE) | {"image_size": size}
    return CrossEarthConfig.from_preset(
        name, backbone_config=sizes, window_stride=round(size * 2 / 3)
    )


def notes_on(model: CrossEarthForSemanticSegmentation, backbone: Backbone) -> list[str]:
    """Sentences for the report and the card on a model: what is new, its backbone, the license."""
    family = backbone.family
    parts = ["adapters", *["stem"] * model.config.convolutional_stem, "head"]
    notes = [
        f"A new model: its {', '.join(parts[:-1])} and {parts[-1]} are random (seed {SEED}), its maps mean nothing. "
        "Train it first: crossearth train with this folder as --model",
        f"Its ViT is the pretrained {family.title} of {backbone.name}, license {family.license} "
        f"({family.license_source})",
    ]
    if family.notice:
        notes.append(f"{family.notice}. Who passes the model on adds a copy of the license")
    used, depth = (
        model.config.backbone_config.num_hidden_layers,
        backbone.vit.config.num_hidden_layers,
    )
    if used < depth:
        notes.append(f"Of its {depth} blocks the first {used} are used")
    return notes


def unused_of(backbone: Backbone) -> list[str]:
    """Tensors of a backbone that no block and no embedding of CrossEarth holds."""
    return [
        name
        for name in backbone.vit.state_dict()
        if name == MASK_TOKEN or name.startswith(("layernorm.", "norm."))
    ]
