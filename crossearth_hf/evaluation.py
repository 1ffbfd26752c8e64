"""Scores of a model on labelled images, by sliding windows that overlap and weigh the same."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from tqdm.auto import tqdm

from . import metrics
from .data_sources import LabelledImage, scale_to
from .image_processing_crossearth import CrossEarthImageProcessor
from .inference import sliding_window_scores
from .labels import LabelSet
from .modeling_crossearth import CrossEarthForSemanticSegmentation


def evaluate_model(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    images: Sequence[LabelledImage],
    label_set: LabelSet,
    *,
    window: int,
    stride: int,
    scale: float = 1.0,
    batch_size: int = 4,
    progress: bool = True,
) -> dict[str, Any]:
    """Report of `model` on `images`; see `report`. Arguments as in `predict_confusion`."""
    confusion = predict_confusion(
        model,
        processor,
        images,
        label_set,
        window=window,
        stride=stride,
        scale=scale,
        batch_size=batch_size,
        progress=progress,
    )
    return report(confusion, label_set) | {"images": len(images), "window": window, "stride": stride, "scale": scale}


@torch.inference_mode()
def predict_confusion(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    images: Sequence[LabelledImage],
    label_set: LabelSet,
    *,
    window: int,
    stride: int,
    scale: float = 1.0,
    batch_size: int = 4,
    progress: bool = True,
) -> np.ndarray:
    """(K, K) int64 confusion matrix over all images, rows true, columns predicted.

    Args:
        model: A segmentation model; it runs in eval mode and returns to the mode it was in.
        processor: Its image processor.
        images: What to score; labels keep their resolution.
        label_set: Classes of the labels.
        window, stride: Side of the sliding window and step between windows, in pixels.
        scale: Factor by which images are enlarged (bilinear) before the windows; scores are brought back (bilinear).
            Images that know their ground sampling distance are brought to the model's first, if that is known too.
        batch_size: Windows per forward pass.
        progress: Whether to show a progress bar.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    confusion = np.zeros((len(label_set.classes),) * 2, dtype=np.int64)
    for image in tqdm(images, desc="evaluating", unit="image", leave=False, disable=not progress):
        pixels, labels = image.read()
        factor = scale * scale_to(image, model.config.ground_sampling_distance)
        size = tuple(max(1, round(side * factor)) for side in labels.shape)
        if size != labels.shape:
            pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        # Unpadded: the windows of the original lie within the image.
        pixel_values = processor(images=[pixels], do_pad=False, return_tensors="pt")["pixel_values"].to(device)
        scores = sliding_window_scores(model, pixel_values, window, stride, batch_size)  # (1, K, H', W')
        if size != labels.shape:
            scores = functional.interpolate(scores, size=labels.shape, mode="bilinear", align_corners=False)
        predictions = scores[0].argmax(0).cpu().numpy()
        confusion += metrics.confusion_matrix(predictions, labels, len(label_set.classes))
    model.train(training)
    return confusion


def report(confusion: np.ndarray, label_set: LabelSet) -> dict[str, Any]:
    """Scores of a confusion matrix as plain numbers, ready for JSON.

    Returns:
        `mean_iou` and `mean_f1` over the classes labelled or predicted anywhere, `accuracy`, `pixels` (labelled ones),
        `iou` and `f1` per class name (None for an absent class) and `confusion_matrix` (rows true).
    """
    scores = {"iou": metrics.iou(confusion), "f1": metrics.f1(confusion)}
    named = {
        key: {name: _number(value) for name, value in zip(label_set.classes, values, strict=True)}
        for key, values in scores.items()
    }
    return {
        "mean_iou": _number(metrics.mean_of_present(scores["iou"])),
        "mean_f1": _number(metrics.mean_of_present(scores["f1"])),
        "accuracy": _number(metrics.accuracy(confusion)),
        "pixels": int(confusion.sum()),
        **named,
        "confusion_matrix": confusion.tolist(),
    }


def _number(value: float) -> float | None:
    """A float, or None where there is none: NaN is not JSON."""
    return None if np.isnan(value) else float(value)
