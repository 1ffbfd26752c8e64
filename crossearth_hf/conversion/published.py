"""Converts published checkpoints, with a DINOv2 file if they lack the ViT, and ViTs alone to model folders."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers.dynamic_module_utils import custom_object_save

from ..errors import InputError, shown
from ..files.digests import file_sha256
from ..files.outputs import check_outside, check_place, check_replaced, staged
from ..inference.loading import check_weights
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_backbone import resampled_kernel, resampled_positions
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .backbones import Backbone, backbone_of, is_backbone, is_folder, label, read_backbone
from .classes import name_classes
from .config import PATCH, Sizes, infer_config, read_overrides, table_size
from .files import WeightFile, locate, read_weights
from .names import dinov2_to_published, published_name, split_published, to_published
from .new_model import new_model, notes_on, unused_of
from .pickles import some
from .published_files import REPOSITORY, PublishedFile, published_file
from .report import ConversionReport, card, describe

WEIGHTS = "model.safetensors"
DEFAULT_IMAGE_SIZE = 512
UNUSED = ("backbone.mask_token", "backbone.norm.weight", "backbone.norm.bias")
"""Tensors of published files that the forward pass never reads."""


def convert(
    checkpoint: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] | None = None,
    label_set: str | None = None,
    config: str | os.PathLike[str] | None = None,
    preset: str | None = None,
    num_blocks: int | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Converts a published checkpoint into a folder with configuration, weights, processor, code and card.

    A pretrained ViT alone becomes a new model, whose adapters and head are to be trained, see [`new_model`].

    Args:
        checkpoint: .pth or .safetensors file, or one on the Hub ("org/name:file.pth"): everything, or adapters and
            head only, as training checkpoints are. Or a ViT alone, as `read_backbone` takes it.
        output_dir: Folder to write; complete or not there at all.
        backbone: DINOv2 file or folder in its original or in transformers' layout, patches of 14 or 16 pixels; for
            checkpoints without a ViT, and only for those.
        label_set: Name in `LABEL_SETS` that gives the classes their names. Default: what the table of published files
            says about the checkpoint's name, else names in the checkpoint, if any.
        config: YAML or JSON file with fields of `OVERRIDES`.
        preset: For a ViT alone: name in `PRESETS` of head, adapters and crop. Default: "large-512".
        num_blocks: For a ViT alone: its blocks that are used, from the first. Default: all.
        overwrite: Whether an existing model folder may be replaced.

    Raises:
        InputError: One of these inputs is missing or unreadable, contradicts another one or does not fit the network.
    """
    known = published_file(checkpoint)  # before a download of some GB
    target = _check_target(output_dir, overwrite)
    overrides = read_overrides(config)
    if backbone is None:
        names = [checkpoint]
    else:
        names = [checkpoint, backbone]
    given = [name for name in (*names, config) if name is not None and os.path.exists(name)]
    check_outside(given, target)
    options = {"preset": preset, "num_blocks": num_blocks}
    if backbone is None and is_folder(checkpoint):
        return _convert_backbone(read_backbone(checkpoint), target, overrides, label_set, **options)
    files = [read_weights(locate(name, folder=index == 1)) for index, name in enumerate(names)]
    check_outside([file.path for file in files], target)
    if backbone is None and is_backbone(files[0]):
        vit = backbone_of(files[0], checkpoint, overrides.get("num_attention_heads"))
        return _convert_backbone(vit, target, overrides, label_set, **options)
    if preset is not None or num_blocks is not None:
        raise InputError(f"{checkpoint} has its own head: leave out preset and number of blocks")
    declared = overrides.get("training_only", ())
    unusable = _droppable(files, declared)
    tensors, resampling = _gather(files, overrides, known)
    model_config, notes = _configured(
        {name: tensor.shape for name, tensor in tensors.items()}, overrides, known
    )
    if backbone is not None:
        model_config.pretrained_backbone = label(backbone)
    elif known is not None:
        model_config.pretrained_backbone = known.backbone
    notes += name_classes(model_config, label_set, known, files[0].classes or ())
    model = _build(model_config)
    keys = _sort_keys(tensors, to_published(model.state_dict()), declared)
    used = {name: tensors[name] for name in keys.used}
    check_weights(used, str(checkpoint), "give a checkpoint of a training that went well")
    report = ConversionReport(
        output_dir=target,
        sources=tuple(
            (label(name), file_sha256(file.path)) for name, file in zip(names, files, strict=True)
        ),
        config=model_config,
        parameters=sum(tensor.numel() for tensor in used.values()),
        unused=keys.unused,
        training_only=sorted({*keys.training_only, *unusable}),
        inert_objects=tuple(sorted({name for file in files for name in file.inert_objects})),
        resampling=resampling,
        overrides=overrides,
        known=known,
        notes=tuple(notes),
    )
    _write(report, model, split_published(used))
    return report


def _convert_backbone(
    backbone: Backbone,
    target: Path,
    overrides: dict[str, Any],
    label_set: str | None,
    **options: Any,
) -> ConversionReport:
    """Writes a new model on a pretrained ViT to `target`."""
    model = new_model(backbone, label_set=label_set, overrides=overrides, **options)
    config, weights = model.config, model.state_dict()
    report = ConversionReport(
        output_dir=target,
        sources=((backbone.name, file_sha256(backbone.file)),),
        config=config,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        unused=unused_of(backbone),
        training_only=list(backbone.dropped),
        inert_objects=backbone.inert_objects,
        resampling=_backbone_resampling(backbone, config),
        overrides=overrides,
        notes=tuple(notes_on(model, backbone)),
        family=backbone.family,
    )
    _write(report, model, weights, backbone)
    return report


def _droppable(files: list[WeightFile], declared: Iterable[str]) -> list[str]:
    """Names of dropped entries that are no dense tensors; raises `InputError` if the network needs one."""
    names = []
    for index, file in enumerate(files):
        for name, reason in file.unusable.items():
            if index > 0 or not (name in UNUSED or _is_training_only(name, declared)):
                raise InputError(f"{file.path}: {shown(name)} {reason}")
            names.append(name)
    return names


def _configured(
    shapes: Mapping[str, Sequence[int]], overrides: Mapping[str, Any], known: PublishedFile | None
) -> tuple[CrossEarthConfig, list[str]]:
    """The architecture by `shapes`, `overrides` and what is `known` of the file; what of this does not hold."""
    if known is None:
        return infer_config(shapes, overrides), []
    if (crop := table_size(Sizes(shapes), overrides)) != known.crop:
        note = (
            f"Its positions are those of a crop of {crop} px: what is known by its name is not used"
        )
        return infer_config(shapes, overrides), [note]
    fields = {
        "window_stride": known.stride,
        "ground_sampling_distance": known.ground_sampling_distance,
    }
    return infer_config(shapes, fields | dict(overrides)), []


def from_published(state_dict: Mapping[str, Tensor], config: CrossEarthConfig) -> dict[str, Tensor]:
    """Published tensors (parameters, gradients, meta tensors) under the names of `CrossEarthForSemanticSegmentation`.

    Fused projections become views of their parts. A dict without any tensor of the ViT, as training checkpoints are,
    gives adapters and head only; otherwise every parameter is filled, once.

    Raises:
        InputError: A key is missing or unknown (outside of modules that only training uses), or a tensor has another
            shape.
    """
    expected = to_published(_build(config).state_dict())
    if not any(map(_is_vit, state_dict)):
        expected = {name: tensor for name, tensor in expected.items() if not _is_vit(name)}
    keys = _sort_keys(state_dict, expected, ())
    return split_published({name: state_dict[name] for name in keys.used})


def _build(config: CrossEarthConfig) -> CrossEarthForSemanticSegmentation:
    """The model without memory for its weights."""
    try:
        with torch.device("meta"):
            return CrossEarthForSemanticSegmentation(config)
    except (ValueError, AssertionError) as error:  # torch's attention asserts
        raise InputError(f"the checkpoint's architecture is not supported: {error}") from error


@dataclass(frozen=True)
class _Keys:
    used: list[str]
    unused: list[str]
    training_only: list[str]


def _is_vit(name: str) -> bool:
    return name.startswith("backbone.") and not name.startswith("backbone.reins.")


def _is_training_only(name: str, declared: Iterable[str]) -> bool:
    """Whether a tensor that does not belong to the network may be dropped.

    Published files hold modules of training code that was never released, so their names are unknown. Whole modules
    beside the network's own (at the top level, and among the adapters) are taken for such: the released network has
    none there, and a misspelled one of its own leaves a hole that is refused. Inside its own modules nothing is dropped
    unless `declared`.
    """
    if any(name == module or name.startswith(f"{module}.") for module in declared):
        return True
    parts = name.split(".")
    if parts[:2] == ["backbone", "reins"]:
        return len(parts) > 3 and parts[2] not in (
            "mlp_token2feat",
            "mlp_delta_f",
            "transform",
            "merge",
        )
    return len(parts) > 1 and parts[0] not in ("backbone", "neck", "decode_head")


def _sort_keys(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], declared: Iterable[str]
) -> _Keys:
    """Sorts `tensors` into the network's, never read and training only; `InputError` unless all of `expected` fit."""
    keys = _Keys([name for name in tensors if name in expected], [], [])
    unknown = []
    for name in tensors.keys() - expected.keys():
        if name in UNUSED:
            keys.unused.append(name)
        elif _is_training_only(name, declared):
            keys.training_only.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            f"the checkpoint has tensors that are not part of this architecture: {some(unknown)}; correct their names, "
            "or list their modules under training_only in a --config file if only training used them"
        )
    if missing := expected.keys() - tensors.keys():
        if keys.training_only:
            beside = f", but has the unknown {some(keys.training_only)}"
        else:
            beside = ""
        raise InputError(f"the checkpoint lacks {some(missing)}{beside}; give a complete file")
    for name in keys.used:
        _check_tensor(name, tensors[name], expected[name])
    return _Keys(keys.used, sorted(keys.unused), sorted(keys.training_only))


def _check_tensor(name: str, tensor: Tensor, expected: Tensor) -> None:
    if tensor.shape != expected.shape:
        raise InputError(
            f"'{name}' has the shape {tuple(tensor.shape)} and must have {tuple(expected.shape)}; check that the "
            "files given with --backbone and --config belong to this checkpoint"
        )
    if not tensor.is_floating_point():
        raise InputError(
            f"'{name}' holds {tensor.dtype}; weights must be floating point: convert the original file"
        )


def _gather(
    files: list[WeightFile], overrides: Mapping[str, Any], known: PublishedFile | None
) -> tuple[dict[str, Tensor], str | None]:
    """All tensors in the published layout, and what was resampled."""
    source = files[0]
    if not any(name.startswith("decode_head.") for name in source.tensors):
        raise InputError(
            f"{source.path} holds no segmentation head (no 'decode_head.*'): it starts with {some(source.tensors, 3)}; "
            "give a published CrossEarth checkpoint"
        )
    has_vit = any(map(_is_vit, source.tensors))
    if len(files) == 1:
        if has_vit:
            return source.tensors, None
        wanted = "the DINOv2 file it belongs to"
        if known is not None:
            wanted = f"{REPOSITORY}:{known.backbone}"
        raise InputError(
            f"{source.path} holds adapters and head but no ViT; add --backbone with {wanted}"
        )
    if has_vit:
        raise InputError(f"{source.path} has its own ViT; leave out --backbone")
    vit = dinov2_to_published(files[1].tensors)
    if strange := [name for name in vit if name.startswith(("decode_head.", "backbone.reins."))]:
        raise InputError(
            f"{files[1].path} is no DINOv2 file: it holds {some(strange, 3)}; give a plain DINOv2"
        )
    crop = None
    if known is not None:
        crop = known.crop
    resized, resampling = resample_vit(vit, overrides.get("image_size", crop))
    return {**source.tensors, **resized}, resampling


def resample_vit(
    vit: Mapping[str, Tensor], image_size: int | None
) -> tuple[dict[str, Tensor], str | None]:
    """A DINOv2 in the published layout with 16-pixel patches and positions for a crop of `image_size` pixels.

    Kernel and position grid are resampled bicubically, align_corners False, as the original's own conversion does.

    Args:
        vit: Published names; "backbone.pos_embed" (1, 1 + n*n, D), "backbone.patch_embed.proj.weight" (D, 3, p, p).
        image_size: Default: that of the position table if the patches have 16 pixels, else 512.

    Returns:
        The tensors, and what was resampled in words, `None` if nothing was.

    Raises:
        InputError: One of the two tensors is missing or has another form, or `image_size` is not a multiple of 16.
    """
    sizes = Sizes({name: tensor.shape for name, tensor in vit.items()})
    old_patch = sizes("backbone.patch_embed.proj.weight", 3)
    old_side = table_size(sizes, {}) // PATCH
    if (vit["backbone.patch_embed.proj.weight"].ndim, vit["backbone.pos_embed"].ndim) != (4, 3):
        raise InputError(
            "the patch kernel and position table have another number of axes than DINOv2's; give a DINOv2"
        )
    own_size = DEFAULT_IMAGE_SIZE
    if old_patch == PATCH:
        own_size = old_side * PATCH
    image_size = image_size or own_size
    if image_size % PATCH:
        raise InputError(
            f"image_size {image_size} is not a multiple of {PATCH}; choose one that is"
        )
    side, resized = image_size // PATCH, dict(vit)
    resized["backbone.patch_embed.proj.weight"] = resampled_kernel(
        vit["backbone.patch_embed.proj.weight"], PATCH
    )
    resized["backbone.pos_embed"] = resampled_positions(vit["backbone.pos_embed"], side)
    return resized, _in_words(old_patch, old_side, side)


def _in_words(old_patch: int, old_side: int, side: int) -> str | None:
    """The resampled parts of a ViT in words; None if nothing was resampled."""
    notes = []
    if old_patch != PATCH:
        notes.append(f"patch kernel {old_patch} -> {PATCH}")
    if old_side != side:
        notes.append(f"positions {old_side} x {old_side} -> {side} x {side}")
    return " and ".join(notes) or None


def _backbone_resampling(backbone: Backbone, config: CrossEarthConfig) -> str | None:
    """The resampled parts of a backbone; none for DINOv3, which has patches of 16 pixels and no position table."""
    table = backbone.vit.state_dict().get("embeddings.position_embeddings")
    if table is None:
        return None
    return _in_words(
        backbone.vit.config.patch_size, math.isqrt(table.shape[1] - 1), config.image_size // PATCH
    )


def _check_target(output_dir: str | os.PathLike[str], overwrite: bool) -> Path:
    """The folder to write; raises `InputError` if writing it would lose something."""
    target = check_place(Path(output_dir).expanduser(), overwrite=overwrite)
    if target.exists() and not _is_model_folder(target):
        raise InputError(
            f"{output_dir} exists and is not a model folder, so it is not replaced; choose another name"
        )
    return target


def _is_model_folder(folder: Path) -> bool:
    try:
        return (
            json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
            == "crossearth"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(
    report: ConversionReport,
    model: CrossEarthForSemanticSegmentation,
    tensors: Mapping[str, Tensor],
    backbone: Backbone | None = None,
) -> None:
    """Writes the whole folder beside its place, then moves it there."""
    config, target = report.config, report.output_dir
    config.architectures = [type(model).__name__]
    config.dtype = str(tensors["class_predictor.weight"].dtype).removeprefix("torch.")
    lists = {
        "unused": report.unused,
        "training_only": report.training_only,
        "sha256": report.sources,
    }
    metadata = {"format": "pt"} | {name: json.dumps(value) for name, value in lists.items()}
    statistics: Mapping[str, Any] = {}
    if backbone is not None:
        statistics = backbone.statistics
    try:
        with staged([target]) as (stage,):
            stage.mkdir()
            custom_object_save(model, stage, config=config)
            config.save_pretrained(stage)
            CrossEarthImageProcessor(**statistics).save_pretrained(stage)
            if backbone is not None and backbone.license is not None:
                shutil.copyfile(backbone.license, stage / backbone.license.name)
            stage.joinpath("README.md").write_text(card(report), encoding="utf-8")
            save_file(
                {name: tensor.contiguous() for name, tensor in tensors.items()},
                stage / WEIGHTS,
                metadata,
            )
            # safetensors lets only the owner read
            shutil.copymode(stage / "config.json", stage / WEIGHTS)
            check_replaced(target, stage)
    except SafetensorError as error:
        raise InputError(f"{target} cannot be written: {error}; nothing was changed") from error


__all__ = [
    "ConversionReport",
    "convert",
    "describe",
    "from_published",
    "infer_config",
    "published_name",
    "resample_vit",
    "to_published",
]
