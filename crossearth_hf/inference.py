"""Windows, batches and blending: the one way in which evaluation, command line and app run a model over an image.

All windows of an image lie on one grid: they start at multiples of the stride, the last one is shifted back inside.
Evaluation averages overlapping scores uniformly, as the original does (`sliding_window_scores`); maps of whole scenes
blend them with weights that fall off towards the window's edge (`predict_scene`), which hides the seams.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from .configuration_crossearth import CrossEarthConfig
from .errors import InputError
from .geotiff import TILE, Raster, Scene
from .image_processing_crossearth import CrossEarthImageProcessor, semantic_scores
from .labels import IGNORE_INDEX
from .modeling_crossearth import CrossEarthForSemanticSegmentation
from .normalization import normalize_pixels

PATCH = 16
"""Sides of windows are multiples of it, in pixels."""

BUNDLED_MODEL = Path(__file__).parents[1] / "hub_cards" / "crossearth-tiny"
"""The model that comes with a clone of the repository."""

# Width of the columns in which a scene is swept, in windows: the windows across a column's border, about one in
# twelve, are computed twice, and memory depends on neither width nor height.
_COLUMN_WINDOWS = 12
_WEIGHT_FLOOR = 0.01

BlockWriter = Callable[[int, int, np.ndarray, np.ndarray], None]
WindowCounter = Callable[[int, int], None]
"""Called with the windows done so far and their total; what it raises ends the job."""


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Starts of the windows along an axis of `size` pixels: ceil((size - window) / stride) + 1, the last inside."""
    count = max(0, math.ceil((size - window) / stride)) + 1
    return [max(0, min(index * stride, size - window)) for index in range(count)]


def resolve_window(config: CrossEarthConfig, window: int | None, stride: int | None) -> tuple[int, int]:
    """Side of the window and stride in pixels for what a person asked for.

    Args:
        config: Gives the defaults: `image_size`, and the ratio of `window_stride` to it.
        window: Side of the window, rounded up to a multiple of 16; None for the default.
        stride: Step between windows; None for the default.

    Raises:
        InputError: for a window or stride below 1, or a stride larger than the window.
    """
    if window is not None and window < 1:
        raise InputError(f"window {window} must be at least 1 pixel; leave it out for the model's {config.image_size}")
    side = math.ceil((window or config.image_size) / PATCH) * PATCH
    default_stride = max(1, round(side * config.window_stride / config.image_size))
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
        pixel_values: (B, 3, H, W) normalised images of any size, on the model's device.
        window: Side of the window in pixels, a multiple of 16.
        stride: Step between windows in pixels.
        batch_size: Windows per forward pass.

    Returns:
        (B, K, H, W) float32 scores >= 0, on the model's device.
    """
    batch, _, height, width = pixel_values.shape
    side_y, side_x = _sides(height, width, window)
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
    for start in range(0, len(corners), batch_size):
        group = corners[start : start + batch_size]
        crops = torch.stack([padded[i, :, y : y + side_y, x : x + side_x] for i, y, x in group])
        scores = _scores(model, crops)  # (b, K, side_y, side_x)
        for (i, y, x), score in zip(group, scores, strict=True):
            total[i, :, y : y + side_y, x : x + side_x] += score
            coverage[i, :, y : y + side_y, x : x + side_x] += 1
    return (total / coverage)[..., :height, :width]


@torch.inference_mode()
def predict_scene(
    scene: Scene,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    write: BlockWriter,
    *,
    window: int,
    stride: int,
    batch_size: int = 4,
    progress: bool = True,
    on_windows: WindowCounter | None = None,
) -> None:
    """Labels and confidence of a scene of any size, block by block.

    The scene is swept top to bottom in columns twelve windows wide. Scores of overlapping windows are summed with
    weights tapered towards the window's edge; rows leave the sum as soon as no later window reaches them. Memory
    grows with the window and the number of classes only; about one window in twelve is computed twice. The result
    does not depend on the columns. Pixels without data enter the model as the image mean and get no label, except in
    a resampled scene: there the edge of the data is blurred, all pixels of windows with data are labelled, and
    `scene.read_valid` must decide on the scene's own grid.

    Args:
        scene: What to map, read at `scene.grid`.
        model: A `CrossEarthForSemanticSegmentation`, in eval mode.
        processor: Gives the normalisation.
        write: Called as `write(row, col, labels, confidence)` once for every pixel: (h, w) uint8 labels, 255 without
            data; (h, w) float32 confidence, top score over the sum of scores, NaN without data. Rows and columns of
            the blocks start at multiples of 256.
        window: Side of the window in pixels, a multiple of 16.
        stride: Step between windows in pixels.
        batch_size: Windows per forward pass.
        progress: Whether to show a progress bar.
        on_windows: Called after every forward pass.

    Raises:
        InputError: for a scene that cannot be read to its end.
    """
    height, width = scene.grid.height, scene.grid.width
    side_y, side_x = _sides(height, width, window)
    rows = window_starts(height, side_y, stride)
    columns = list(_columns(width, side_x, stride, column_width=_COLUMN_WINDOWS * window))
    weights = torch.outer(_taper(side_y), _taper(side_x))  # (side_y, side_x)
    shape = (min(side_y, height), min(side_x, width))
    done, total = 0, len(rows) * sum(len(starts) for _, _, starts in columns)
    with tqdm(total=total, desc="predicting", unit="window", disable=not progress) as bar:
        for left, right, starts in columns:
            strip = _Strip(left, right, height, classes=model.config.num_labels, side=side_y)
            for row, following in zip(rows, [*rows[1:], None], strict=True):
                for first in range(0, len(starts), batch_size):
                    cols = starts[first : first + batch_size]
                    rasters = [scene.read(row, col, *shape) for col in cols]
                    scored = _score_rasters(model, processor, rasters, weights)
                    for col, raster, scores in zip(cols, rasters, scored, strict=True):
                        blurred = scene.is_resampled and scores is not None
                        strip.add(row, col, np.ones_like(raster.valid) if blurred else raster.valid, scores)
                    bar.update(len(cols))
                    done += len(cols)
                    if on_windows is not None:
                        on_windows(done, total)
                strip.flush(height if following is None else following // TILE * TILE, write)


class _Strip:
    """The rows of one column of a scene to which windows still add.

    Args:
        left, right: The column's borders in the scene, in pixels.
        height: Height of the scene.
        classes: K.
        side: Height of the windows.
    """

    def __init__(self, left: int, right: int, height: int, *, classes: int, side: int) -> None:
        self.left, self.right, self.height = left, right, height
        self.top = 0
        rows = min(height, side + TILE)  # a row of windows starts less than one tile below the top
        self.scores = torch.zeros((classes, rows, right - left))  # sums of weight times score
        self.valid = np.zeros((rows, right - left), dtype=bool)

    def add(self, row: int, col: int, valid: np.ndarray, scores: Tensor | None) -> None:
        """Adds a window at (row, col): validity (h, w), and weighted scores (K, >= h, >= w) if it holds data."""
        bottom, left, right = row + valid.shape[0], max(col, self.left), min(col + valid.shape[1], self.right)
        rows, cols = slice(row - self.top, bottom - self.top), slice(left - self.left, right - self.left)
        from_rows, from_cols = slice(0, bottom - row), slice(left - col, right - col)
        self.valid[rows, cols] |= valid[from_rows, from_cols]
        if scores is not None:
            self.scores[:, rows, cols] += scores[:, from_rows, from_cols]

    def flush(self, bottom: int, write: BlockWriter) -> None:
        """Hands the rows above `bottom` to `write` and makes room below."""
        count = bottom - self.top
        if count <= 0:
            return
        valid, scores = self.valid[:count], self.scores[:, :count]
        top, best = scores.max(dim=0)
        labels = np.where(valid, best.numpy(), IGNORE_INDEX).astype(np.uint8)
        confidence = np.where(valid, (top / scores.sum(dim=0)).numpy(), np.float32(np.nan))
        write(self.top, self.left, labels, confidence)
        self.scores = F.pad(self.scores[:, count:], (0, 0, 0, count))
        self.valid = np.pad(self.valid[count:], ((0, count), (0, 0)))
        self.top = bottom


def _score_rasters(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    rasters: list[Raster],
    weights: Tensor,
) -> list[Tensor | None]:
    """Weighted scores (K, side_y, side_x) on the CPU of each raster; None where it holds no data."""
    with_data = [index for index, raster in enumerate(rasters) if raster.valid.any()]
    scores: list[Tensor | None] = [None] * len(rasters)
    if not with_data:
        return scores
    crops = [normalize(rasters[index], processor) for index in with_data]  # (3, h, w) each
    crops = [F.pad(crop, (0, weights.shape[1] - crop.shape[2], 0, weights.shape[0] - crop.shape[1])) for crop in crops]
    weighted = _scores(model, torch.stack(crops).to(model.device)) * weights.to(model.device)
    for index, score in zip(with_data, weighted.cpu(), strict=True):
        scores[index] = score
    return scores


def normalize(raster: Raster, processor: CrossEarthImageProcessor) -> Tensor:
    """(3, H, W) float32 as the processor normalises RGB; 0, the image mean, where the raster holds no data."""
    pixels, valid = torch.from_numpy(raster.pixels), torch.from_numpy(raster.valid)
    mean, std, factor = processor.image_mean, processor.image_std, processor.rescale_factor
    return normalize_pixels(pixels, valid, mean=mean, std=std, rescale_factor=factor)


def _scores(model: CrossEarthForSemanticSegmentation, crops: Tensor) -> Tensor:
    """(b, K, H, W) float32 scores of (b, 3, H, W) crops in the model's own precision."""
    try:
        outputs = model(pixel_values=crops.to(model.dtype))
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{len(crops)} windows of {crops.shape[-2]} x {crops.shape[-1]} do not fit into the memory of "
            f"{crops.device}; choose a smaller batch size or window"
        ) from error
    size = (crops.shape[-2], crops.shape[-1])
    return semantic_scores(outputs.class_queries_logits, outputs.masks_queries_logits, size).float()


def _sides(height: int, width: int, window: int) -> tuple[int, int]:
    """Height and width of the windows: `window`, or the axis rounded up to a multiple of 16 where that is shorter."""
    side_y, side_x = (min(window, math.ceil(size / PATCH) * PATCH) for size in (height, width))
    return side_y, side_x


def _taper(side: int) -> Tensor:
    """(side,) raised cosine, from almost 0 at the window's edges to 1 in its middle."""
    wave = 0.5 - 0.5 * torch.cos(2 * math.pi * (torch.arange(side) + 0.5) / side)
    return _WEIGHT_FLOOR + (1 - _WEIGHT_FLOOR) * wave


def _columns(width: int, side: int, stride: int, column_width: int) -> Iterator[tuple[int, int, list[int]]]:
    """(left, right, starts of the windows that touch it) of each column; borders are multiples of 256."""
    starts = window_starts(width, side, stride)
    step = math.ceil(column_width / TILE) * TILE
    for left in range(0, width, step):
        right = min(left + step, width)
        yield left, right, [start for start in starts if start < right and start + side > left]


def load_model(
    name_or_dir: str | os.PathLike[str] | None = None, *, device: str = "auto", dtype: str = "float32"
) -> tuple[CrossEarthForSemanticSegmentation, CrossEarthImageProcessor]:
    """A model in eval mode and its processor. Never runs code from the folder, never reads pickles.

    Args:
        name_or_dir: Folder written by `save_pretrained`, or a Hub id; None for the model bundled with a clone.
        device: "auto" (CUDA, MPS or CPU, the first there is), or a device of torch.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        InputError: for an unknown id, a folder without a CrossEarth model, a device that is not there.
    """
    target = resolve_device(device)
    name = _model_name(name_or_dir)
    _check_config(name)
    try:
        model, info = CrossEarthForSemanticSegmentation.from_pretrained(
            name, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True
        )
        processor = CrossEarthImageProcessor.from_pretrained(name)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"the model {name} cannot be loaded: {reason}; save or convert it again") from error
    if info["missing_keys"]:
        raise InputError(
            f"the weights of {name} lack {len(info['missing_keys'])} tensors, such as "
            f"{min(info['missing_keys'])}; save or convert it again"
        )
    return model.to(target).eval(), processor


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
        if not (BUNDLED_MODEL / "config.json").is_file():
            raise InputError("no model comes with this installation; name a folder or a Hub id with --model")
        return str(BUNDLED_MODEL)
    name = os.fspath(name_or_dir)
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise InputError(f"the folder {name} holds no config.json; name one written by save_pretrained")
    elif os.path.exists(name):
        raise InputError(f"{name} is a file, not a model folder; `crossearth convert` makes a folder of a checkpoint")
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(f"the model folder {name} does not exist; check the path")
    return name


def _check_config(name: str) -> None:
    """Raises `InputError` unless a folder or Hub id holds the configuration of a CrossEarth model."""
    try:
        config, _ = CrossEarthConfig.get_config_dict(name)
    except (OSError, json.JSONDecodeError, ValueError) as error:
        raise InputError(
            f"the model '{name}' is neither a folder here nor found on the Hub; check its spelling and the network"
        ) from error
    found: Any = config.get("model_type")
    if found != CrossEarthConfig.model_type:
        raise InputError(f"{name} holds a model of type '{found}'; this program runs '{CrossEarthConfig.model_type}'")
