"""Windows and batches: the one way in which evaluation, command line and app run a model over an image.

All windows of an image lie on one grid: they start at multiples of the stride, the last one is shifted back inside.
Evaluation averages overlapping scores uniformly, as the original does (`sliding_window_scores`); maps of whole scenes
blend them with weights that fall off towards the window's edge (`mapping.sweep`), which hides the seams.
"""

import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, reason_of, shown
from ..files.documents import read_json, tensor_shapes
from ..files.downloads import CONFIG, INDEX, PROCESSOR, WEIGHTS, hub_file, hub_model, weight_parts
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.cpu_kernels import BLOCK_ATTENTION
from ..model.image_processing_crossearth import CrossEarthImageProcessor, semantic_scores
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import quiet_loaders
from ..raster.scene import Raster
from .model_fields import check_config, check_processor
from .normalization import normalize_pixels

PATCH = 16
"""Sides of windows are multiples of it, in pixels."""

BUNDLED_MODEL = Path(__file__).parents[2] / "hub_cards" / "crossearth-tiny"
"""The model that comes with a clone of the repository."""

_MOST_MISSING = 2
"""Numbers that a configuration may ask for over those that the weights hold: else the two are of different models."""

_CLASSIFIER = "class_predictor.weight"

FAST_STEP = 7 / 8
"""Stride of fast maps over the window's side."""

WindowCounter = Callable[[int, int], None]
"""Called with the windows done so far and their total; what it raises ends the job."""


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Starts of the windows along an axis of `size` pixels: ceil((size - window) / stride) + 1, the last inside."""
    return [window_start(index, size, window, stride) for index in range(window_count(size, window, stride))]


def window_count(size: int, window: int, stride: int) -> int:
    """How many windows an axis of `size` pixels has."""
    return max(0, math.ceil((size - window) / stride)) + 1


def window_start(index: int, size: int, window: int, stride: int) -> int:
    """Where one of them starts."""
    return max(0, min(index * stride, size - window))


def resolve_window(
    config: CrossEarthConfig, window: int | None, stride: int | None, *, fast: bool = False
) -> tuple[int, int]:
    """Side of the window and stride in pixels for what a person asked for.

    Args:
        config: Gives the least side and the defaults: `image_size`, and the ratio of `window_stride` to it.
        window: Side of the window, rounded up to a multiple of 16 and to the model's least side; None for the default.
        stride: Step between windows; None for the default.
        fast: Whether the default is `FAST_STEP` of the window, where that is more.

    Raises:
        InputError: for a window or stride below 1, or a stride larger than the window.
    """
    if window is not None and window < 1:
        raise InputError(f"window {window} must be at least 1 pixel; leave it out for the model's {config.image_size}")
    side = max(config.least_side, math.ceil((window or config.image_size) / PATCH) * PATCH)
    default_stride = max(1, round(side * config.window_stride / config.image_size))
    if fast:
        default_stride = max(default_stride, round(side * FAST_STEP))
    step = default_stride if stride is None else stride
    if not 1 <= step <= side:
        raise InputError(f"stride {step} must lie between 1 and the window of {side}; {default_stride} suits it")
    return side, step


@torch.inference_mode()
def sliding_window_scores(
    model: CrossEarthForSemanticSegmentation, pixel_values: Tensor, window: int, stride: int, batch_size: int = 4
) -> Tensor:
    """Scores of whole images, averaged uniformly over overlapping windows as the original inference does.

    Along an axis shorter than `window` the window shrinks to the axis, padded with 0 to a multiple of 16.

    Args:
        model: A `CrossEarthForSemanticSegmentation`, in eval mode.
        pixel_values: (B, C, H, W) normalised images of any size, on the model's device.
        window: Side of the window in pixels, a multiple of 16.
        stride: Step between windows in pixels.
        batch_size: Windows per forward pass.

    Returns:
        (B, K, H, W) float32 scores >= 0, on the model's device.
    """
    batch, _, height, width = pixel_values.shape
    side_y, side_x = window_sides(height, width, window)
    padded = F.pad(pixel_values, (0, max(0, side_x - width), 0, max(0, side_y - height)))
    corners = [
        (index, row, col)
        for index in range(batch)
        for row in window_starts(padded.shape[2], side_y, stride)
        for col in window_starts(padded.shape[3], side_x, stride)
    ]
    shape = padded.shape[2:]
    total = torch.zeros((batch, model.config.num_labels, *shape), device=padded.device)
    coverage = torch.zeros((batch, 1, *shape), device=padded.device)
    scorer = WindowScorer(model)
    for start in range(0, len(corners), batch_size):
        group = corners[start : start + batch_size]
        crops = torch.stack([padded[i, :, y : y + side_y, x : x + side_x] for i, y, x in group])
        scores = scorer(crops)  # (b, K, side_y, side_x)
        for (i, y, x), score in zip(group, scores, strict=True):
            total[i, :, y : y + side_y, x : x + side_x] += score
            coverage[i, :, y : y + side_y, x : x + side_x] += 1
    return (total / coverage)[..., :height, :width]


def normalize(raster: Raster, processor: CrossEarthImageProcessor) -> Tensor:
    """(C, H, W) float32 as the processor normalises; 0, the image mean, where the raster holds no data."""
    return normalize_windows(torch.from_numpy(raster.pixels), torch.from_numpy(raster.valid), processor)


def normalize_windows(pixels: Tensor, valid: Tensor | None, processor: CrossEarthImageProcessor) -> Tensor:
    """(..., C, H, W) float32 likewise, of (..., C, H, W) uint8 pixels; (..., H, W) validity, None for all."""
    mean, std, factor = processor.image_mean, processor.image_std, processor.rescale_factor
    return normalize_pixels(pixels, valid, mean=mean, std=std, rescale_factor=factor)


class WindowScorer:
    """Scores of batches of windows; a batch that does not fit into memory is tried once more, in halves.

    Args:
        model: A `CrossEarthForSemanticSegmentation`, in eval mode.
        tta: Test-time augmentation: whether the scores are averaged over the windows as they are, mirrored left to
            right, top to bottom, and both, each mirrored back; four times the work.
    """

    def __init__(self, model: CrossEarthForSemanticSegmentation, *, tta: bool = False) -> None:
        self._model, self._tta = model, tta
        self._largest: int | None = None  # windows per forward pass, once more did not fit

    def __call__(self, crops: Tensor) -> Tensor:
        """(b, K, H, W) float32 scores of (b, 3, H, W) normalised windows, in memory of their own.

        Raises:
            InputError: where half a batch does not fit into memory either; for scores that are no numbers.
        """
        scores = self._averaged(crops)
        if not bool(torch.isfinite(scores.sum())):
            dtype = str(self._model.dtype).removeprefix("torch.")
            remedy = "convert or train it again" if dtype == "float32" else "compute in float32 (--dtype float32)"
            raise InputError(f"the scores of the model are no numbers (NaN) in {dtype}; {remedy}")
        return scores

    def _averaged(self, crops: Tensor) -> Tensor:
        """Scores of a batch, averaged over its flips on request."""
        plain = self._fitting(crops)
        if not self._tta:
            return plain
        across, down, both = (self._fitting(crops.flip(dims)).flip(dims) for dims in ((-1,), (-2,), (-2, -1)))
        # In pairs: the mean of four equal scores is that score to the last bit.
        return plain.add_(across).add_(down.add_(both)).div_(4)

    def _fitting(self, crops: Tensor) -> Tensor:
        """Scores of a batch, in as many forward passes as memory demands."""
        if self._largest is None:
            try:
                return _scores(self._model, crops)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside the handler, for the error holds on to the tensors of the failed pass.
            self._largest = math.ceil(len(crops) / 2)
            if len(crops) > 1:
                print(f"{_does_not_fit(crops)}: going on with {self._largest} at a time", file=sys.stderr)
            if crops.device.type == "cuda":
                torch.cuda.empty_cache()
        try:
            return torch.cat([_scores(self._model, group) for group in crops.split(self._largest)])
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            reason = _does_not_fit(crops[: self._largest])
            raise InputError(f"{reason}; choose a smaller batch size or window") from error


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: torch has a class of errors for accelerators only."""
    said = "allocate memory" in str(error) or "out of memory" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def _does_not_fit(crops: Tensor) -> str:
    count, height, width = len(crops), *crops.shape[-2:]
    windows = "a window" if count == 1 else f"{count} windows"
    does = "does" if count == 1 else "do"
    return f"{windows} of {height} x {width} pixels {does} not fit into the memory of {crops.device}"


def _scores(model: CrossEarthForSemanticSegmentation, crops: Tensor) -> Tensor:
    """(b, K, H, W) float32 scores of (b, 3, H, W) crops in the model's own precision."""
    outputs = model(pixel_values=crops.to(model.dtype))
    size = (crops.shape[-2], crops.shape[-1])
    return semantic_scores(outputs.class_queries_logits, outputs.masks_queries_logits, size).float()


def window_sides(height: int, width: int, window: int) -> tuple[int, int]:
    """Height and width of the windows: `window`, or the axis rounded up to a multiple of 16 where that is shorter."""
    side_y, side_x = (min(window, math.ceil(size / PATCH) * PATCH) for size in (height, width))
    return side_y, side_x


def load_model(
    name_or_dir: str | os.PathLike[str] | None = None, *, device: str = "auto", dtype: str = "float32"
) -> tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]:
    """A model in eval mode and its processor. Never runs code from the folder, never reads pickles.

    Args:
        name_or_dir: Folder written by `save_pretrained`, or a Hub id; None for the model bundled with a clone.
        device: "auto" (CUDA, MPS or CPU, the first there is), or a device of torch.
        dtype: "float32", "bfloat16", "float16", or "auto": what the device computes fastest, see [`fastest_dtype`].

    Raises:
        InputError: for an unknown id, a folder without a CrossEarth model, weights that are no numbers in this
            precision, a device that is not there.
    """
    target = resolve_device(device)
    name = _model_name(name_or_dir)
    folder = model_folder(name_or_dir)
    config = load_config(folder)
    precision = fastest_dtype(target) if dtype == "auto" else getattr(torch, dtype)
    blocks = target.type == "cpu" and precision == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()
    check_count(config, folder)
    processor = load_processor(folder)
    try:
        with quiet_loaders():
            model, info = CrossEarthForSemanticSegmentation.from_pretrained(
                folder,
                config=config,
                dtype=precision,
                attn_implementation=BLOCK_ATTENTION if blocks else "sdpa",
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below
                output_loading_info=True,
            )
    except Exception as error:  # a damaged folder makes its readers fail in any way
        raise InputError(f"the model {name} cannot be loaded: {reason_of(error)}; save or convert it again") from error
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
    remedy = "save or convert it again" if precision == torch.float32 else "use float32, or convert it again"
    check_weights(model.state_dict(), name, remedy)
    if len(processor.image_mean) != config.num_channels:
        raise InputError(
            f"the model {name} takes {config.num_channels} channels and its image processor "
            f"{len(processor.image_mean)}; give the processor the same (extend_channels) and save it again"
        )
    return model.to(target).eval(), processor


def check_weights(weights: Mapping[str, Tensor], name: str, remedy: str) -> None:
    """Raises `InputError` where weights, by their names, are infinite, no numbers or nothing but zeros.

    Zeros alone in the classifier make maps of one class too. Single layers may hold zeros, as some do before training.

    Args:
        weights: A state dict.
        name: What the model is called.
        remedy: How the sentence ends.
    """
    for key, tensor in weights.items():
        if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
            continue  # the faster look: a sum is finite unless a value is not, or absurd
        if not bool(torch.isfinite(tensor).all()):
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"the weights of {name} hold NaN or infinity in {key}, in {dtype}; {remedy}")
    classifier = {key: tensor for key, tensor in weights.items() if key.endswith(_CLASSIFIER)}
    for tensors, where in ((weights, "all tensors"), (classifier, _CLASSIFIER)):
        if tensors and not any(bool(tensor.any()) for tensor in tensors.values()):
            raise InputError(f"the weights of {name} hold zeros alone in {where}, and every map is one class; {remedy}")


def check_count(config: CrossEarthConfig, folder: Path) -> None:
    """Raises `InputError` unless the weights are about as many numbers as the configuration asks for.

    Else memory for a network of any size would be taken before its tensors are found missing.
    """
    remedy = "the model cannot be loaded, save or convert it again"
    index = folder / INDEX
    names = [WEIGHTS] if (folder / WEIGHTS).exists() or not index.exists() else weight_parts(index)
    held = sum(math.prod(shape) for name in names for shape in tensor_shapes(folder / name, remedy).values())
    try:
        with torch.device("meta"):
            network = CrossEarthForSemanticSegmentation(config)
    except Exception as error:  # fields that fit none of the layers' rules
        raise InputError(f"{folder / CONFIG} describes no network: {reason_of(error)}; {remedy}") from error
    wanted = sum(parameter.numel() for parameter in network.parameters())
    if wanted > _MOST_MISSING * held:
        raise InputError(
            f"{folder / CONFIG} describes a network of {wanted} numbers and the weights hold {held}; {remedy}"
        )


def load_processor(folder: Path) -> CrossEarthImageProcessor:
    """The image processor of a model's folder; `InputError` where its file is damaged or its numbers do not fit."""
    for name in ("processor_config.json", PROCESSOR):
        if (folder / name).exists():
            values = read_json(folder / name, "save the image processor again")
            check_processor(values.get("image_processor", values), folder / name)
    try:
        return CrossEarthImageProcessor.from_pretrained(folder)
    except Exception as error:  # whatever the fields of a stranger's file make transformers raise
        raise InputError(
            f"the image processor of {folder} cannot be loaded: {reason_of(error)}; save it again"
        ) from error


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32: without support it is several times slower."""
    if device.type == "cpu":
        supported = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    else:
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if supported else torch.float32


def resolve_device(name: str) -> torch.device:
    """The device called `name`, or the best for "auto"; raises `InputError` naming those there are."""
    available = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    available += ["mps"] if torch.backends.mps.is_available() else []
    available += ["cpu"]
    if name == "auto":
        return torch.device(available[0])
    if name not in (*available, "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"device '{name}' is not available here; choose one of auto, {', '.join(available)}")
    return torch.device(name)


def _model_name(name_or_dir: str | os.PathLike[str] | None) -> str:
    """Folder or Hub id as a string; raises `InputError` for a folder that is none or lacks config.json."""
    if name_or_dir is None:
        if not (BUNDLED_MODEL / CONFIG).is_file():
            raise InputError("no model comes with this installation; name a folder or a Hub id with --model")
        return str(BUNDLED_MODEL)
    name = os.fspath(name_or_dir)
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, CONFIG)):
            raise InputError(f"the folder {name} holds no config.json; name one written by save_pretrained")
    elif os.path.exists(name):
        raise InputError(f"{name} is a file, not a model folder; `crossearth convert` makes a folder of a checkpoint")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"the model folder {name} does not exist; check the path")
    return name


def model_folder(name_or_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder on this machine that holds a model: one from the Hub is loaded into its cache.

    Args:
        name_or_dir: As `load_model` takes it.

    Raises:
        InputError: for an unknown id, a Hub that does not answer within seconds, a folder without config.json.
    """
    name = _model_name(name_or_dir)
    return Path(name) if os.path.isdir(name) else hub_model(name)


def load_config(name_or_dir: str | os.PathLike[str] | None = None) -> CrossEarthConfig:
    """The configuration of a model, without its weights.

    Args:
        name_or_dir: As `load_model` takes it.

    Raises:
        InputError: for an unknown id, a folder without the configuration of a CrossEarth model.
    """
    name = _model_name(name_or_dir)
    path = Path(name, CONFIG) if os.path.isdir(name) else hub_file(name, CONFIG)
    values = read_json(path, "save or convert the model again")
    found: Any = values.get("model_type")
    if found != CrossEarthConfig.model_type:
        raise InputError(
            f"{name} holds a model of type {shown(found)}; this program runs '{CrossEarthConfig.model_type}'"
        )
    check_config(values, path)
    try:
        return CrossEarthConfig.from_dict(values)
    except Exception as error:  # whatever the fields of a stranger's file make transformers raise
        raise InputError(
            f"{path} describes no model of this kind: {reason_of(error)}; correct it, or save the model again"
        ) from error
