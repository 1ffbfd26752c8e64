"""Models and processors from folders, from the Hub or from the package, checked."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import check_paths, check_texts
from ..errors import InputError, reason_of, shown
from ..files.documents import read_json, tensor_shapes
from ..files.downloads import CONFIG, INDEX, PROCESSOR, WEIGHTS, hub_file, hub_model, weight_parts
from ..files.hub_cards import HUB_CARDS
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.cpu_kernels import BLOCK_ATTENTION
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import quiet_loaders
from .model_fields import check_config, check_processor

BUNDLED = "bundled"
"""Name of the model that comes with the package; a folder of this name goes first."""

BUNDLED_MODEL = HUB_CARDS / "crossearth-small"
"""The model that comes with the package."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Precisions in which a model runs."""

_MOST_MISSING = 2
"""Largest ratio of parameters in a configuration to those in the weights; beyond it the two do not belong together."""

_CLASSIFIER = "class_predictor.weight"


def load_model(
    name_or_dir: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    dtype: str = "float32",
) -> tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]:
    """A model in eval mode and its processor. Never runs code from the folder, never reads pickles.

    Args:
        name_or_dir: Folder written by `save_pretrained`, or a Hub id; None or "bundled" for the bundled model.
        device: "auto" (the first available of CUDA, MPS and CPU) or a device of torch.
        dtype: "float32", "bfloat16", "float16", or "auto", the fastest on the device, see [`fastest_dtype`].

    Raises:
        TypeError: An argument has another type.
        InputError: The id is unknown, the folder holds no CrossEarth model, the weights are not finite in this
            precision, or the device is not available.
    """
    check_texts(device=device, dtype=dtype)
    target = resolve_device(device)
    name = _model_name(name_or_dir)
    folder = model_folder(name_or_dir)
    config = load_config(folder)
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {shown(dtype)}; choose one of {', '.join(DTYPES)}")
    if dtype == "auto":
        precision = fastest_dtype(target)
    else:
        precision = getattr(torch, dtype)
    attention = "sdpa"
    if (
        target.type == "cpu"
        and precision == torch.bfloat16
        and not torch.cpu._is_amx_tile_supported()
    ):
        attention = BLOCK_ATTENTION
    check_count(config, folder)
    processor = load_processor(folder)
    try:
        with quiet_loaders():
            model, info = CrossEarthForSemanticSegmentation.from_pretrained(
                folder,
                config=config,
                dtype=precision,
                attn_implementation=attention,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below
                output_loading_info=True,
            )
    except Exception as error:  # a damaged folder makes its readers fail in any way
        raise InputError(
            f"the model {name} cannot be loaded: {reason_of(error)}; save or convert it again"
        ) from error
    info["mismatched_keys"] = {entry[0] for entry in info["mismatched_keys"]}
    for keys, what in (
        ("missing_keys", "lack"),
        ("unexpected_keys", "hold beyond its configuration"),
        ("mismatched_keys", "hold in other shapes than its configuration gives"),
    ):
        if info[keys]:
            raise InputError(
                f"the weights of {name} {what} {len(info[keys])} tensors, such as {shown(min(info[keys]))}; save or "
                "convert it again"
            )
    if precision == torch.float32:
        remedy = "save or convert it again"
    else:
        remedy = "use float32, or convert it again"
    check_weights(model.state_dict(), name, remedy)
    if len(processor.image_mean) != config.num_channels:
        raise InputError(
            f"the model {name} takes {config.num_channels} channels, but its image processor has "
            f"{len(processor.image_mean)}; extend the processor (extend_channels) and save it again"
        )
    return model.to(target).eval(), processor


def check_weights(weights: Mapping[str, Tensor], name: str, remedy: str) -> None:
    """Raises `InputError` for weights that are infinite, NaN or all zeros.

    A classifier of zeros gives maps of one class too. Other single layers may be zeros, as some are before training.

    Args:
        weights: A state dict.
        name: Name of the model.
        remedy: End of the sentence.
    """
    for key, tensor in weights.items():
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
            continue  # a fast check: the sum is finite unless a value is not finite or absurd
        if not bool(torch.isfinite(tensor).all()):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"the weights of {name} hold NaN or infinity in {key}, in {dtype}; {remedy}"
            )
    classifier = {key: tensor for key, tensor in weights.items() if key.endswith(_CLASSIFIER)}
    for tensors, where in ((weights, "all tensors"), (classifier, _CLASSIFIER)):
        if tensors and not any(bool(tensor.any()) for tensor in tensors.values()):
            raise InputError(
                f"the weights of {name} are all zeros in {where}, so every map would have one class; {remedy}"
            )


def check_count(config: CrossEarthConfig, folder: Path) -> None:
    """Raises `InputError` unless weights and configuration have about the same number of parameters.

    Otherwise a network of any size would be allocated before its tensors are found to be missing.
    """
    check_size(lambda: CrossEarthForSemanticSegmentation(config), folder)


def check_size(build: Callable[[], nn.Module], folder: Path) -> None:
    """As `check_count`, for the network that `build` makes from the configuration in `folder`."""
    remedy = "the model cannot be loaded, save or convert it again"
    index = folder / INDEX
    if (folder / WEIGHTS).exists() or not index.exists():
        names = [WEIGHTS]
    else:
        names = weight_parts(index)
    held = sum(
        math.prod(shape)
        for name in names
        for shape in tensor_shapes(folder / name, remedy).values()
    )
    try:
        with torch.device("meta"):
            network = build()
    except Exception as error:  # fields that break the rules of a layer
        raise InputError(
            f"{folder / CONFIG} does not describe a network: {reason_of(error)}; {remedy}"
        ) from error
    wanted = sum(parameter.numel() for parameter in network.parameters())
    if wanted > _MOST_MISSING * held:
        raise InputError(
            f"{folder / CONFIG} describes a network of {wanted} parameters, but the weights hold {held}; {remedy}"
        )


def load_processor(folder: Path) -> CrossEarthImageProcessor:
    """The image processor of a model's folder; raises `InputError` if its file is damaged or has invalid values."""
    for name in ("processor_config.json", PROCESSOR):
        if (folder / name).exists():
            values = read_json(folder / name, "save the image processor again")
            check_processor(values.get("image_processor", values), folder / name)
    try:
        return CrossEarthImageProcessor.from_pretrained(folder)
    except Exception as error:  # fields of a stranger's file can make transformers raise anything
        raise InputError(
            f"the image processor of {folder} cannot be loaded: {reason_of(error)}; save it again"
        ) from error


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the device supports it in hardware, else float32; without support it is several times slower."""
    if device.type == "cpu":
        supported = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
    if supported:
        return torch.bfloat16
    return torch.float32


def resolve_device(name: str) -> torch.device:
    """The device called `name`, or the best one for "auto"; raises `InputError` with the available devices."""
    available = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        available.append("mps")
    available.append("cpu")
    if name == "auto":
        return torch.device(available[0])
    if name not in (*available, "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(
            f"device '{name}' is not available here; choose one of auto, {', '.join(available)}"
        )
    return torch.device(name)


def _model_name(name_or_dir: str | os.PathLike[str] | None) -> str:
    """Folder or Hub id as a string; raises `InputError` for files and for folders without config.json."""
    if name_or_dir is None or (name_or_dir == BUNDLED and not os.path.isdir(BUNDLED)):
        if not (BUNDLED_MODEL / CONFIG).is_file():
            raise InputError(
                "this installation has no bundled model; name a folder or a Hub id with --model"
            )
        return str(BUNDLED_MODEL)
    check_paths(model=name_or_dir)
    name = os.fspath(name_or_dir)
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, CONFIG)):
            raise InputError(
                f"the folder {name} has no config.json; name a folder that save_pretrained wrote"
            )
    elif os.path.exists(name):
        raise InputError(
            f"{name} is a file, not a model folder; `crossearth convert` makes a folder of a checkpoint"
        )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"the model folder {name} does not exist; check the path")
    return name


def model_folder(name_or_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local folder of a model; a model from the Hub is downloaded into the cache.

    Args:
        name_or_dir: As `load_model` takes it.

    Raises:
        InputError: The id is unknown, the Hub does not answer in time, or the folder holds no config.json.
    """
    name = _model_name(name_or_dir)
    if os.path.isdir(name):
        return Path(name)
    return hub_model(name)


def load_config(name_or_dir: str | os.PathLike[str] | None = None) -> CrossEarthConfig:
    """The configuration of a model, without its weights.

    Args:
        name_or_dir: As `load_model` takes it.

    Raises:
        InputError: The id is unknown, or the folder holds no configuration of a CrossEarth model.
    """
    name = _model_name(name_or_dir)
    if os.path.isdir(name):
        path = Path(name, CONFIG)
    else:
        path = hub_file(name, CONFIG)
    values = read_json(path, "save or convert the model again")
    found: Any = values.get("model_type")
    if found != CrossEarthConfig.model_type:
        raise InputError(
            f"{name} holds a model of type {shown(found)}, but this program runs '{CrossEarthConfig.model_type}'"
        )
    check_config(values, path)
    try:
        return CrossEarthConfig.from_dict(values)
    except Exception as error:  # fields of a stranger's file can make transformers raise anything
        raise InputError(
            f"{path} does not describe such a model: {reason_of(error)}; correct it, or save the model again"
        ) from error
