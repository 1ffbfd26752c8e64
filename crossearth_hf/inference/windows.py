"""Windows and batches, by which evaluation, command line and app run a model over an image.

All windows of an image lie on one grid: they start at multiples of the stride, and the last one is shifted back inside.
Evaluation averages overlapping scores uniformly, as the original does (`sliding_window_scores`); maps of whole scenes
blend them with weights that fall off towards the window's edge (`prediction.sweep`), which hides the seams.
"""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..model.configuration_crossearth import CrossEarthConfig
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..model.semantic_scores import semantic_scores
from ..raster.scene import Raster
from .normalization import normalize_pixels

PATCH = 16
"""Sides of windows are multiples of this number of pixels."""

FAST_STEP = 7 / 8
"""Ratio of stride to window in fast maps."""

WindowCounter = Callable[[int, int], None]
"""Called with the number of finished windows and their total; an exception in it ends the job."""


class Network(Protocol):
    """What scores windows: a `CrossEarthForSemanticSegmentation` in eval mode, or an engine in its place.

    Attributes:
        config, device, dtype: As in the model.
    """

    config: CrossEarthConfig

    @property
    def device(self) -> torch.device:
        """Where its input lies."""

    @property
    def dtype(self) -> torch.dtype:
        """The type of its input."""

    def __call__(self, *, pixel_values: Tensor) -> Any:
        """`class_queries_logits` and `masks_queries_logits` of (B, C, H, W) normalized windows."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Weights of the model."""


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """Starts of the windows along an axis of `size` pixels: ceil((size - window) / stride) + 1, the last inside."""
    return [
        window_start(index, size, window, stride)
        for index in range(window_count(size, window, stride))
    ]


def window_count(size: int, window: int, stride: int) -> int:
    """Number of windows along an axis of `size` pixels."""
    return max(0, math.ceil((size - window) / stride)) + 1


def window_start(index: int, size: int, window: int, stride: int) -> int:
    """Start of the window with this index."""
    return max(0, min(index * stride, size - window))


def resolve_window(
    config: CrossEarthConfig, window: int | None, stride: int | None, *, fast: bool = False
) -> tuple[int, int]:
    """Side of the window and stride in pixels, from what a person asked for.

    Args:
        config: Has the least side and the defaults: `image_size` and its ratio to `window_stride`.
        window: Side of the window, rounded up to a multiple of 16 and to the model's least side; None for the default.
        stride: Step between windows; None for the default.
        fast: Whether the default stride is `FAST_STEP` of the window, if that is more.

    Raises:
        InputError: The window or the stride is below 1, or the stride is larger than the window.
    """
    if window is not None and window < 1:
        raise InputError(
            f"window {window} must be at least 1 pixel; leave it out to use the model's {config.image_size}"
        )
    side = max(config.least_side, math.ceil((window or config.image_size) / PATCH) * PATCH)
    default_stride = max(1, round(side * config.window_stride / config.image_size))
    if fast:
        default_stride = max(default_stride, round(side * FAST_STEP))
    if stride is None:
        step = default_stride
    else:
        step = stride
    if not 1 <= step <= side:
        raise InputError(
            f"stride {step} must be between 1 and the window of {side}; the default is {default_stride}"
        )
    return side, step


@torch.inference_mode()
def sliding_window_scores(
    model: CrossEarthForSemanticSegmentation,
    pixel_values: Tensor,
    window: int,
    stride: int,
    batch_size: int = 4,
) -> Tensor:
    """Scores of whole images, averaged uniformly over overlapping windows as the original inference does.

    Along an axis shorter than `window` the window shrinks to the axis, padded with 0 to a multiple of 16.

    Args:
        model: A `CrossEarthForSemanticSegmentation`, in eval mode.
        pixel_values: (B, C, H, W) normalized images of any size, on the model's device.
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
    """(C, H, W) float32, normalized like in the processor; pixels without data are 0, the image mean."""
    return normalize_windows(
        torch.from_numpy(raster.pixels), torch.from_numpy(raster.valid), processor
    )


def normalize_windows(
    pixels: Tensor, valid: Tensor | None, processor: CrossEarthImageProcessor
) -> Tensor:
    """The same for (..., C, H, W) uint8 pixels and their (..., H, W) validity; None if all are valid."""
    mean, std, factor = processor.image_mean, processor.image_std, processor.rescale_factor
    return normalize_pixels(pixels, valid, mean=mean, std=std, rescale_factor=factor)


class WindowScorer:
    """Scores of batches of windows; a batch that does not fit into memory is retried once, in halves.

    Args:
        model: What scores windows.
        tta: Whether to average scores over each window and its mirror images (left to right, top to bottom, both), at
            four times the work: test-time augmentation.
    """

    def __init__(self, model: Network, *, tta: bool = False) -> None:
        self._model, self._tta = model, tta
        self._largest: int | None = None  # windows per forward pass, once more did not fit

    def __call__(self, crops: Tensor) -> Tensor:
        """(b, K, H, W) float32 scores of (b, 3, H, W) normalized windows, in memory of their own.

        Raises:
            InputError: Half a batch does not fit into memory either, or scores are NaN or infinite.
        """
        scores = self._averaged(crops)
        if not bool(torch.isfinite(scores.sum())):
            dtype = str(self._model.dtype).removeprefix("torch.")
            if dtype == "float32":
                remedy = "convert or train it again"
            else:
                remedy = "compute in float32 (--dtype float32)"
            raise InputError(f"the model's scores are not numbers (NaN) in {dtype}; {remedy}")
        return scores

    def _averaged(self, crops: Tensor) -> Tensor:
        """Scores of a batch, averaged over its mirror images if requested."""
        plain = self._fitting(crops)
        if not self._tta:
            return plain
        across, down, both = (
            self._fitting(crops.flip(dims)).flip(dims) for dims in ((-1,), (-2,), (-2, -1))
        )
        # In pairs: the mean of four equal scores is that score to the last bit.
        return plain.add_(across).add_(down.add_(both)).div_(4)

    def _fitting(self, crops: Tensor) -> Tensor:
        """Scores of a batch, in as many forward passes as memory requires."""
        if self._largest is None:
            try:
                return _scores(self._model, crops)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
            # Outside the handler, because the error keeps the tensors of the failed pass alive.
            self._largest = math.ceil(len(crops) / 2)
            if len(crops) > 1:
                print(
                    f"{_does_not_fit(crops)}: continuing with {self._largest} at a time",
                    file=sys.stderr,
                )
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
    """Whether memory was exhausted; torch has its own class of errors for accelerators only."""
    said = "allocate memory" in str(error) or "out of memory" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def _does_not_fit(crops: Tensor) -> str:
    count, height, width = len(crops), *crops.shape[-2:]
    size = f"{height} x {width} pixels"
    if count == 1:
        return f"a window of {size} does not fit into the memory of {crops.device}"
    return f"{count} windows of {size} do not fit into the memory of {crops.device}"


def _scores(model: Network, crops: Tensor) -> Tensor:
    """(b, K, H, W) float32 scores of (b, 3, H, W) crops in the model's own precision."""
    outputs = model(pixel_values=crops.to(model.dtype))
    size = (crops.shape[-2], crops.shape[-1])
    return semantic_scores(outputs.class_queries_logits, outputs.masks_queries_logits, size).float()


def window_sides(height: int, width: int, window: int) -> tuple[int, int]:
    """Height and width of the windows: `window`, or the shorter axis rounded up to a multiple of 16."""
    side_y, side_x = (min(window, math.ceil(size / PATCH) * PATCH) for size in (height, width))
    return side_y, side_x
