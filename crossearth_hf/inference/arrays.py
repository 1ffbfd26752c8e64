"""Images that fit into memory: pixels in, scores out."""

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, shown
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from .shares import class_shares
from .windows import resolve_window, sliding_window_scores


def predict_array(
    image: np.ndarray,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
) -> np.ndarray:
    """Scores of every class at every pixel of an image in memory.

    `scores.argmax(-1)` are the labels, `scores.max(-1)` the confidence. Overlapping windows have equal weights, as
    in `evaluate`; `predict` blends them, so the two may differ in a few labels.

    Args:
        image: (H, W, C) uint8 of any size; C is the number of the model's channels, mostly red, green and blue.
        model, processor: As `load_model` gives them; the model in eval mode.
        window, stride: Side of the sliding window and step between windows, in pixels; by default the model's.
        batch_size: Windows per forward pass.

    Returns:
        (H, W, K) float32: the share of each of K classes in all scores of a pixel, 0..1.

    Raises:
        InputError: The array has another shape or type, or the window or stride is invalid.
    """
    channels = len(processor.image_mean)
    fits = (
        isinstance(image, np.ndarray)
        and image.ndim == 3
        and image.dtype == np.uint8
        and image.size > 0
    )
    if not fits or image.shape[2] != channels:
        if isinstance(image, np.ndarray):
            found = f"{image.dtype} {image.shape}"
        else:
            found = shown(image)
        raise InputError(
            f"the image is {found}, but the model takes a uint8 array (height, width, {channels})"
        )
    if batch_size < 1:
        raise InputError(f"batch size {batch_size} must be at least 1")
    side, step = resolve_window(model.config, window, stride)
    # (K, H, W)
    scores = image_scores(image, model, processor, window=side, stride=step, batch_size=batch_size)
    shares = class_shares(scores, model.config.confidence_temperature)
    return shares.permute(1, 2, 0).cpu().numpy()


def image_scores(
    image: np.ndarray,
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    *,
    window: int,
    stride: int,
    batch_size: int,
    valid: np.ndarray | None = None,
) -> Tensor:
    """(K, H, W) float32 scores >= 0 of an (H, W, C) uint8 image, on the model's device; never styled, never padded.

    Where (H, W) bool `valid` is False, the model sees the image mean, as in maps and in training.
    """
    # Unpadded: the original's windows lie within the image.
    still = {"do_pad": False, "do_earth_style_injection": False, "return_tensors": "pt"}
    still["input_data_format"] = (
        "channels_last"  # otherwise three rows could be read as three channels
    )
    pixel_values = processor(images=[image], **still)["pixel_values"]
    if valid is not None:
        pixel_values = pixel_values * torch.from_numpy(valid)
    device = next(model.parameters()).device
    return sliding_window_scores(model, pixel_values.to(device), window, stride, batch_size)[0]
