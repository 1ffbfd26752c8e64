"""Scores of a model on labeled images, from overlapping sliding windows with equal weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..data.image_files import resize_bands
from ..data.labeled_images import LabeledImage, scale_to
from ..errors import InputError
from ..inference.arrays import image_scores
from ..inference.shares import class_shares
from ..labels import IGNORE_INDEX, LabelSet
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import progress_bar
from . import metrics


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for an image.

    Attributes:
        image: (H, W, C) uint8.
        labels: (H, W) uint8 ids, 255 ignored.
        scores: (K, H, W) float32 scores >= 0, on the model's device.
        temperature: The model's `config.confidence_temperature`.
    """

    image: np.ndarray
    labels: np.ndarray
    scores: Tensor
    temperature: float | None = None

    def classes(self) -> np.ndarray:
        """(H, W) int64 classes of the top score."""
        return self.scores.argmax(0).cpu().numpy()

    def confidence(self) -> np.ndarray:
        """(H, W) float32: the share of the top score in all scores, as `crossearth predict` writes it."""
        return class_shares(self.scores, self.temperature).amax(0).cpu().numpy()


def predict_confusion(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    images: Sequence[LabeledImage],
    label_set: LabelSet,
    *,
    window: int,
    stride: int,
    scale: float = 1.0,
    batch_size: int = 4,
    progress: bool = True,
) -> np.ndarray:
    """(K, K) int64 confusion matrix over all images, rows true, columns predicted.

    In a partly labeled image, predictions of classes that it does not label count as the first class.

    Args:
        model: A segmentation model; it runs in eval mode and then returns to its former mode.
        processor: Its image processor.
        images: Images to score; labels keep their resolution.
        label_set: Classes of the labels.
        window, stride, scale, batch_size: As in `predict_image`.
        progress: Whether to show a progress bar.
    """
    training = model.training
    model.eval()
    confusion = metrics.ConfusionMatrix(len(label_set.classes))
    for image in progress_bar(
        images, desc="evaluating", unit="image", shown=progress, passing=True
    ):
        predicted = predict_image(
            model,
            processor,
            image,
            window=window,
            stride=stride,
            scale=scale,
            batch_size=batch_size,
        )
        counted = image_ids(image, label_set)
        confusion.add(counted[predicted.classes()], predicted.labels)
    model.train(training)
    return confusion.counts


@torch.inference_mode()
def predict_image(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    image: LabeledImage,
    *,
    window: int,
    stride: int,
    scale: float = 1.0,
    batch_size: int = 4,
) -> Prediction:
    """Scores of one image at the size of its labels.

    Args:
        model: A segmentation model in eval mode.
        processor: Its image processor.
        image: The image to read and score.
        window, stride: Side of the sliding window and step between windows, in pixels.
        scale: Factor by which the image is enlarged (bilinear) before the windows; scores are resized back (bilinear).
            If the ground sampling distances of image and model are known, the image is first resized to the model's.
        batch_size: Windows per forward pass.

    Raises:
        InputError: The number of channels of the image differs from the processor's.
    """
    decoded = image.decode()
    pixels, labels = decoded.read()
    if pixels.shape[2] != len(processor.image_mean):
        raise InputError(
            f"{image.name} has {pixels.shape[2]} channels and the model takes {len(processor.image_mean)}; score it on "
            "images with its bands"
        )
    resized = resize_pixels(pixels, scale * scale_to(image, model.config.ground_sampling_distance))
    valid = decoded.valid
    if valid is not None and resized.shape != pixels.shape:
        valid = resize_nearest(valid, resized.shape[:2])
    scores = image_scores(
        resized, model, processor, window=window, stride=stride, batch_size=batch_size, valid=valid
    )  # (K, H', W')
    if resized.shape != pixels.shape:
        scores = functional.interpolate(
            scores[None], size=labels.shape, mode="bilinear", align_corners=False
        )[0]
    return Prediction(pixels, labels, scores, model.config.confidence_temperature)


def resize_pixels(pixels: np.ndarray, factor: float) -> np.ndarray:
    """(H, W, C) uint8 enlarged by a factor, bilinear; at least one pixel a side."""
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return pixels
    return resize_bands(pixels, (width, height))


def resize_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An (H, W) mask at another size, each pixel from the nearest one."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]


def labeled_classes(images: Iterable[LabeledImage], label_set: LabelSet) -> tuple[str, ...]:
    """Names of the classes that at least one image labels, in the order of their ids."""
    labeled: set[int] = set()
    for image in images:
        if image.partial is None:
            return label_set.classes
        labeled |= set(image.partial.labeled)
    return tuple(label_set.classes[index] for index in sorted(labeled))


def image_ids(image: LabeledImage, label_set: LabelSet) -> np.ndarray:
    """(256,) uint8: the id as which each id counts in an image, see `scored_ids`."""
    return scored_ids(label_set, labeled_classes([image], label_set))


def scored_ids(label_set: LabelSet, classes: Sequence[str]) -> np.ndarray:
    """The id as which each id counts if only some classes are labeled: all others count as the first class.

    Args:
        label_set: All classes.
        classes: Names of the labeled classes.

    Returns:
        (256,) uint8: the id as which each id counts; labeled classes, the first class and 255 count as themselves.
    """
    table = np.zeros(IGNORE_INDEX + 1, dtype=np.uint8)
    ids = [label_set.label2id[name] for name in classes]
    table[[*ids, IGNORE_INDEX]] = [*ids, IGNORE_INDEX]
    return table


def labeled_scores(
    confusion: np.ndarray, label_set: LabelSet, classes: Sequence[str]
) -> dict[str, Any]:
    """IoU of the labeled classes of a label set in which only some classes are labeled.

    Args:
        confusion: (K, K) counts, rows true, columns predicted.
        label_set: The K classes.
        classes: Names of the labeled classes. All others count as the first class of the set, see `scored_ids`.

    Returns:
        `mean_iou` over `classes`, `iou` per class; a class neither labeled nor predicted anywhere is left out.
    """
    table = scored_ids(label_set, classes)[: len(confusion)]
    merged = np.zeros_like(confusion)
    np.add.at(merged, (table[:, None], table[None]), confusion)
    scores = metrics.iou(merged)[[label_set.label2id[name] for name in classes]]
    present = {
        name: float(value)
        for name, value in zip(classes, scores, strict=True)
        if not np.isnan(value)
    }
    return {"mean_iou": metrics.mean_of_present(scores), "iou": present}


def confusion_scores(
    confusion: np.ndarray, label_set: LabelSet, classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Scores of a confusion matrix as plain numbers, ready for JSON.

    Args:
        confusion: (K, K) counts, rows true, columns predicted.
        label_set: The K classes.
        classes: Names of the labeled classes, over which the means run; by default all.

    Returns:
        `mean_iou` and `mean_f1` over the classes labeled or predicted anywhere, `accuracy`, `pixels` (labeled ones),
        `iou` and `f1` per class name (None for an absent class) and `confusion_matrix` (rows true).
    """
    scores = {"iou": metrics.iou(confusion), "f1": metrics.f1(confusion)}
    if classes is not None:
        is_unlabeled = ~np.isin(label_set.classes, classes)
        for values in scores.values():
            values[is_unlabeled] = np.nan
    named = {key: by_class(values, label_set) for key, values in scores.items()}
    return {
        "mean_iou": number(metrics.mean_of_present(scores["iou"])),
        "mean_f1": number(metrics.mean_of_present(scores["f1"])),
        "accuracy": number(metrics.accuracy(confusion)),
        "pixels": int(confusion.sum()),
        **named,
        "confusion_matrix": confusion.tolist(),
    }


def by_class(values: np.ndarray, label_set: LabelSet) -> dict[str, float | None]:
    """(K,) values under the names of their classes, as plain numbers."""
    return {name: number(value) for name, value in zip(label_set.classes, values, strict=True)}


def number(value: float) -> float | None:
    """A float, or None for NaN, which JSON cannot hold."""
    if np.isnan(value):
        return None
    return float(value)
