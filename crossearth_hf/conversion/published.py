"""Published checkpoints, with a DINOv2 file where they lack the ViT, become folders for `from_pretrained`."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers.dynamic_module_utils import custom_object_save

from ..errors import InputError
from ..files.digests import file_sha256
from ..files.outputs import check_outside, check_place, check_replaced, staged
from ..inference.loading import check_weights
from ..labels import LABEL_SETS, get_label_set
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .config import PATCH, Sizes, infer_config, read_overrides, table_size
from .files import WeightFile, locate, read_weights, some
from .names import dinov2_to_published, published_name, split_published, to_published

WEIGHTS = "model.safetensors"
DEFAULT_IMAGE_SIZE = 512
UNUSED = ("backbone.mask_token", "backbone.norm.weight", "backbone.norm.bias")
"""Tensors of published files that the forward pass never reads."""

CARD = """---
library_name: transformers
pipeline_tag: image-segmentation
tags: [crossearth, remote-sensing, semantic-segmentation]
---
# {title}

[CrossEarth](https://arxiv.org/abs/2410.22629) (Gong et al., IEEE TPAMI 2026), converted for transformers.
The weights keep the license of their source.

{items}

Trained with ignored pixels as background in the mask losses, as the original does it
(`ignore_unlabelled_pixels=False`).

```python
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation

model = AutoModelForSemanticSegmentation.from_pretrained("{folder}", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("{folder}", trust_remote_code=True)
```
"""


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did.

    Attributes:
        output_dir: The new folder.
        sources: Name and SHA-256 of each file read: the checkpoint, then the backbone.
        config: The model's configuration.
        parameters: How many numbers were written.
        unused: Tensors of the file that the network never reads.
        training_only: Tensors of modules that only training used; dropped.
        inert_objects: Foreign objects that the pickle names; none was used.
        resampling: What was resampled in the backbone, if anything.
        overrides: Fields of the `--config` file.
    """

    output_dir: Path
    sources: tuple[tuple[str, str], ...]
    config: CrossEarthConfig
    parameters: int
    unused: list[str]
    training_only: list[str]
    inert_objects: tuple[str, ...]
    resampling: str | None
    overrides: dict[str, Any]


def convert(
    checkpoint: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    backbone: str | os.PathLike[str] | None = None,
    label_set: str | None = None,
    config: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Converts a published checkpoint into a folder with configuration, weights, processor, code and card.

    Args:
        checkpoint: .pth or .safetensors file, or one on the Hub ("org/name:file.pth"): everything, or adapters and
            head only, as training checkpoints are.
        output_dir: Folder to write; complete or not there at all.
        backbone: DINOv2 file or folder in its original or in transformers' layout, patches of 14 or 16 pixels; for
            checkpoints without a ViT, and only for those.
        label_set: Name in `LABEL_SETS` that gives the classes their names. Default: names in the checkpoint, if any.
        config: YAML or JSON file with fields of `OVERRIDES`.
        overwrite: Whether an existing model folder may be replaced.

    Raises:
        InputError: anything above is missing, unreadable, contradicts another or does not fit the network.
    """
    target = _check_target(output_dir, overwrite)
    overrides = read_overrides(config)
    if backbone is None:
        names = [checkpoint]
    else:
        names = [checkpoint, backbone]
    files = [read_weights(locate(name, folder=index == 1)) for index, name in enumerate(names)]
    given = [name for name in (*names, config) if name is not None and os.path.exists(name)]
    check_outside([*(file.path for file in files), *given], target)
    tensors, resampling = _gather(files, overrides)
    model_config = infer_config({name: tensor.shape for name, tensor in tensors.items()}, overrides)
    _name_classes(model_config, label_set, files[0])
    check_weights(tensors, str(checkpoint), "give a checkpoint of a training that went well")
    model = _build(model_config)
    keys = _sort_keys(tensors, to_published(model.state_dict()), overrides.get("training_only", ()))
    report = ConversionReport(
        output_dir=target,
        sources=tuple((_label(name), file_sha256(file.path)) for name, file in zip(names, files, strict=True)),
        config=model_config,
        parameters=sum(tensors[name].numel() for name in keys.used),
        unused=keys.unused,
        training_only=keys.training_only,
        inert_objects=tuple(sorted({name for file in files for name in file.inert_objects})),
        resampling=resampling,
        overrides=overrides,
    )
    _write(report, model, split_published({name: tensors[name] for name in keys.used}))
    return report


def _label(name: str | os.PathLike[str]) -> str:
    """What the card calls a source: no more of a local path than its end."""
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve().name
    return str(name)


def from_published(state_dict: Mapping[str, Tensor], config: CrossEarthConfig) -> dict[str, Tensor]:
    """Published tensors (parameters, gradients, meta tensors) under the names of `CrossEarthForSemanticSegmentation`.

    Fused projections become views of their parts. A dict without any tensor of the ViT, as training checkpoints are,
    gives adapters and head only; otherwise every parameter is filled, once.

    Raises:
        InputError: an unknown key outside modules that only training uses, a missing key, or another shape.
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
        return len(parts) > 3 and parts[2] not in ("mlp_token2feat", "mlp_delta_f", "transform", "merge")
    return len(parts) > 1 and parts[0] not in ("backbone", "neck", "decode_head")


def _sort_keys(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], declared: Iterable[str]) -> _Keys:
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
        raise InputError(f"'{name}' holds {tensor.dtype}; weights must be floating point: convert the original file")


def _gather(files: list[WeightFile], overrides: Mapping[str, Any]) -> tuple[dict[str, Tensor], str | None]:
    """All tensors in the published layout, and what was resampled."""
    source = files[0]
    if not any(name.startswith("decode_head.") for name in source.tensors):
        raise InputError(
            f"{source.path} holds no segmentation head (no 'decode_head.*'): it starts with {some(source.tensors, 3)}; "
            "give a published CrossEarth checkpoint"
        )
    has_vit = any(map(_is_vit, source.tensors))
    if len(files) == 1:
        if not has_vit:
            raise InputError(
                f"{source.path} holds adapters and head but no ViT; add --backbone with the DINOv2 file it belongs to"
            )
        return source.tensors, None
    if has_vit:
        raise InputError(f"{source.path} has a ViT of its own; leave out --backbone")
    vit = dinov2_to_published(files[1].tensors)
    if strange := [name for name in vit if name.startswith(("decode_head.", "backbone.reins."))]:
        raise InputError(f"{files[1].path} is no DINOv2 file: it holds {some(strange, 3)}; give a plain DINOv2")
    resized, resampling = resample_vit(vit, overrides.get("image_size"))
    return {**source.tensors, **resized}, resampling


def resample_vit(vit: Mapping[str, Tensor], image_size: int | None) -> tuple[dict[str, Tensor], str | None]:
    """A DINOv2 in the published layout with 16-pixel patches and positions for a crop of `image_size` pixels.

    Kernel and position grid are resampled bicubically, align_corners False, as the original's own conversion does.

    Args:
        vit: Published names; "backbone.pos_embed" (1, 1 + n*n, D), "backbone.patch_embed.proj.weight" (D, 3, p, p).
        image_size: Default: that of the position table if the patches have 16 pixels, else 512.

    Returns:
        The tensors, and what was resampled in words, `None` if nothing was.

    Raises:
        InputError: one of both tensors is missing or of another form, or `image_size` is not a multiple of 16.
    """
    sizes = Sizes({name: tensor.shape for name, tensor in vit.items()})
    old_patch = sizes("backbone.patch_embed.proj.weight", 3)
    old_side = table_size(sizes, {}) // PATCH
    if (vit["backbone.patch_embed.proj.weight"].ndim, vit["backbone.pos_embed"].ndim) != (4, 3):
        raise InputError("the patch kernel and position table have another number of axes than DINOv2's; give a DINOv2")
    image_size = image_size or (old_side * PATCH if old_patch == PATCH else DEFAULT_IMAGE_SIZE)
    if image_size % PATCH:
        raise InputError(f"image_size {image_size} is not a multiple of {PATCH}; choose one that is")
    side, resized, notes = image_size // PATCH, dict(vit), []
    if old_patch != PATCH:
        resized["backbone.patch_embed.proj.weight"] = _bicubic(vit["backbone.patch_embed.proj.weight"], PATCH)
        notes.append(f"patch kernel {old_patch} -> {PATCH}")
    if old_side != side:
        table = vit["backbone.pos_embed"]  # (1, 1 + n*n, D)
        grid = table[:, 1:].unflatten(1, (old_side, old_side)).permute(0, 3, 1, 2)  # (1, D, n, n)
        grid = _bicubic(grid, side).flatten(2).transpose(1, 2)  # (1, N, D)
        resized["backbone.pos_embed"] = torch.cat([table[:, :1], grid], dim=1)
        notes.append(f"positions {old_side} x {old_side} -> {side} x {side}")
    return resized, " and ".join(notes) or None


def _bicubic(maps: Tensor, side: int) -> Tensor:
    resized = F.interpolate(maps.float(), size=(side, side), mode="bicubic", align_corners=False)
    return resized.to(maps.dtype)


def _name_classes(config: CrossEarthConfig, label_set: str | None, source: WeightFile) -> None:
    """Gives the classes names: those of `label_set`, else those in the checkpoint's metadata if they are as many."""
    classes = source.classes or ()
    if label_set is not None:
        classes = get_label_set(label_set).classes
        if len(classes) != config.num_labels:
            fitting = [f"'{name}'" for name, known in LABEL_SETS.items() if len(known.classes) == config.num_labels]
            raise InputError(
                f"'decode_head.cls_embed.weight' has {config.num_labels} classes, the label set '{label_set}' has "
                f"{len(classes)}; choose {' or '.join([*fitting, 'none'])}"
            )
    if len(classes) == config.num_labels:
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: index for index, name in enumerate(classes)}


def _check_target(output_dir: str | os.PathLike[str], overwrite: bool) -> Path:
    """Where the folder will be; `InputError` if it cannot be written there without losing something."""
    target = check_place(Path(output_dir).expanduser(), overwrite=overwrite)
    if target.exists() and not _is_model_folder(target):
        raise InputError(f"{output_dir} exists and is not a model folder, so it is not replaced; choose another name")
    return target


def _is_model_folder(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "crossearth"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(report: ConversionReport, model: CrossEarthForSemanticSegmentation, tensors: Mapping[str, Tensor]) -> None:
    """Writes the whole folder beside its place, then moves it there."""
    config, target = report.config, report.output_dir
    config.architectures = [type(model).__name__]
    config.dtype = str(tensors["class_predictor.weight"].dtype).removeprefix("torch.")
    lists = {"unused": report.unused, "training_only": report.training_only, "sha256": report.sources}
    metadata = {"format": "pt"} | {name: json.dumps(value) for name, value in lists.items()}
    try:
        with staged([target]) as (stage,):
            stage.mkdir()
            custom_object_save(model, stage, config=config)
            config.save_pretrained(stage)
            CrossEarthImageProcessor().save_pretrained(stage)
            stage.joinpath("README.md").write_text(_card(report), encoding="utf-8")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, stage / WEIGHTS, metadata)
            shutil.copymode(stage / "config.json", stage / WEIGHTS)  # safetensors lets only the owner read
            check_replaced(target, stage)
    except SafetensorError as error:
        raise InputError(f"{target} cannot be written: {error}; nothing was changed") from error


def describe(report: ConversionReport) -> str:
    """The report in words, for a terminal and for the card."""
    config, backbone = report.config, report.config.backbone_config
    if config.rein_rank is None:
        rank = "plain tokens"
    else:
        rank = f"rank {config.rein_rank}"
    lines = [f"Converted {name} (SHA-256 {digest})" for name, digest in report.sources]
    lines += [
        f"ViT of width {backbone.hidden_size} with {backbone.num_hidden_layers} blocks and "
        f"{backbone.num_attention_heads} heads, crop {config.image_size} px, window stride {config.window_stride} px, "
        f"pyramid from blocks {', '.join(map(str, config.out_indices))}",
        f"Rein adapters: {config.rein_num_tokens} tokens a block, {rank}; "
        f"queries {'linked to them' if config.link_queries else 'of their own'}",
        f"{config.num_labels} classes: {', '.join(config.id2label.values())}",
        f"{report.parameters / 1e6:.1f} M parameters in {config.dtype}",
    ]
    if report.resampling:
        lines.append(f"Resampled: {report.resampling}")
    if report.overrides:
        lines.append("Given, not read from shapes: " + ", ".join(f"{k} {v}" for k, v in report.overrides.items()))
    lines.append(f"In the file and never read by the network: {', '.join(report.unused) or 'nothing'}")
    lines.append(f"Dropped, of modules that only training used: {', '.join(report.training_only) or 'nothing'}")
    if report.inert_objects:
        lines.append(f"Foreign objects in the pickle, none of them used: {', '.join(report.inert_objects)}")
    return "\n".join(lines)


def _card(report: ConversionReport) -> str:
    items = "\n".join(f"- {line}" for line in describe(report).splitlines())
    return CARD.format(title=report.output_dir.name, items=items, folder=report.output_dir.name)


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
