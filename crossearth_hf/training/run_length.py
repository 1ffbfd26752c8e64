"""The number of steps of a run whose length is given in epochs."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ..data import Source
from ..data.hub_stream import HubStream
from ..data.labeled_images import LabeledImage, scale_to
from ..errors import InputError
from .config import TrainConfig


def with_steps(
    config: TrainConfig,
    sources: Sequence[Source],
    crop_size: int,
    ground_sampling_distance: float | None,
    processes: int,
) -> TrainConfig:
    """The run with `max_steps` computed from `num_train_epochs`, if that is given.

    Args:
        config: The run.
        sources: Its training data.
        crop_size: Side of the crops in pixels.
        ground_sampling_distance: Meters per pixel of resampled images, if they are resampled.
        processes: Number of processes that share the crops.

    Raises:
        InputError: A stream has no end, or the run has fewer steps than its warm-up.
    """
    if config.num_train_epochs is None:
        return config
    crops = 0
    for source in sources:
        if isinstance(source, HubStream):
            raise InputError(
                f"num_train_epochs counts images, and {source.name} is a stream; give max_steps instead"
            )
        if config.relative_to_crop:
            crops += len(source)
        else:
            crops += sum(_crops_of(image, crop_size, ground_sampling_distance) for image in source)
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * processes
    return replace(
        config,
        max_steps=math.ceil(config.num_train_epochs * crops / per_step),
        num_train_epochs=None,
    )


def _crops_of(image: LabeledImage, crop_size: int, ground_sampling_distance: float | None) -> int:
    """The number of crops with as many pixels as an image at scale 1."""
    height, width = image.size
    scale = scale_to(image, ground_sampling_distance)
    return max(1, round(height * width * (scale / crop_size) ** 2))
