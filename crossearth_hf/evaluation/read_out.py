"""The read-out: factors on the scores of the classes and a temperature of their confidence.

Both are chosen on labeled images that the model has not learned from.

The class of the top score is the best guess where scores are calibrated. On imagery that differs from the training data
they are not: classes such as roads are missed rather than invented. For the intersection over union J of a class the
best cut is at the probability J / (1 + J), not at one half (Lipton et al., 2014, for F1; the same argument), so that
classes which a model finds hard deserve a larger factor.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..arguments import band_numbers, nodata_values
from ..data import all_images, load_source
from ..data.labeled_images import LabeledImage
from ..errors import InputError
from ..inference.loading import load_model, model_folder
from ..inference.model_copy import change_config, check_copy, model_copy
from ..inference.shares import class_shares
from ..inference.windows import resolve_window
from ..labels import IGNORE_INDEX, LabelSet, label_set_of
from ..model.image_processing_crossearth import CrossEarthImageProcessor
from ..model.modeling_crossearth import CrossEarthForSemanticSegmentation
from ..progress import progress_bar
from ..raster.scene import Reading
from . import metrics
from .calibration import CalibrationCounts
from .image_scores import labeled_classes, labeled_scores, predict_image, scored_ids

PIXELS_PER_IMAGE = 20_000
"""Drawn from each image, which is enough for shares of a percent; our choice."""

STEPS = 2.0 ** np.arange(-2, 2.01, 0.25)
"""Steps that the search makes with one class; our choice."""

LARGEST_FACTOR = 2.0
"""Bound of a factor and of its inverse; our choice: a few regions cannot justify more. Without it, one region with much
water made water six times as likely as land."""

LEAST_GAIN = 1e-4
"""Mean IoU below which a step is not made; our choice: less is noise."""


LEAST_SHARE = 1e-4
"""Below it, a wrong pixel counts no more: shares of sums may be exactly 0; our choice."""

TEMPERATURES = 2.0 ** np.arange(-2, 3.01, 0.125)
"""From which the temperature of the confidence is chosen; our choice."""


@dataclass(frozen=True)
class ReadOut:
    """The choices of `calibrate`.

    Attributes:
        factors: By the name of the class; the largest is 1.
        temperature: Of the confidence.
    """

    factors: dict[str, float]
    temperature: float


@dataclass(frozen=True)
class ScoredPixels:
    """Random pixels of a set of images with the model's scores.

    Attributes:
        scores: (N, K) float32.
        labels: (N,) uint8 ids, none 255.
        classes: Names of the labeled ones; the others count as the first class.
    """

    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def mean_iou(self, factors: np.ndarray, label_set: LabelSet) -> float:
        """Over the labeled classes, with (K,) factors on the scores."""
        predicted = (self.scores * factors).argmax(1)
        confusion = metrics.confusion_matrix(predicted, self.labels, len(label_set.classes))
        return float(labeled_scores(confusion, label_set, self.classes)["mean_iou"])

    def shares(self, factors: np.ndarray, temperature: float, label_set: LabelSet) -> np.ndarray:
        """(N, K) shares of the scores; those of classes without labels count as the first class."""
        scores = torch.from_numpy((self.scores * factors).T)
        shares = class_shares(scores, temperature).numpy()
        merged = np.zeros_like(shares)
        np.add.at(merged, scored_ids(label_set, self.classes)[: len(shares)], shares)
        return merged.T


def score_pixels(
    model: CrossEarthForSemanticSegmentation,
    processor: CrossEarthImageProcessor,
    images: Sequence[LabeledImage],
    label_set: LabelSet,
    *,
    window: int,
    stride: int,
    scale: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> ScoredPixels:
    """At most `PIXELS_PER_IMAGE` labeled pixels of every image, at random.

    Args:
        model: In eval mode, without `class_factors`.
        processor: Its image processor.
        images: All of one set: they label the same classes.
        label_set: The classes of model and labels.
        window, stride, scale: As in `predict_image`.
        seed: Of the draw.
        progress: Whether to show a progress bar.

    Raises:
        InputError: The images hold no labeled pixel, or they label only one class while their pixels without a label
            may be any class.
    """
    rng = np.random.default_rng(seed)
    scores, labels = [], []
    for image in progress_bar(images, desc="scoring", unit="image", shown=progress, passing=True):
        predicted = predict_image(
            model, processor, image, window=window, stride=stride, scale=scale
        )
        rows, columns = np.nonzero(predicted.labels != IGNORE_INDEX)
        chosen = rng.permutation(len(rows))[:PIXELS_PER_IMAGE]
        rows, columns = rows[chosen], columns[chosen]
        labels.append(predicted.labels[rows, columns])
        scores.append(predicted.scores.cpu().numpy()[:, rows, columns].T)
    drawn = np.concatenate(labels)
    if not len(drawn):
        raise InputError("the images hold no labeled pixel; calibrate on others")
    classes = _labeled_classes(images, label_set)
    if len(np.unique(drawn)) < 2:
        raise InputError(
            f"the images label only {', '.join(classes)} and no pixel of another class; calibrate on others"
        )
    return ScoredPixels(np.concatenate(scores), drawn, classes)


def choose_factors(
    sets: Mapping[str, ScoredPixels],
    label_set: LabelSet,
    tell: Callable[[str], object] | None = None,
) -> np.ndarray:
    """(K,) factors, the largest 1, with the highest mean of the sets' mean IoU that steps of one class at a time reach.

    Classes that no set labels or holds keep the factor that they start with.

    Args:
        sets: Pixels by the name of their set; all sets weigh the same.
        label_set: The K classes.
        tell: Told each set's mean IoU before and after.
    """

    def objective(factors: np.ndarray) -> float:
        return float(np.mean([pixels.mean_iou(factors, label_set) for pixels in sets.values()]))

    searched = [
        index
        for index, name in enumerate(label_set.classes)
        if _is_scored(name, index, sets.values())
    ]
    factors = np.ones(len(label_set.classes))
    best, before = objective(factors), factors
    improved = True
    while improved:
        improved = False
        for index in searched:
            for step in STEPS:
                tried = factors.copy()
                tried[index] = np.clip(tried[index] * step, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
                value = objective(tried)
                if value > best + LEAST_GAIN:
                    factors, best, improved = tried, value, True
    if tell is not None:
        for name, pixels in sets.items():
            old, new = (100 * pixels.mean_iou(values, label_set) for values in (before, factors))
            tell(f"{name}: mean IoU {old:.1f} -> {new:.1f}")
    return factors / factors.max()


def choose_temperature(
    sets: Mapping[str, ScoredPixels],
    factors: np.ndarray,
    label_set: LabelSet,
    tell: Callable[[str], object] | None = None,
) -> float:
    """The temperature of the least mean negative log-likelihood over the sets, as Guo et al. choose it (2017).

    Args:
        sets: Pixels by the name of their set; all sets weigh the same.
        factors: (K,) factors on the scores.
        label_set: The K classes.
        tell: Told each set's expected calibration error before and after.
    """

    def loss(temperature: float) -> float:
        return float(
            np.mean(
                [_log_loss(pixels, factors, temperature, label_set) for pixels in sets.values()]
            )
        )

    chosen = float(min(TEMPERATURES, key=loss))
    if tell is not None:
        for name, pixels in sets.items():
            old, new = (
                100 * calibration_error(pixels, factors, value, label_set)
                for value in (1.0, chosen)
            )
            tell(f"{name}: calibration error {old:.1f} -> {new:.1f} %")
    return chosen


def _log_loss(
    pixels: ScoredPixels, factors: np.ndarray, temperature: float, label_set: LabelSet
) -> float:
    shares = pixels.shares(factors, temperature, label_set)
    of_truth = shares[np.arange(len(shares)), pixels.labels]
    return float(-np.log(of_truth.clip(min=LEAST_SHARE)).mean())


def calibration_error(
    pixels: ScoredPixels, factors: np.ndarray, temperature: float, label_set: LabelSet
) -> float:
    """Expected calibration error of the labeled classes, 0..1; see `calibration`."""
    shares = pixels.shares(factors, temperature, label_set)
    counts = CalibrationCounts()
    counts.add(shares.max(1), shares.argmax(1), pixels.labels)
    return counts.error()


def _is_scored(name: str, index: int, sets: Iterable[ScoredPixels]) -> bool:
    """Whether some set labels the class and has pixels of it: nothing is known of the others."""
    return any(name in pixels.classes and bool((pixels.labels == index).any()) for pixels in sets)


def _labeled_classes(images: Sequence[LabeledImage], label_set: LabelSet) -> tuple[str, ...]:
    """Names of the classes that all images label."""
    if len({image.partial for image in images}) > 1:
        raise InputError(
            "the images label different classes; calibrate on each kind as its own set"
        )
    return labeled_classes(images, label_set)


def calibrate(
    model: str | os.PathLike[str] | None,
    output_dir: str | os.PathLike[str],
    data: Sequence[str],
    *,
    mask_values: Sequence[int] | None = None,
    mask_offset: int = 0,
    bands: Sequence[int] | None = None,
    nodata: Sequence[float] | float | str | None = None,
    scale: float = 1.0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
    tell: Callable[[str], object] | None = None,
) -> ReadOut:
    """Writes a model anew with factors on the scores of its classes and a temperature, chosen on labeled images.

    Args:
        model: Folder or Hub id; None for the bundled model.
        output_dir: Folder to write: the model's files, with `class_factors` and `confidence_temperature` in its
            configuration.
        data: Sources as `data.load_source` takes them, each a set of its own; images of places that the model has not
            learned from, and that nothing is scored on later.
        mask_values, mask_offset: As in `data.load_source`.
        bands, nodata: How the images are read, as in `predict`.
        scale: As in `predict_image`.
        device: As in `load_model`.
        overwrite: Whether an existing model folder may be replaced.
        progress: Whether to show progress bars.
        tell: Told each set's mean IoU and calibration error before and after.

    Raises:
        TypeError: The bands or no-data values have another type.
        InputError: The model, a source or the folder does not fit, see `score_pixels`.
    """
    chosen_bands, chosen_nodata = band_numbers(bands), nodata_values(nodata)
    source = model_folder(model)
    check_copy([source], output_dir, overwrite=overwrite)  # before the work
    network, processor = load_model(source, device=device)
    network.config.class_factors = None
    label_set = label_set_of(network.config)
    window, stride = resolve_window(network.config, None, None)
    reading = Reading(chosen_bands, chosen_nodata, network.config.num_channels)
    sets = {}
    for text in data:
        loaded = load_source(
            text, label_set, reading=reading, mask_values=mask_values, mask_offset=mask_offset
        )
        sets[text] = score_pixels(
            network,
            processor,
            all_images([loaded]),
            label_set,
            window=window,
            stride=stride,
            scale=scale,
            progress=progress,
        )
    factors = choose_factors(sets, label_set, tell).round(4)
    temperature = round(choose_temperature(sets, factors, label_set, tell), 4)
    with model_copy([source], output_dir, overwrite=overwrite) as copy:
        change_config(
            copy, {"class_factors": factors.tolist(), "confidence_temperature": temperature}
        )
    return ReadOut(dict(zip(label_set.classes, factors.tolist(), strict=True)), temperature)
