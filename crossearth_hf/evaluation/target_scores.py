"""Counts for each image of a target, from any number of processes, and the scores computed from them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from ..data.labeled_images import LabeledImage
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import progress_bar
from . import metrics
from .bootstrap import LEVEL, SEED, bootstrap_intervals
from .boundary import BoundaryCounts
from .calibration import CalibrationCounts
from .image_scores import Prediction, by_class, image_ids, number, predict_image
from .metrics import ConfusionMatrix
from .targets import Task

EXAMPLE_SIDE = 1024
"""Largest height and width of a kept example in pixels; of larger images the middle is kept."""


@dataclass(frozen=True)
class ImageCounts:
    """The counts of an image.

    Attributes:
        index: Index among the images of its target.
        name: Name of the image.
        digest: Hash of its name, its size and its labels.
        confusion, boundary, calibration: Counts of its pixels.
        example: Its `image` (the first three bands), `truth` and `prediction`, if the image is kept.
    """

    index: int
    name: str
    digest: str
    confusion: ConfusionMatrix
    boundary: BoundaryCounts
    calibration: CalibrationCounts
    example: dict[str, np.ndarray] | None = None


def count_images(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    task: Task,
    images: Sequence[LabeledImage],
    *,
    batch_size: int,
    examples: int,
) -> list[ImageCounts]:
    """Counts of all images in order, the same on every process; one image is in memory at a time.

    Each process takes a share of the images. The counts of an image do not depend on other images, so any number of
    processes gives the same numbers.

    Args:
        model, processor: The model to score, in eval mode.
        task: How to score it.
        images: Images of the task.
        batch_size: Windows per forward pass.
        examples: Number of images to keep, see `example_indices`.
    """
    state, kept, counted = PartialState(), set(example_indices(len(images), examples)), []
    mine = range(state.process_index, len(images), state.num_processes)
    for index in progress_bar(mine, desc=task.name, unit="image", shown=state.is_main_process):
        image = images[index]
        predicted = predict_image(
            model, processor, image,
            window=task.window, stride=task.stride, scale=task.scale_of(image), batch_size=batch_size,
        )  # fmt: skip
        counted.append(_count(task, index, image, predicted, keep=index in kept))
    return sorted(gather_object(counted), key=lambda counts: counts.index)


def example_indices(images: int, examples: int) -> list[int]:
    """Indices of the kept images: evenly spread, independent of scores, the same for every model."""
    count = min(images, examples)
    return [(2 * step + 1) * images // (2 * count) for step in range(count)]


def label_digest(name: str, labels: np.ndarray) -> str:
    """SHA-256 of an image's name, size and (H, W) uint8 labels."""
    head = f"{name}\0{labels.shape[0]}x{labels.shape[1]}\0".encode()
    return hashlib.sha256(head + np.ascontiguousarray(labels).tobytes()).hexdigest()


def fingerprint(digests: Iterable[str]) -> str:
    """SHA-256 of the `label_digest` of all images in order; cheap, because it leaves out the images' pixels."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def summarize(counts: Sequence[ImageCounts], task: Task, resamples: int) -> dict[str, Any]:
    """Scores, intervals, reliability and images of a report's entry; see `report_folder` for the form.

    Means are over the scored classes that are labeled or predicted anywhere.
    """
    classes, scored = (
        len(task.label_set.classes),
        [task.label_set.label2id[name] for name in task.scored],
    )
    confusion, boundary, calibration = (
        ConfusionMatrix(classes),
        BoundaryCounts(classes),
        CalibrationCounts(),
    )
    for each in counts:
        confusion.merge(each.confusion)
        boundary.merge(each.boundary)
        calibration.merge(each.calibration)
    certainty, hits = calibration.curve()
    return {
        "confusion_matrix": confusion.counts.tolist(),
        "scores": {
            "mean_iou": number(metrics.mean_of_present(metrics.iou(confusion.counts)[scored])),
            "mean_f1": number(metrics.mean_of_present(metrics.f1(confusion.counts)[scored])),
            "accuracy": number(metrics.accuracy(confusion.counts)),
            "foreground_iou": _optional(metrics.foreground_iou(confusion.counts)),
            "iou": _of_scored(metrics.iou(confusion.counts), task),
            "f1": _of_scored(metrics.f1(confusion.counts), task),
            "boundary_iou": number(metrics.mean_of_present(boundary.iou()[scored])),
            "expected_calibration_error": number(calibration.error()),
        },
        "intervals": _intervals(
            np.stack([each.confusion.counts for each in counts]), scored, task, resamples
        ),
        "reliability": {
            "confidence": [number(value) for value in certainty],
            "accuracy": [number(value) for value in hits],
            "count": calibration.pixels.tolist(),
        },
        "images": [_image_scores(each, scored) for each in counts],
    }


def _count(
    task: Task, index: int, image: LabeledImage, predicted: Prediction, *, keep: bool
) -> ImageCounts:
    """The counts of an image; with `keep` also its pixels."""
    classes, name = len(task.label_set.classes), task.image_name(image)
    truth = task.label_ids()[predicted.labels]  # (H, W)
    counted = image_ids(image, task.label_set)
    prediction = counted[task.prediction_ids()[predicted.classes()]]  # (H, W)
    confusion, boundary, calibration = (
        ConfusionMatrix(classes),
        BoundaryCounts(classes),
        CalibrationCounts(),
    )
    confusion.add(prediction, truth)
    boundary.add(prediction, truth)
    calibration.add(predicted.confidence(), prediction, truth)
    maps = {"image": predicted.image[..., :3], "truth": truth, "prediction": prediction}
    if keep:
        example = {key: _middle(values) for key, values in maps.items()}
    else:
        example = None
    return ImageCounts(
        index, name, label_digest(name, predicted.labels), confusion, boundary, calibration, example
    )


def _middle(values: np.ndarray) -> np.ndarray:
    """The middle of (H, W, ...) values, at most `EXAMPLE_SIDE` high and wide."""
    top, left = (max(0, side - EXAMPLE_SIDE) // 2 for side in values.shape[:2])
    return values[top : top + EXAMPLE_SIDE, left : left + EXAMPLE_SIDE].copy()


def _intervals(
    confusions: np.ndarray, scored: Sequence[int], task: Task, resamples: int
) -> dict[str, Any]:
    """Confidence intervals of (N, K, K) counts per image, as the report holds them."""
    bounds = bootstrap_intervals(confusions, scored, resamples=resamples, level=LEVEL, seed=SEED)
    low, high = (_of_scored(values, task) for values in bounds.iou)
    foreground = None
    if bounds.iou.shape[1] == 2:
        foreground = _pair(*map(number, bounds.iou[:, 1]))
    return {
        "level": LEVEL,
        "resamples": resamples,
        "mean_iou": _pair(*map(number, bounds.mean_iou)),
        "foreground_iou": foreground,
        "iou": {name: _pair(low[name], high[name]) for name in low},
    }


def _image_scores(counts: ImageCounts, scored: Sequence[int]) -> dict[str, Any]:
    confusion = counts.confusion.counts
    return {
        "name": counts.name,
        "mean_iou": number(metrics.mean_of_present(metrics.iou(confusion)[scored])),
        "accuracy": number(metrics.accuracy(confusion)),
    }


def _of_scored(values: np.ndarray, task: Task) -> dict[str, float | None]:
    """(K,) values by class name; None for a class that is not labeled."""
    named = by_class(values, task.label_set)
    unscored = dict.fromkeys(set(named) - set(task.scored))
    return named | unscored


def _pair(low: float | None, high: float | None) -> list[float] | None:
    if low is None or high is None:
        return None
    return [low, high]


def _optional(value: float | None) -> float | None:
    if value is None:
        return None
    return number(value)
