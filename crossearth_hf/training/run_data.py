"""The training and validation data of a run, checked and summarized before training; batches of its crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..data import Source, all_images, load_sources
from ..data.label_counts import LabelCounts, count_labels
from ..data.labeled_images import LabeledImage
from ..data.validation_split import hold_out
from ..labels import IGNORE_INDEX, LabelSet
from ..model.configuration_crossearth import CrossEarthConfig
from .augmentation import TrainingCrops, is_partly_labeled
from .config import TrainConfig
from .run_folder import RunFolder


@dataclass(frozen=True)
class RunData:
    """Data of a run.

    Attributes:
        sources: Training data.
        unlabeled: Training data without labels.
        eval_images: Images that are scored during the run.
        leaves_open: Whether training data are partly labeled or unlabeled, or their counted labels hold 255.
    """

    sources: list[Source]
    unlabeled: list[Source]
    eval_images: list[LabeledImage]
    leaves_open: bool


def load_data(
    config: TrainConfig,
    label_set: LabelSet,
    folder: RunFolder,
    tell: Callable[[str], object] | None,
) -> RunData:
    """Loads the images of a run; its folder gets a list of the images held out for validation.

    Args:
        config: The run.
        label_set: Its classes.
        folder: Folder of the run.
        tell: Takes lines for a person, such as tables of the classes; None in all processes but the main one.

    Raises:
        InputError: The data do not fit, or hold nothing to learn or to score.
    """
    options: dict[str, Any] = {
        "reading": config.reading,
        "mask_values": config.mask_values or None,
        "mask_offset": config.mask_offset,
        "tell": tell,
    }
    sources = load_sources(config.train_data, label_set, labeled=config.needs_labels, **options)
    unlabeled = load_sources(config.unlabeled_data, label_set, labeled=False, **options)
    scored, images = "eval_data", all_images(load_sources(config.eval_data, label_set, **options))
    if config.validation_fraction:
        split = hold_out(config.train_data, sources, config.validation_fraction, config.seed)
        sources, scored, images = split.train, "validation data", all_images([split.validation])
        if tell is not None:
            tell(split.line)
            folder.write_split(split.record)
    leaves_open = False
    if config.needs_labels:
        explained = config.mask_values or config.mask_offset
        counts = _tell_labels(
            "train_data", sources, label_set, tell, counts_from_zero=not explained
        )
        partly = bool(unlabeled) or is_partly_labeled(sources)
        leaves_open = partly or IGNORE_INDEX in counts.pixels
        if images:
            _tell_labels(scored, [images], label_set, tell)
    return RunData(sources, unlabeled, images, leaves_open)


def leave_out_open_pixels(config: TrainConfig, settings: CrossEarthConfig) -> str:
    """Leaves pixels without a label out of the mask losses unless the run says otherwise; a line tells which holds.

    Args:
        config: The run.
        settings: The model's configuration, which is changed.
    """
    if config.ignore_unlabelled_pixels is None:
        settings.ignore_unlabelled_pixels = True
    line = (
        "are left out of the mask losses; ignore_unlabelled_pixels: false makes them background of every class, as "
        "the original code does"
    )
    if not settings.ignore_unlabelled_pixels:
        line = (
            "are background of every class in the mask losses, as in the original code; "
            "ignore_unlabelled_pixels: true leaves them out"
        )
    return f"pixels without a label (255) {line}"


def _tell_labels(
    what: str,
    sources: Sequence[Source],
    label_set: LabelSet,
    tell: Callable[[str], object] | None,
    *,
    counts_from_zero: bool = False,
) -> LabelCounts:
    """The counts of the labels of the images, checked and told.

    Raises:
        InputError: The labels hold nothing to learn or to score, or their values look misread.
    """
    counts = count_labels(sources)
    counts.check(what, label_set.classes, label_set)
    if counts_from_zero:
        counts.check_from_zero(what, label_set)
        counts.check_black_and_white(what, label_set)
    if tell is not None:
        tell(counts.table(what, label_set))
    return counts


def batches_from(first: int, crops: TrainingCrops, config: TrainConfig) -> DataLoader:
    """Batches of the crops from number `first` on, in their order."""
    return DataLoader(
        crops,
        config.per_device_train_batch_size,
        sampler=range(first, len(crops)),
        num_workers=config.dataloader_num_workers,
        generator=torch.Generator(),  # so that it draws nothing from the global one
    )
