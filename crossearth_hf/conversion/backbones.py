"""Pretrained ViTs without a head: what a new model starts from, in transformers' layouts or DINOv2's original one."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ..errors import InputError, reason_of, shown
from ..files.documents import read_json
from ..files.downloads import CONFIG, PROCESSOR, WEIGHTS, hub_file
from ..inference.loading import check_size, check_weights, model_folder
from ..inference.model_fields import check_processor
from ..model.configuration_checks import check_backbone_sizes
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_backbone import load_vit
from ..progress import quiet_loaders
from .config import Sizes, backbone_fields, grid_side
from .files import SUFFIXES, WeightFile, locate, read_weights
from .names import dinov2_to_published, our_names, split_published
from .pickles import some

_STATISTICS = ("image_mean", "image_std")
_DINOV3_ORIGINAL = ("storage_tokens", "rope_embed.periods")
MASK_TOKEN = "embeddings.mask_token"
_BESIDE = {
    "backbone.norm.weight": "layernorm.weight",
    "backbone.norm.bias": "layernorm.bias",
    "backbone.mask_token": MASK_TOKEN,
}
"""Tensors of the released DINOv2 that CrossEarth does not use: published names and transformers' names."""


@dataclass(frozen=True)
class Family:
    """Pretrained ViTs of one kind.

    Attributes:
        title: Its name for readers.
        license: Of its weights, as the Hub names it.
        license_source: Where the license is stated.
        notice: What whoever passes the weights on has to say; None if nothing.
    """

    title: str
    license: str
    license_source: str
    notice: str | None = None


_DINOV2_LICENSE = ("apache-2.0", "https://github.com/facebookresearch/dinov2/blob/main/LICENSE")
FAMILIES = {
    "dinov2": Family("DINOv2", *_DINOV2_LICENSE),
    "dinov2_with_registers": Family("DINOv2 with registers", *_DINOV2_LICENSE),
    "dinov3_vit": Family(
        "DINOv3",
        "dinov3-license",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license/",
        "Built with DINOv3",
    ),
}
"""By `model_type`. The DINOv3 License asks for a copy of itself and for the notice wherever derivatives go."""


def family_of(config: CrossEarthConfig) -> Family | None:
    """What a model's ViT was before; None for one that is not known to come from a pretrained one.

    A DINOv3 is always taken for one: the name of where it came from may be lost, and its license is not.
    """
    family = FAMILIES[config.backbone_config.model_type]
    if config.pretrained_backbone is None and family.notice is None:
        return None
    return family


@dataclass(frozen=True)
class Backbone:
    """A pretrained ViT.

    Attributes:
        vit: transformers' model, in float32.
        name: As it was given; of a path no more than the end.
        file: That its weights, or the first part of them, were read from.
        statistics: `image_mean` and `image_std` that it was trained with, where they are known.
        license: The text of its license beside it, if any.
        dropped: Tensors of the file that belong to other modules.
        inert_objects: Foreign objects that a pickle names; none was used.
    """

    vit: PreTrainedModel
    name: str
    file: Path
    statistics: dict[str, Any]
    license: Path | None = None
    dropped: tuple[str, ...] = ()
    inert_objects: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """Its kind."""
        return FAMILIES[self.vit.config.model_type]


def is_folder(name: str | os.PathLike[str]) -> bool:
    """Whether `name` stands for a folder or repository rather than for a file of weights."""
    if Path(name).expanduser().exists():
        return Path(name).expanduser().is_dir()
    return ":" not in str(name) and not str(name).endswith(SUFFIXES)


def read_backbone(name: str | os.PathLike[str]) -> Backbone:
    """A pretrained ViT.

    Args:
        name: Folder or Hub id in transformers' layout (DINOv2 with or without registers, DINOv3); or a file of DINOv2's
            weights in its original or transformers' layout. Pickles run nothing that they name, see `read_pickle`.

    Raises:
        InputError: The folder or file does not exist, it holds another network, or its weights are incomplete or not
            numbers.
    """
    if not is_folder(name):
        return backbone_of(read_weights(locate(name)), name)
    folder = backbone_folder(name)
    check_size(lambda: AutoModel.from_config(AutoConfig.from_pretrained(folder)), folder)
    try:
        with quiet_loaders():
            vit = load_vit(folder, use_safetensors=True)
    except Exception as error:  # a damaged folder makes its readers fail in any way
        raise _unusable(name, reason_of(error)) from error
    parts = sorted(folder.glob("*.safetensors"))
    file = next((path for path in parts if path.name == WEIGHTS), parts[0])
    return _checked(
        Backbone(vit, label(name), file, statistics(name), _license_beside(name, folder))
    )


def statistics(name: str | os.PathLike[str]) -> dict[str, Any]:
    """`image_mean` and `image_std` of a backbone's own image processor; {} where it has none, as with a file.

    DINOv3 has weights for photographs and others for satellite images, and each its own numbers.

    Raises:
        InputError: A value is not a number, or there are more values of one kind than of the other.
    """
    if not is_folder(name):
        return {}
    path = backbone_folder(name) / PROCESSOR
    if not path.exists():
        return {}
    values = read_json(path, "download the backbone again")
    found = {key: values[key] for key in _STATISTICS if values.get(key) is not None}
    check_processor(found, path)
    return found


def processor_for(name: str | os.PathLike[str]) -> CrossEarthImageProcessor:
    """The image processor of a new model on a backbone: with its statistics, or else the default one."""
    return CrossEarthImageProcessor(**statistics(name))


def _license_beside(name: str | os.PathLike[str], folder: Path) -> Path | None:
    """The text of a license in a backbone's folder or repository; None if it has no license file."""
    found = sorted(path for path in folder.glob("LICENSE*") if path.is_file())
    if found or Path(name).expanduser().is_dir():
        return next(iter(found), None)
    try:
        return hub_file(str(name), "LICENSE.md", revision=folder.name)
    except InputError:  # no such file there, or out of reach by now
        return None


def backbone_folder(name: str | os.PathLike[str]) -> Path:
    """The folder on this machine that holds a backbone in transformers' layout; `InputError` for another network."""
    local = Path(name).expanduser()
    if local.is_dir() and not (local / CONFIG).is_file():
        raise InputError(
            f"{name} is a folder without config.json; name one in transformers' layout, or the weight file"
        )
    folder = model_folder(name)
    values = read_json(folder / CONFIG, "download the backbone again")
    kind: Any = values.get("model_type")
    if kind == CrossEarthConfig.model_type:
        raise InputError(
            f"{name} is a whole CrossEarth model, not a backbone; start from it with --model {name}"
        )
    if kind not in FAMILIES:
        raise InputError(
            f"{name} is a model of type {shown(kind)}; a backbone is one of {', '.join(FAMILIES)}"
        )
    try:
        check_backbone_sizes(values)
    except ValueError as error:
        raise InputError(f"{folder / CONFIG}: {error}; download the backbone again") from error
    return folder


def is_backbone(file: WeightFile) -> bool:
    """Whether a file holds a ViT and nothing of CrossEarth's own."""
    names = dinov2_to_published(file.tensors)
    own = any(name.startswith(("decode_head.", "backbone.reins.")) for name in names)
    return "backbone.patch_embed.proj.weight" in names and not own


def backbone_of(
    file: WeightFile, name: str | os.PathLike[str], num_heads: int | None = None
) -> Backbone:
    """The DINOv2 that a file of weights holds; its sizes come from the shapes.

    Args:
        file: What was read.
        name: What the file was called.
        num_heads: Heads of its attention; for widths from 384 if not given: width / 64, as all released ones have.

    Raises:
        InputError: The tensors belong to another network, or some of them are missing, unknown or not numbers.
    """
    tensors = dinov2_to_published(file.tensors)
    if any(name.endswith(_DINOV3_ORIGINAL) for name in tensors):
        raise InputError(
            f"{name} is a DINOv3 in its authors' layout; give the folder or Hub id in transformers' layout"
        )
    if file.unusable:
        key, reason = next(iter(file.unusable.items()))
        raise InputError(f"{name}: {shown(key)} {reason}")
    sizes = Sizes({key: tensor.shape for key, tensor in tensors.items()})
    patch, heads = sizes("backbone.patch_embed.proj.weight", 3), {}
    if num_heads is not None:
        heads["num_attention_heads"] = num_heads
    fields = backbone_fields(sizes, patch * grid_side(sizes), heads) | {"patch_size": patch}
    if "use_mask_token" in fields:
        fields["use_mask_token"] = "backbone.mask_token" in tensors
    try:
        with torch.device("meta"):
            vit = AutoModel.from_config(AutoConfig.for_model(**fields))
    except Exception as error:  # whatever shapes of a stranger's file make transformers raise
        raise _unusable(name, reason_of(error)) from error
    state, dropped = _transformers_state(tensors)
    expected = vit.state_dict()
    if MASK_TOKEN in expected:  # of no use to CrossEarth, so that a file may lack it
        state.setdefault(MASK_TOKEN, torch.zeros(expected[MASK_TOKEN].shape))
    _check_state(state, expected, name)
    vit.load_state_dict({key: tensor.float() for key, tensor in state.items()}, assign=True)
    found = Backbone(
        vit.eval(),
        label(name),
        file.path,
        {},
        dropped=tuple(dropped),
        inert_objects=file.inert_objects,
    )
    return _checked(found)


def _transformers_state(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Published tensors of a DINOv2 under transformers' names, and the names of tensors of other modules."""
    state, others = {}, []
    for key, tensor in tensors.items():
        if our_names(key):
            for name, part in split_published({key: tensor}).items():
                inner = name.removeprefix("model.backbone.")
                if inner.startswith("layer."):
                    inner = f"encoder.{inner}"
                state[inner] = part
        elif key.startswith("backbone."):
            state[_BESIDE.get(key, key)] = tensor
        else:
            others.append(key)
    return state, sorted(others)


def _check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str | os.PathLike[str]
) -> None:
    """Raises `InputError` unless the tensors fit the network that their shapes show."""
    for keys, what in (
        (expected.keys() - state.keys(), "lacks"),
        (state.keys() - expected.keys(), "has the unknown"),
    ):
        if keys:
            raise InputError(f"{name} {what} {some(keys)}; give a complete DINOv2 file")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape or not tensor.is_floating_point():
            raise InputError(
                f"{name}: {key} is {tuple(tensor.shape)} of {tensor.dtype} and must be {tuple(expected[key].shape)}, "
                "floating point; give a DINOv2 file"
            )


def _checked(backbone: Backbone) -> Backbone:
    """The backbone itself; raises `InputError` for weights that are not numbers."""
    check_weights(backbone.vit.state_dict(), backbone.name, "download it again")
    backbone.vit.name_or_path = backbone.name  # which a model that starts from it remembers
    return backbone


def label(name: str | os.PathLike[str]) -> str:
    """Name of a backbone on a card: only the end of a local path."""
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve().name
    return str(name)


def _unusable(name: str | os.PathLike[str], reason: str) -> InputError:
    return InputError(
        f"backbone '{name}' cannot be used: {reason}; name the folder or Hub id of a DINOv2 or DINOv3 in transformers' "
        "layout, or a file of DINOv2's weights"
    )
